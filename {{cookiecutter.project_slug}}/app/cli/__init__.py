"""The command line, for the server's operator. This feature can be deleted.

Results go to stdout and messages to stderr: `KEY=$(python -m app keys create …)` is just the key.
Importing the app takes a second, so a module is imported when one of its commands is used.
"""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from app.cli.arguments import AsJson, Email


class LazyGroup(TyperGroup):
    """The commands of the module with the same name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Any: a context of click
        module = import_module(f"app.cli.{self.name}")
        self.commands = typer.main.get_group(module.cli).commands
        return super().parse_args(ctx, args)


cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Manage users and API keys.",
)
group = typer.Typer(cls=LazyGroup, no_args_is_help=True)
cli.add_typer(group, name="users", help="Manage users.")
cli.add_typer(group, name="keys", help="Manage API keys.")


@cli.command()
def check(as_json: AsJson = False) -> None:
    """Check settings, database and Redis"""
    from app.cli.check import check

    check(as_json)


@cli.command()
def start(email: Email, as_json: AsJson = False) -> None:
    """Migrate, and create the first admin"""
    from app.cli.start import start

    start(email, as_json)


@cli.command()
def purge(as_json: AsJson = False) -> None:
    """Delete old data"""
    from app.cli.purge import purge

    purge(as_json)
