"""The command line, for the server's operator. This feature can be deleted.

Results go to stdout and messages to stderr: `KEY=$(python -m app keys create …)` is just the key.
"""

import typer
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from app.api_keys.service import create_first_admin
from app.cli import keys, users
from app.cli.purge import purge
from app.cli.run import AsJson, Email, fail, print_key, run, say
from app.settings import ROOT, get_settings

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Manage users and API keys.",
)
cli.add_typer(users.cli, name="users")
cli.add_typer(keys.cli, name="keys")
cli.command("purge")(purge)


@cli.command()
def start(email: Email, as_json: AsJson = False) -> None:
    """Migrate, and create the first admin"""
    try:
        command.upgrade(Config(toml_file=ROOT / "pyproject.toml"), "head")
    except DBAPIError as error:
        fail(f"The database cannot be migrated: {error.orig}")
    except CommandError as error:  # for example, an older version of the app was deployed
        fail(f"The database cannot be migrated: {error}")
    if new := run(lambda session: create_first_admin(session, get_settings(), email)):
        say(f"Created the admin {email}. This key is not shown again:")
        print_key(new, as_json)
    else:
        say(
            "An admin already exists. To create another key: "
            "python -m app keys create EMAIL --name NAME --all-scopes"
        )
