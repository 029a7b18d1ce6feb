"""`python -m app`: for the server's owner. It needs no key, and talks to the database in DATABASE_URL.

Results go to stdout and talk to stderr, so `KEY=$(python -m app keys create …)` holds just the key.

What does the work is imported by each command: `--help` should not wait for it.
"""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from app.scopes import Scope

if TYPE_CHECKING:
    from pydantic import BaseModel

    from app.api_keys.schemas import ApiKeyCreated

Email = Annotated[str, typer.Argument(help="The user's email address.")]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

USER = ("id", "email", "is_active", "is_admin")
KEY = ("id", "name", "scopes", "status", "expires_at", "last_used_at")

cli = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Users and API keys."
)
users_cli = typer.Typer(no_args_is_help=True, help="The owners of keys.")
keys_cli = typer.Typer(no_args_is_help=True, help="API keys.")
cli.add_typer(users_cli, name="users")
cli.add_typer(keys_cli, name="keys")


@cli.command()
def start(email: Email, as_json: AsJson = False) -> None:
    """First run: migrate, create the admin EMAIL and print its key. Run again, it changes nothing and says so."""
    from app import commands

    commands.migrate()
    if created := commands.create_first_admin(email):
        commands.say(f"Created the admin {email}. This is the only time that the key is shown:")
        _print_key(created, as_json)
    else:
        commands.say("There is an admin already; nothing was changed.")


@users_cli.command("create")
def create_user(
    email: Email, admin: bool = False, first_name: str = "", last_name: str = "", as_json: AsJson = False
) -> None:
    """Create a user, who has no key yet."""
    from app import commands

    created = commands.create_user(email, is_admin=admin, first_name=first_name, last_name=last_name)
    _print_rows(created, USER, as_json)


@users_cli.command("list")
def list_users(as_json: AsJson = False) -> None:
    """List all users."""
    from app import commands

    _print_rows(commands.list_users(), USER, as_json)


@users_cli.command("disable")
def disable_user(email: Email, as_json: AsJson = False) -> None:
    """Refuse all keys of a user, until they are enabled again."""
    from app import commands

    _print_rows(commands.set_active(email, is_active=False), USER, as_json)


@users_cli.command("enable")
def enable_user(email: Email, as_json: AsJson = False) -> None:
    """Let a disabled user's keys work again."""
    from app import commands

    _print_rows(commands.set_active(email, is_active=True), USER, as_json)


@keys_cli.command("create")
def create_key(
    email: Email,
    name: Annotated[str, typer.Option(help="What the key is for.")],
    scope: Annotated[list[Scope] | None, typer.Option(help="What it may do; give it once for each scope.")] = None,
    expires_in_days: Annotated[int | None, typer.Option(min=1, max=36_500)] = None,
    never_expires: Annotated[bool, typer.Option("--never-expires")] = False,
    as_json: AsJson = False,
) -> None:
    """Create a key for the user EMAIL and print it, this once."""
    from app import commands

    if expires_in_days and never_expires:
        raise typer.BadParameter("--expires-in-days and --never-expires exclude each other")
    created = commands.create_key(email, name, scope or [], days=expires_in_days, never_expires=never_expires)
    _print_key(created, as_json)


@keys_cli.command("list")
def list_keys(email: Annotated[str | None, typer.Argument()] = None, as_json: AsJson = False) -> None:
    """List the keys of the user EMAIL, or everybody's."""
    from app import commands

    _print_rows(commands.list_keys(email), KEY, as_json)


@keys_cli.command("revoke")
def revoke_key(key_id: KeyId, as_json: AsJson = False) -> None:
    """Revoke a key for good."""
    from app import commands

    _print_rows(commands.revoke_key(key_id), KEY, as_json)


@keys_cli.command("rotate")
def rotate_key(
    key_id: KeyId,
    overlap_seconds: Annotated[int, typer.Option(min=0, max=2_592_000, help="How long the old key works on.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Replace a key by a new one with the same rights, and print that, this once."""
    from app import commands

    _print_key(commands.rotate_key(key_id, overlap_seconds), as_json)


@keys_cli.command("usage")
def show_usage(key_id: KeyId, as_json: AsJson = False) -> None:
    """Show how often a key was used on each of the last 30 days."""
    from app import commands

    _print_rows(commands.read_usage(key_id), ("start", "requests", "errors"), as_json)


@keys_cli.command("peppers")
def show_peppers(as_json: AsJson = False) -> None:
    """Count the unrevoked keys that each pepper signed; one that none is left on can go from API_KEY_PEPPERS."""
    from app import commands

    _print_rows(commands.count_peppers(), ("pepper", "keys", "known"), as_json)


def _print_key(created: "ApiKeyCreated", as_json: bool) -> None:
    print(created.model_dump_json(indent=2) if as_json else created.api_key)


def _print_rows(rows: "Sequence[BaseModel]", columns: Sequence[str], as_json: bool) -> None:
    """A table on a terminal, tab-separated lines elsewhere; as JSON, all fields."""
    dumped = [row.model_dump(mode="json") for row in rows]
    cells = [[_cell(row[column]) for column in columns] for row in dumped]
    if as_json:
        print(json.dumps(dumped, indent=2))
    elif cells and on_terminal():
        _print_table(columns, cells)
    else:
        for row in cells:
            print("\t".join(row))


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)


def on_terminal() -> bool:
    return sys.stdout.isatty()


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)
