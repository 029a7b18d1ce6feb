from collections.abc import Iterable, Sequence
from datetime import timedelta
from math import ceil
from uuid import UUID

from sqlalchemy import ColumnElement
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys import format as key_format
from app.api_keys.models import Action, ApiKeyEvent, Status, UserApiKey
from app.api_keys.schemas import ApiKeyCreate, ApiKeyQuery, ApiKeyRenew, ApiKeyUpdate
from app.api_keys.verifier import Caller
from app.database import utc_now
from app.errors import Conflict, InvalidInput, NotFound
from app.pagination import PageQuery, Rows, paginate
from app.scopes import Scope, effective
from app.settings import Settings
from app.users.models import User

# In all of these, the actor is who does it; None is the command line, which may do everything.


async def create(
    session: AsyncSession, settings: Settings, new: ApiKeyCreate, actor: Caller | None
) -> tuple[UserApiKey, str]:
    """A new key and its text, which is nowhere else: what is not passed on now is lost."""
    if actor and new.user_id not in {None, actor.user_id}:
        actor.require(Scope.ADMIN)
    owner_id = new.user_id if actor is None else new.user_id or actor.user_id
    owner = await _may_grant(session, actor, owner_id, set(new.scopes))
    in_use = select(func.count()).where(
        UserApiKey.user_id == owner.id, col(UserApiKey.revoked_at).is_(None), col(UserApiKey.replaced_by).is_(None)
    )
    if (await session.exec(in_use)).one() >= settings.api_key_max_per_user:
        raise Conflict(f"The user has {settings.api_key_max_per_user} keys already; revoke one first.")
    key = UserApiKey(**new.model_dump(exclude={"user_id", "expires_at"}), user_id=owner.id)
    _set_expiry(key, new, settings)
    return key, await _issue(session, settings, key, actor)


async def _may_grant(session: AsyncSession, actor: Caller | None, owner_id: UUID | None, scopes: set[Scope]) -> User:
    """Nobody grants what they lack, and the key of one who is no admin never says so.

    Locks the owner: of what comes at once for one owner, each sees what the others did.
    """
    if actor:
        actor.require(*sorted(scopes))
    owner = (await session.exec(select(User).where(User.id == owner_id).with_for_update())).first()
    if owner is None:
        raise InvalidInput(("/body/user_id", "There is no such user."))
    if Scope.ADMIN in scopes and not owner.is_admin:
        raise InvalidInput(("/body/scopes", "The owner of the key would have to be an admin."))
    return owner


async def _issue(session: AsyncSession, settings: Settings, key: UserApiKey, actor: Caller | None) -> str:
    key.id, text = key_format.generate(settings.api_key_prefix, settings.key_environment)
    key.hint = key_format.hint(text)
    key.pepper_id = max(settings.api_key_peppers)
    key.digest = key_format.digest(settings.api_key_peppers[key.pepper_id].get_secret_value(), text)
    session.add(key)
    await session.flush()
    _log(session, key.id, Action.CREATED, actor)
    return text


def _set_expiry(key: UserApiKey, wanted: ApiKeyCreate | ApiKeyRenew, settings: Settings) -> None:
    """Absent from the body, it is the default; null means never, where that is allowed."""
    now = utc_now()
    longest = settings.api_key_max_expire_days
    if "expires_at" not in wanted.model_fields_set:
        key.expires_at = now + timedelta(days=settings.api_key_expire_days)
    elif longest and (wanted.expires_at is None or wanted.expires_at > now + timedelta(days=longest)):
        raise InvalidInput(("/body/expires_at", f"A key must end within {longest} days."))
    elif wanted.expires_at and wanted.expires_at <= now:
        raise InvalidInput(("/body/expires_at", "This is in the past."))
    else:
        key.expires_at = wanted.expires_at
    key.lifetime_seconds = ceil((key.expires_at - now).total_seconds()) if key.expires_at else None


async def page(session: AsyncSession, caller: Caller, query: ApiKeyQuery) -> Rows[UserApiKey]:
    if query.user_id not in {None, caller.user_id}:
        caller.require(Scope.ADMIN)
    statement = select(UserApiKey).where(*_visible_to(caller), *_wanted(query))
    return await paginate(session, statement, UserApiKey, query)


def _visible_to(actor: Caller | None) -> list[ColumnElement[bool]]:
    return [] if actor is None or actor.is_admin else [col(UserApiKey.user_id) == actor.user_id]


def _wanted(query: ApiKeyQuery) -> Iterable[ColumnElement[bool]]:
    if query.status:
        yield Status.in_sql(utc_now()) == query.status
    if query.q:
        yield col(UserApiKey.name).icontains(query.q, autoescape=True)
    if query.expires_before:
        yield col(UserApiKey.expires_at) < query.expires_before
    if query.unused_since:
        yield func.coalesce(col(UserApiKey.last_used_at), col(UserApiKey.created_at)) < query.unused_since
    if query.user_id:
        yield col(UserApiKey.user_id) == query.user_id


