from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from app.api_keys.service import create_first_admin
from app.cli.run import fail, print_key, run, say
from app.core.database import reason
from app.settings import ROOT, get_settings


def start(email: str, as_json: bool) -> None:
    try:
        command.upgrade(Config(toml_file=ROOT / "pyproject.toml"), "head")
    except (CommandError, DBAPIError) as error:  # for example, an older version was deployed
        fail(f"The database cannot be migrated: {reason(error)}.")
    if new := run(lambda session: create_first_admin(session, get_settings(), email)):
        expiry = f"{new.key.expires_at:%Y-%m-%d %H:%M} UTC"
        say(f"Created the admin {email}. This key expires at {expiry} and is not shown again:")
        print_key(new, as_json)
    else:
        say(
            "An admin already exists. To create another key: "
            "python -m app keys create EMAIL --name NAME --all-scopes"
        )
