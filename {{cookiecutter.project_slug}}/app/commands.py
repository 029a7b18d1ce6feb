"""What the command line does; `app.cli` says how it is typed and shown. Apart, so that `--help` waits for neither
FastAPI nor SQLAlchemy.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys import service as api_keys
from app.api_keys.schemas import ApiKeyCreate, ApiKeyCreated, ApiKeyRead
from app.database import Database, utc_now
from app.errors import ApiError, InvalidInput
from app.scopes import Scope
from app.settings import ROOT, get_settings
from app.usage import service as usage
from app.usage.schemas import Bucket, UsageQuery
from app.users import service as users
from app.users.schemas import UserCreate, UserRead, UserUpdate

P = ParamSpec("P")
T = TypeVar("T")


class PepperRead(BaseModel):
    pepper: int
    keys: int
    known: bool


def in_a_session(work: Callable[Concatenate[AsyncSession, P], Awaitable[T]]) -> Callable[P, T]:
    """Does the work in one session, which commits when it is done.

    Raises SystemExit: with 1 and one sentence for a refusal, with 2 for a value that does not fit.
    """

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        async def in_session() -> T:
            database = Database(get_settings().database_url)
            try:
                async with database.session() as session:
                    return await work(session, *args, **kwargs)
            finally:
                await database.dispose()

        try:
            return asyncio.run(in_session())
        except InvalidInput as error:
            sentence = " ".join(detail for _, detail in error.errors)
        except ApiError as error:
            sentence = error.detail
        except DBAPIError as error:
            sentence = f"The database refused: {error.orig} (is it migrated? alembic upgrade head)"
        except ValidationError as error:
            say("\n".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()))
            sys.exit(2)
        say(sentence)
        sys.exit(1)

    return run


def say(text: str) -> None:
    print(text, file=sys.stderr)


def migrate() -> None:
    from alembic import command  # here: the other commands should not wait for it
    from alembic.config import Config

    try:
        command.upgrade(Config(ROOT / "alembic.ini"), "head")
    except DBAPIError as error:
        say(f"The database refused: {error.orig}")
        sys.exit(1)


@in_a_session
async def create_first_admin(session: AsyncSession, email: str) -> ApiKeyCreated | None:
    """The admin's key; None where there is an admin already."""
    if await users.any_admin(session):
        return None
    admin = await users.create(session, UserCreate(email=email, is_admin=True))
    return await _create_key(session, ApiKeyCreate(name="first key", scopes=[*Scope], user_id=admin.id))


@in_a_session
async def create_user(
    session: AsyncSession, email: str, *, is_admin: bool, first_name: str, last_name: str
) -> list[UserRead]:
    new = UserCreate(email=email, first_name=first_name, last_name=last_name, is_admin=is_admin)
    return [UserRead.model_validate(await users.create(session, new))]


@in_a_session
async def list_users(session: AsyncSession) -> list[UserRead]:
    return [UserRead.model_validate(user) for user in await users.everyone(session)]


@in_a_session
async def set_active(session: AsyncSession, email: str, *, is_active: bool) -> list[UserRead]:
    user = await users.by_email(session, email)
    return [UserRead.model_validate(await users.change(session, user.id, UserUpdate(is_active=is_active)))]


@in_a_session
async def create_key(
    session: AsyncSession, email: str, name: str, scopes: list[Scope], *, days: int | None, never_expires: bool
) -> ApiKeyCreated:
    owner = await users.by_email(session, email)
    expiry: dict[str, datetime | None] = {"expires_at": None} if never_expires else {}
    if days:
        expiry["expires_at"] = utc_now() + timedelta(days=days)
    return await _create_key(session, ApiKeyCreate(name=name, scopes=scopes, user_id=owner.id, **expiry))


async def _create_key(session: AsyncSession, new: ApiKeyCreate) -> ApiKeyCreated:
    key, text = await api_keys.create(session, get_settings(), new, actor=None)
    return ApiKeyCreated.of(key, api_key=text)


@in_a_session
async def list_keys(session: AsyncSession, email: str | None) -> list[ApiKeyRead]:
    owner_id = (await users.by_email(session, email)).id if email else None
    return [ApiKeyRead.model_validate(key) for key in await api_keys.everyones(session, owner_id)]


@in_a_session
async def revoke_key(session: AsyncSession, key_id: str) -> list[ApiKeyRead]:
    key = await api_keys.get(session, key_id, actor=None, lock=True)
    await api_keys.revoke(session, key, actor=None)
    return [ApiKeyRead.model_validate(key)]


@in_a_session
async def rotate_key(session: AsyncSession, key_id: str, overlap_seconds: int) -> ApiKeyCreated:
    key = await api_keys.get(session, key_id, actor=None, lock=True)
    successor, text = await api_keys.rotate(session, get_settings(), key, overlap_seconds, actor=None)
    return ApiKeyCreated.of(successor, api_key=text)


@in_a_session
async def read_usage(session: AsyncSession, key_id: str) -> list[Bucket]:
    key = await api_keys.get(session, key_id, actor=None)
    return (await usage.read(session, key.id, UsageQuery())).buckets


@in_a_session
async def count_peppers(session: AsyncSession) -> list[PepperRead]:
    counts = await api_keys.count_by_pepper(session)
    known = get_settings().api_key_peppers
    return [PepperRead(pepper=one, keys=counts.get(one, 0), known=one in known) for one in sorted(counts | known)]