async def everyones(session: AsyncSession, owner_id: UUID | None) -> Sequence[UserApiKey]:
    statement = select(UserApiKey).order_by(col(UserApiKey.created_at))
    return (await session.exec(statement.where(UserApiKey.user_id == owner_id) if owner_id else statement)).all()


async def get(session: AsyncSession, key_id: str, actor: Caller | None, *, lock: bool = False) -> UserApiKey:
    statement = select(UserApiKey).where(UserApiKey.id == key_id, *_visible_to(actor))
    key = (await session.exec(statement.with_for_update() if lock else statement)).first()
    if key is None:
        raise NotFound
    return key


# What follows is given a key that `get` has locked: two that come at once come one after the other.


async def change(session: AsyncSession, key: UserApiKey, changes: ApiKeyUpdate, actor: Caller | None) -> None:
    _refuse_if(key.revoked_at, "A revoked key cannot be changed.")
    added = set(changes.scopes) - set(key.scopes)
    if added:
        await _may_grant(session, actor, key.user_id, added)
    key.sqlmodel_update(changes.model_dump(exclude_unset=True))
    _log(session, key.id, Action.UPDATED, actor)


async def renew(
    session: AsyncSession, settings: Settings, key: UserApiKey, wanted: ApiKeyRenew, actor: Caller | None
) -> None:
    _refuse_if(key.revoked_at, "A revoked key cannot be renewed.")
    _refuse_if(key.replaced_by, "This key has been rotated: its successor can be renewed.")
    _set_expiry(key, wanted, settings)
    _log(session, key.id, Action.RENEWED, actor)


async def rotate(
    session: AsyncSession, settings: Settings, key: UserApiKey, overlap_seconds: int, actor: Caller | None
) -> tuple[UserApiKey, str]:
    """A successor with the same rights, limits and lifetime, and its text; the key itself ends after the overlap."""
    _refuse_if(key.revoked_at, "A revoked key cannot be rotated.")
    _refuse_if(not key.enabled, "A disabled key cannot be rotated.")
    _refuse_if(key.replaced_by, "This key has been rotated already.")
    if actor and actor.key_id != key.id:
        actor.require(*effective(key.scopes, owner_is_admin=True))  # the successor's text would be in their hands
    now = utc_now()
    lifetimes = [key.lifetime_seconds, settings.api_key_max_expire_days and settings.api_key_max_expire_days * 86_400]
    lifetime = min((seconds for seconds in lifetimes if seconds), default=None)
    copied = key.model_dump(include={"user_id", "name", "scopes", "rate_limit", "allowed_cidrs"})
    expires_at = now + timedelta(seconds=lifetime) if lifetime else None
    successor = UserApiKey(**copied, lifetime_seconds=lifetime, expires_at=expires_at)
    text = await _issue(session, settings, successor, actor)
    end = now + timedelta(seconds=overlap_seconds)
    key.expires_at = min(key.expires_at or end, end)
    key.replaced_by = successor.id
    _log(session, key.id, Action.ROTATED, actor)
    return successor, text


async def revoke(session: AsyncSession, key: UserApiKey, actor: Caller | None) -> None:
    """For good. To do it again changes nothing."""
    if key.revoked_at is None:
        key.revoked_at = utc_now()
        _log(session, key.id, Action.REVOKED, actor)


async def revoke_all(session: AsyncSession, user_id: UUID, actor: Caller | None) -> int:
    unrevoked = select(UserApiKey).where(UserApiKey.user_id == user_id, col(UserApiKey.revoked_at).is_(None))
    keys = (await session.exec(unrevoked.order_by(col(UserApiKey.id)).with_for_update())).all()
    for key in keys:
        await revoke(session, key, actor)
    return len(keys)


async def events(session: AsyncSession, key: UserApiKey, query: PageQuery) -> Rows[ApiKeyEvent]:
    return await paginate(session, select(ApiKeyEvent).where(ApiKeyEvent.key_id == key.id), ApiKeyEvent, query)


async def count_by_pepper(session: AsyncSession) -> dict[int, int]:
    """How many keys that are not revoked each pepper has signed."""
    pepper_id = col(UserApiKey.pepper_id)
    unrevoked = select(pepper_id, func.count()).where(col(UserApiKey.revoked_at).is_(None))
    return dict((await session.exec(unrevoked.group_by(pepper_id))).all())


def _refuse_if(reason: object, detail: str) -> None:
    if reason:
        raise Conflict(detail)


def _log(session: AsyncSession, key_id: str, action: Action, actor: Caller | None) -> None:
    """In the transaction of the deed: there is never one without the other."""
    event = ApiKeyEvent(key_id=key_id, action=action)
    if actor:
        event.actor_user_id, event.actor_key_id = actor.user_id, actor.key_id
    session.add(event)
