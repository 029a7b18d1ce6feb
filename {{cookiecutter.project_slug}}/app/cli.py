"""`python -m app`: for the server's owner. It needs no key, and talks to the database in DATABASE_URL.

Results go to stdout and talk to stderr, so `KEY=$(python -m app keys create …)` holds just the key.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys import service as api_keys
from app.api_keys.models import UserApiKey
from app.api_keys.schemas import ApiKeyCreate, ApiKeyCreated, ApiKeyRead
from app.database import Database, utc_now
from app.errors import ApiError, InvalidInput
from app.scopes import Scope
from app.settings import ROOT, get_settings
from app.usage import service as usage
from app.usage.schemas import UsageQuery, UsageRead
from app.users import service as users
from app.users.models import User
from app.users.schemas import UserCreate, UserRead, UserUpdate

T = TypeVar("T")
Email = Annotated[str, typer.Argument(help="The user's email address.")]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

cli = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Users and API keys."
)
users_cli = typer.Typer(no_args_is_help=True, help="The owners of keys.")
keys_cli = typer.Typer(no_args_is_help=True, help="API keys.")
cli.add_typer(users_cli, name="users")
cli.add_typer(keys_cli, name="keys")


class PepperRead(BaseModel):
    pepper: int
    keys: int
    known: bool


def main() -> None:
    try:
        cli()
    except ValidationError as error:
        for one in error.errors():
            _say(f"{'.'.join(map(str, one['loc']))}: {one['msg']}")
        sys.exit(2)


@cli.command()
def start(email: Email, as_json: AsJson = False) -> None:
    """First run: migrate, create the admin EMAIL and print its key. Run again, it changes nothing and says so."""
    from alembic import command  # here: the other commands should not wait for it
    from alembic.config import Config

    new = UserCreate(email=email, is_admin=True)
    with _sentences():
        command.upgrade(Config(ROOT / "alembic.ini"), "head")

    async def work(session: AsyncSession) -> ApiKeyCreated | None:
        if await users.any_admin(session):
            return None
        admin = await users.create(session, new)
        return await _create_key(session, ApiKeyCreate(name="first key", scopes=[*Scope], user_id=admin.id))

    created = _run(work)
    if created is None:
        _say("There is an admin already; nothing was changed.")
        return
    _say(f"Created the admin {new.email}. This is the only time that the key is shown:")
    _print_key(created, as_json)


@users_cli.command("create")
def create_user(
    email: Email, admin: bool = False, first_name: str = "", last_name: str = "", as_json: AsJson = False
) -> None:
    """Create a user, who has no key yet."""
    new = UserCreate(email=email, first_name=first_name, last_name=last_name, is_admin=admin)
    user = _run(lambda session: users.create(session, new))
    _print_users([user], as_json)


@users_cli.command("list")
def list_users(as_json: AsJson = False) -> None:
    """List all users."""
    rows = _run(users.everyone)
    _print_users(rows, as_json)


@users_cli.command("disable")
def disable_user(email: Email, as_json: AsJson = False) -> None:
    """Refuse all keys of a user, until they are enabled again."""
    _set_active(email, as_json, is_active=False)


@users_cli.command("enable")
def enable_user(email: Email, as_json: AsJson = False) -> None:
    """Let a disabled user's keys work again."""
    _set_active(email, as_json, is_active=True)


def _set_active(email: str, as_json: bool, *, is_active: bool) -> None:
    async def work(session: AsyncSession) -> User:
        user = await users.by_email(session, email)
        return await users.change(session, user.id, UserUpdate(is_active=is_active))

    _print_users([_run(work)], as_json)


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
    if expires_in_days and never_expires:
        raise typer.BadParameter("--expires-in-days and --never-expires exclude each other")
    expiry: dict[str, datetime | None] = {}
    if expires_in_days:
        expiry["expires_at"] = utc_now() + timedelta(days=expires_in_days)
    elif never_expires:
        expiry["expires_at"] = None

    async def work(session: AsyncSession) -> ApiKeyCreated:
        owner = await users.by_email(session, email)
        return await _create_key(session, ApiKeyCreate(name=name, scopes=scope or [], user_id=owner.id, **expiry))

    _print_key(_run(work), as_json)


