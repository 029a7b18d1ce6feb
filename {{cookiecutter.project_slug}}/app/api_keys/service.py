from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys import format as key_format
from app.api_keys.models import UserApiKey
from app.api_keys.schemas import ApiKeyCreate
from app.api_keys.verifier import Caller
from app.database import utc_now
from app.errors import Conflict, InvalidInput, NotFound
from app.pagination import PageQuery, Rows, paginate
from app.scopes import Scope
from app.settings import Settings
from app.users.models import User


async def create(
    session: AsyncSession, settings: Settings, new: ApiKeyCreate, actor: Caller | None
) -> tuple[UserApiKey, str]:
    """A new key and its text, which is nowhere else: what is not passed on now is lost.

    `actor` is None on the command line, which may do everything.
    """
    owner_id = new.user_id or (actor and actor.user_id)
    if actor:
        actor.require(*new.scopes)  # nobody grants what they lack
        if owner_id != actor.user_id:
            actor.require(Scope.ADMIN)
    # The lock makes parallel creates wait for each other, so that each counts what the others made.
    owner = (await session.exec(select(User).where(User.id == owner_id).with_for_update())).first()
    if owner is None:
        raise InvalidInput(("/body/user_id", "There is no such user."))
    if Scope.ADMIN in new.scopes and not owner.is_admin:
        raise InvalidInput(("/body/scopes", "The owner of the key would have to be an admin."))
    unrevoked = select(func.count()).where(UserApiKey.user_id == owner.id, col(UserApiKey.revoked_at).is_(None))
    if (await session.exec(unrevoked)).one() >= settings.api_key_max_per_user:
        raise Conflict(f"The user has {settings.api_key_max_per_user} keys already; revoke one first.")

    key_id, text = key_format.generate(settings.api_key_prefix, settings.key_environment)
    pepper_id, pepper = max(settings.api_key_peppers.items(), key=lambda item: item[0])
    key = UserApiKey(
        id=key_id,
        user_id=owner.id,
        name=new.name,
        hint=key_format.hint(text),
        digest=key_format.digest(pepper.get_secret_value(), text),
        pepper_id=pepper_id,
        scopes=[*new.scopes],
        allowed_cidrs=new.allowed_cidrs,
        expires_at=expiry(new, settings),
    )
    session.add(key)
    await session.flush()
    return key, text


def expiry(new: ApiKeyCreate, settings: Settings) -> datetime | None:
    """When a key ends. Absent from the body, it is the default; null means never, where that is allowed."""
    now = utc_now()
    if "expires_at" not in new.model_fields_set:
        return now + timedelta(days=settings.api_key_expire_days)
    longest = settings.api_key_max_expire_days
    if new.expires_at is None:
        if longest:
            raise InvalidInput(("/body/expires_at", f"A key must end within {longest} days."))
        return None
    if new.expires_at <= now:
        raise InvalidInput(("/body/expires_at", "This is in the past."))
    if longest and new.expires_at > now + timedelta(days=longest):
        raise InvalidInput(("/body/expires_at", f"A key must end within {longest} days."))
    return new.expires_at


async def page(session: AsyncSession, caller: Caller, query: PageQuery) -> Rows[UserApiKey]:
    return await paginate(session, select(UserApiKey).where(*_visible_to(caller)), UserApiKey, query)


async def everyones(session: AsyncSession, owner_id: UUID | None) -> Sequence[UserApiKey]:
    statement = select(UserApiKey).order_by(col(UserApiKey.created_at))
    return (await session.exec(statement.where(UserApiKey.user_id == owner_id) if owner_id else statement)).all()


async def get(session: AsyncSession, key_id: str, caller: Caller | None) -> UserApiKey:
    statement = select(UserApiKey).where(UserApiKey.id == key_id, *_visible_to(caller)).with_for_update()
    key = (await session.exec(statement)).first()
    if key is None:
        raise NotFound
    return key


def _visible_to(caller: Caller | None) -> list[ColumnElement[bool]]:
    return [] if caller is None or caller.is_admin else [col(UserApiKey.user_id) == caller.user_id]


async def revoke(session: AsyncSession, key: UserApiKey) -> None:
    if key.revoked_at is None:
        key.revoked_at = utc_now()
        await session.flush()
