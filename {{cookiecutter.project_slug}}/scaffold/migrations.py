"""Changes of the project that come with a migration."""

import io
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.engine import make_url

from app.settings import ROOT, get_settings
from scaffold.edits import Files
from scaffold.names import Rejected

VERSIONS = ROOT / "migrations/versions"


@contextmanager
def migrated_changes(message: str, *, dry: bool) -> Iterator[Files]:
    """Changes of models and other files, to which a migration is added. All are undone on failure.

    The migration is generated on a scratch database, and applied to that of DATABASE_URL.
    """
    files = Files(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        scratch = f"sqlite+aiosqlite:///{folder}/scratch.db"
        check_migrations(scratch)
        try:
            yield files
            paths = [f"{path}" for path in files.before]
            for rule in ("F401", "I"):  # unused imports, and then the order of the others
                run("ruff", "check", "--quiet", "--fix", f"--select={rule}", *paths)
            run("ruff", "format", "--quiet", *paths)
            migrations = {path: path.read_text("utf-8") for path in VERSIONS.glob("*.py")}
            run("alembic", "revision", "--autogenerate", "-m", message, DATABASE_URL=scratch)
            if len([*VERSIONS.glob("*.py")]) == len(migrations):
                raise Rejected("Alembic has written no migration. Use another name.")
            for path in VERSIONS.glob("*.py"):
                if path.read_text("utf-8") != migrations.get(path):
                    files.before[path] = migrations.get(path)
                    if path in migrations:
                        raise Rejected(
                            f"Rename {path.name} first: the new migration would replace it."
                        )
            if dry:
                print(files.diff(), end="")
                files.undo()
            else:
                run("alembic", "upgrade", "head")
        except BaseException as error:
            files.undo()
            if isinstance(error, LookupError):
                raise Rejected(f"Add it by hand: {error} was not found.") from error
            raise
    if not dry:
        for path, before in files.before.items():
            print("created" if before is None else "changed", path.relative_to(ROOT))
        print("The migration is applied to the development database. Next: make check test")


def check_migrations(scratch: str) -> None:
    """Raises Rejected unless the migrations match the models and the database."""
    output = io.StringIO()
    config = Config(toml_file=ROOT / "pyproject.toml", stdout=output)
    if len(ScriptDirectory.from_config(config).get_heads()) > 1:
        raise Rejected("The migrations have several heads. Run `alembic merge heads` first.")
    logging.disable()
    try:
        if not is_new(get_settings().database_url):
            command.current(config)
            current = output.getvalue().strip()
            if current and "(head)" not in current:
                raise Rejected("The database has unapplied migrations. Run `make migrate` first.")
        config.attributes["database_url"] = scratch
        command.upgrade(config, "head")
        command.check(config)
    except CommandError as error:
        if "New upgrade operations" in f"{error}":
            raise Rejected(
                "The models have changes without a migration. Run `make migration` first."
            ) from None
        raise Rejected(f"{error}") from None
    finally:
        logging.disable(logging.NOTSET)


def is_new(database_url: str) -> bool:
    """Whether it is a SQLite file that does not exist yet. Connecting would create it."""
    url = make_url(database_url)
    return url.get_backend_name() == "sqlite" and not Path(url.database or "").exists()


def run(module: str, *arguments: str, **variables: str) -> None:
    """A tool that is installed next to this Python."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        errors = [line for line in lines if re.match(r"[\w.]+: ", line)]  # not links and SQL
        reason = [*lines[-1:], *errors[-1:]][-1]
        raise Rejected(f"{module} {arguments[0]} failed, so nothing was changed. {reason}")