@keys_cli.command("list")
def list_keys(email: Annotated[str | None, typer.Argument()] = None, as_json: AsJson = False) -> None:
    """List the keys of the user EMAIL, or everybody's."""

    async def work(session: AsyncSession) -> Sequence[UserApiKey]:
        return await api_keys.everyones(session, (await users.by_email(session, email)).id if email else None)

    _print_keys(_run(work), as_json)


@keys_cli.command("revoke")
def revoke_key(key_id: KeyId, as_json: AsJson = False) -> None:
    """Revoke a key for good."""

    async def work(session: AsyncSession) -> UserApiKey:
        key = await api_keys.get(session, key_id, actor=None, lock=True)
        await api_keys.revoke(session, key, actor=None)
        return key

    _print_keys([_run(work)], as_json)


@keys_cli.command("rotate")
def rotate_key(
    key_id: KeyId,
    overlap_seconds: Annotated[int, typer.Option(min=0, max=2_592_000, help="How long the old key works on.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Replace a key by a new one with the same rights, and print that, this once."""

    async def work(session: AsyncSession) -> ApiKeyCreated:
        key = await api_keys.get(session, key_id, actor=None, lock=True)
        successor, text = await api_keys.rotate(session, get_settings(), key, overlap_seconds, actor=None)
        return ApiKeyCreated.of(successor, api_key=text)

    _print_key(_run(work), as_json)


@keys_cli.command("usage")
def show_usage(key_id: KeyId, as_json: AsJson = False) -> None:
    """Show how often a key was used on each of the last 30 days."""

    async def work(session: AsyncSession) -> UsageRead:
        key = await api_keys.get(session, key_id, actor=None)
        return await usage.read(session, key.id, UsageQuery())

    _print_rows(_run(work).buckets, ["start", "requests", "errors"], as_json)


@keys_cli.command("peppers")
def show_peppers(as_json: AsJson = False) -> None:
    """Count the unrevoked keys that each pepper signed; one that none is left on can go from API_KEY_PEPPERS."""
    counts = _run(api_keys.count_by_pepper)
    known = get_settings().api_key_peppers
    rows = [
        PepperRead(pepper=number, keys=counts.get(number, 0), known=number in known)
        for number in sorted(counts | known)
    ]
    _print_rows(rows, ["pepper", "keys", "known"], as_json)


async def _create_key(session: AsyncSession, new: ApiKeyCreate) -> ApiKeyCreated:
    key, text = await api_keys.create(session, get_settings(), new, actor=None)
    return ApiKeyCreated.of(key, api_key=text)


def _run(work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Do the work in one session, which commits when it is done."""

    async def in_session() -> T:
        database = Database(get_settings().database_url)
        try:
            async with database.session() as session:
                return await work(session)
        finally:
            await database.dispose()

    with _sentences():
        return asyncio.run(in_session())


@contextmanager
def _sentences() -> Iterator[None]:
    """Turn a refusal into one sentence and exit code 1."""
    try:
        yield
    except InvalidInput as error:
        _say(" ".join(detail for _, detail in error.errors))
    except ApiError as error:
        _say(error.detail)
    except DBAPIError as error:
        _say(f"The database refused: {error.orig} (is it migrated? alembic upgrade head)")
    else:
        return
    sys.exit(1)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _print_key(created: ApiKeyCreated, as_json: bool) -> None:
    print(created.model_dump_json(indent=2) if as_json else created.api_key)


def _print_users(users: Sequence[User], as_json: bool) -> None:
    rows = [UserRead.model_validate(user) for user in users]
    _print_rows(rows, ["id", "email", "is_active", "is_admin"], as_json)


def _print_keys(keys: Sequence[UserApiKey], as_json: bool) -> None:
    rows = [ApiKeyRead.model_validate(key) for key in keys]
    _print_rows(rows, ["id", "name", "scopes", "status", "expires_at", "last_used_at"], as_json)


def _print_rows(rows: Sequence[BaseModel], columns: list[str], as_json: bool) -> None:
    """A table on a terminal, tab-separated lines elsewhere; as JSON, all fields."""
    dumped = [row.model_dump(mode="json") for row in rows]
    cells = [[_cell(row[column]) for column in columns] for row in dumped]
    if as_json:
        print(json.dumps(dumped, indent=2))
    elif cells and on_terminal():
        table = Table(*columns)
        for row in cells:
            table.add_row(*map(escape, row))
        Console().print(table)
    else:
        for row in cells:
            print("\t".join(row))


def on_terminal() -> bool:
    return sys.stdout.isatty()


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)
