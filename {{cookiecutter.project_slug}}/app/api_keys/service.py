import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import NamedTuple
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import ColumnElement, tuple_
from sqlalchemy import update as update_rows
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys.models import Status, UserApiKey
from app.api_keys.schemas import ApiKeyCreate, ApiKeyQuery, ApiKeyRenew, ApiKeyUpdate
from app.api_keys.widening import is_higher, is_later, is_wider
from app.audit import service as audit
from app.audit.models import Action
from app.auth import key_format
from app.auth.caller import Caller
from app.auth.confirmation import confirm_caller
from app.auth.scopes import Scope, effective_scopes
from app.core.database import Database, utc_now
from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.pagination import Rows, paginate
from app.core.retention import Retention
from app.core.search import contains
from app.settings import Settings
from app.users import service as users
from app.users.models import User
from app.users.schemas import UserCreate

# The actor is the caller. None stands for the command line, which may do everything.

LATEST = datetime.max.replace(tzinfo=UTC)

STEP = 1000  # keys per transaction
PAUSE_SECONDS = 0.01  # between two transactions, for the other writers of SQLite

# A new key gets its own values for these. It inherits every other column.
NOT_COPIED = {
    "id",
    "hint",
    "digest",
    "pepper_id",
    "created_at",
    "updated_at",
    "lifetime_seconds",
    "replaced_by",
    "expires_at",
    "last_used_at",
    "revoked_at",
}


class NewKey(NamedTuple):
    """A new key, and its text, which is not stored."""

    key: UserApiKey
    text: SecretStr


class LockedKey(NamedTuple):
    """A key that no other transaction can change, and an actor that was confirmed since."""

    key: UserApiKey
    actor: Caller | None


async def create(
    session: AsyncSession, settings: Settings, new: ApiKeyCreate, actor: Caller | None
) -> NewKey:
    owner_id = new.user_id
    if owner_id is None:
        if actor is None:
            raise InvalidInput(("/body/user_id", "Field required"))
        owner_id = actor.user_id
    scopes = [Scope.API_KEYS_WRITE]
    if actor and owner_id != actor.user_id:
        scopes.append(Scope.ADMIN)
        actor.require(Scope.ADMIN)  # before the row of another user is locked
    actor = await confirm_caller(session, actor, *scopes, user_ids=[owner_id])
    await _check_scopes(session, actor, owner_id, new.scopes)
    if new.rate_limit:
        _check_rate_limit(settings, actor, new.rate_limit)
    now = utc_now()
    await _check_number_of_keys(session, settings, owner_id, now)
    fields = new.model_dump(exclude={"user_id", "expires_at"})
    key = UserApiKey(**fields, user_id=owner_id, created_at=now, updated_at=now)
    key.expires_at, key.lifetime_seconds = _wanted_expiry(new, settings, now)
    return await _add(session, settings, key, actor)


async def create_first_admin(
    session: AsyncSession, settings: Settings, email: str
) -> NewKey | None:
    """The key of a new admin. None if there is an admin already."""
    if await users.has_admin(session):
        return None
    admin = await users.create(session, UserCreate(email=email, is_admin=True), None)
    new = ApiKeyCreate(name="first key", scopes=[*Scope], user_id=admin.id)
    return await create(session, settings, new, None)


async def _check_scopes(
    session: AsyncSession, actor: Caller | None, owner_id: UUID, scopes: Iterable[str]
) -> None:
    """Callers cannot grant scopes that they lack, and only admins own keys with `admin`."""
    if actor:
        actor.require(*scopes)
    owner = await session.get(User, owner_id, populate_existing=True)
    if owner is None:
        raise InvalidInput(("/body/user_id", "This user does not exist."))
    if Scope.ADMIN in scopes and not owner.is_admin:
        raise InvalidInput(("/body/scopes", "Only admins can own a key with the scope admin."))


def _check_rate_limit(settings: Settings, actor: Caller | None, rate_limit: str) -> None:
    if actor and is_higher(rate_limit, settings.rate_limit):
        actor.require(Scope.ADMIN)


def _require_scopes_of(key: UserApiKey, actor: Caller | None) -> None:
    """Otherwise a key with few scopes could widen one with more, or receive its successor."""
    if actor:
        actor.require(*effective_scopes(key.scopes, owner_is_admin=True))


async def _check_number_of_keys(
    session: AsyncSession, settings: Settings, owner_id: UUID, now: datetime
) -> None:
    expires_at = col(UserApiKey.expires_at)
    working = select(func.count()).where(
        UserApiKey.user_id == owner_id,
        col(UserApiKey.revoked_at).is_(None),
        expires_at.is_(None) | (expires_at > now),
    )
    maximum = settings.api_key_max_per_user
    if (await session.exec(working)).one() >= maximum:
        raise Conflict(f"The user has {maximum} keys, which is the maximum. Revoke one first.")


async def _add(
    session: AsyncSession, settings: Settings, key: UserApiKey, actor: Caller | None
) -> NewKey:
    text = _generate(settings, key)
    session.add(key)
    await session.flush()
    audit.record(session, Action.API_KEY_CREATED, actor, user_id=key.user_id, key_id=key.id)
    return NewKey(key, text)


def _generate(settings: Settings, key: UserApiKey) -> SecretStr:
    """Not part of `_add`, whose variables an error tracker would report."""
    key.id, text = key_format.generate(settings.api_key_prefix, settings.key_environment)
    key.original_id = key.original_id or key.id
    key.hint = key_format.hint(text)
    key.pepper_id = max(settings.api_key_peppers)
    pepper = settings.api_key_peppers[key.pepper_id].get_secret_value()
    key.digest = key_format.digest(pepper, text)
    return SecretStr(text)


def _wanted_expiry(
    body: ApiKeyCreate | ApiKeyRenew, settings: Settings, now: datetime
) -> tuple[datetime | None, int | None]:
    """The expiry and the lifetime in seconds. Absent: the default. Null: never, where allowed."""
    if "expires_at" not in body.model_fields_set:
        lifetime = timedelta(days=settings.api_key_expire_days)
        return now + lifetime, int(lifetime.total_seconds())
    days = settings.api_key_max_expire_days
    if days and (body.expires_at is None or body.expires_at > now + timedelta(days=days)):
        raise InvalidInput(("/body/expires_at", f"A key must expire within {days} days."))
    if body.expires_at is None:
        return None, None
    if body.expires_at <= now:
        raise InvalidInput(("/body/expires_at", "Input should be in the future."))
    return body.expires_at, ceil((body.expires_at - now).total_seconds())


async def list_page(session: AsyncSession, caller: Caller, query: ApiKeyQuery) -> Rows[UserApiKey]:
    if query.user_id not in {None, caller.user_id}:
        caller.require(Scope.ADMIN)
    statement = select(UserApiKey).where(*visible_to(caller), *_matching(query))
    return await paginate(session, statement, UserApiKey, query)


def visible_to(actor: Caller | None) -> list[ColumnElement[bool]]:
    if actor is None or actor.is_admin:
        return []
    return [col(UserApiKey.user_id) == actor.user_id]


def _matching(query: ApiKeyQuery) -> Iterable[ColumnElement[bool]]:
    if query.status:
        yield Status.in_sql(utc_now()) == query.status
    if query.q:
        yield contains(col(UserApiKey.name), query.q)
    if query.expires_before:
        yield col(UserApiKey.expires_at) < query.expires_before
    if query.unused_since:
        used_at = func.coalesce(col(UserApiKey.last_used_at), col(UserApiKey.created_at))
        yield used_at < query.unused_since
    if query.user_id:
        yield col(UserApiKey.user_id) == query.user_id


async def get(session: AsyncSession, key_id: str, actor: Caller | None) -> UserApiKey:
    statement = select(UserApiKey).where(UserApiKey.id == key_id, *visible_to(actor))
    key = (await session.exec(statement)).first()
    if key is None:
        raise NotFound
    return key


async def lock(
    session: AsyncSession, key_id: str, actor: Caller | None, *scopes: Scope
) -> LockedKey:
    """Lock the key and its owner, and confirm the actor, who must have the scopes."""
    owner = select(UserApiKey.user_id).where(UserApiKey.id == key_id, *visible_to(actor))
    owner_id = (await session.exec(owner)).first()
    user_ids = [] if owner_id is None else [owner_id]
    actor = await confirm_caller(session, actor, *scopes, user_ids=user_ids)
    visible = select(UserApiKey).where(UserApiKey.id == key_id, *visible_to(actor))
    statement = visible.with_for_update().execution_options(populate_existing=True)
    key = (await session.exec(statement)).first()
    if key is None:
        raise NotFound
    return LockedKey(key, actor)


async def update(
    session: AsyncSession, settings: Settings, locked: LockedKey, changes: ApiKeyUpdate
) -> UserApiKey:
    key, actor = locked
    if key.revoked_at:
        raise Conflict("A revoked key cannot be updated.")
    wanted = changes.model_dump(exclude_unset=True)
    if added := {*wanted.get("scopes", [])} - {*key.scopes}:
        await _check_scopes(session, actor, key.user_id, added)
        _require_scopes_of(key, actor)
    if "rate_limit" in wanted and changes.rate_limit != key.rate_limit:
        default = settings.rate_limit
        if is_higher(changes.rate_limit or default, key.rate_limit or default):
            _require_scopes_of(key, actor)
        if changes.rate_limit:
            _check_rate_limit(settings, actor, changes.rate_limit)
    if "allowed_cidrs" in wanted and is_wider(changes.allowed_cidrs, key.allowed_cidrs):
        _require_scopes_of(key, actor)
    if changes.enabled and not key.enabled:
        _require_scopes_of(key, actor)
    if changed := audit.apply(key, wanted):
        _record(session, Action.API_KEY_UPDATED, locked, changed)
        await session.flush()
    return key


async def renew(
    session: AsyncSession, settings: Settings, locked: LockedKey, body: ApiKeyRenew
) -> UserApiKey:
    key, actor = locked
    if key.revoked_at:
        raise Conflict("A revoked key cannot be renewed.")
    if key.replaced_by:
        raise Conflict("A rotated key cannot be renewed. Renew its successor.")
    now = utc_now()
    expires_at, key.lifetime_seconds = _wanted_expiry(body, settings, now)
    if is_later(expires_at, key.expires_at):
        _require_scopes_of(key, actor)
    if key.expires_at and key.expires_at <= now:
        await _check_number_of_keys(session, settings, key.user_id, now)
    changed = audit.apply(key, {"expires_at": expires_at})
    _record(session, Action.API_KEY_RENEWED, locked, changed)
    await session.flush()
    return key


async def rotate(
    session: AsyncSession, settings: Settings, locked: LockedKey, overlap_seconds: int
) -> NewKey:
    """A new key with the same rights and lifetime. The old one expires after the overlap."""
    key, actor = locked
    if key.revoked_at:
        raise Conflict("A revoked key cannot be rotated.")
    if not key.enabled:
        raise Conflict("A disabled key cannot be rotated.")
    if key.replaced_by:
        raise Conflict("This key has already been rotated.")
    if actor and actor.key_id != key.id:
        _require_scopes_of(key, actor)
    now = utc_now()
    old_expiry = now + timedelta(seconds=overlap_seconds)
    if key.expires_at:
        old_expiry = min(key.expires_at, old_expiry)
    changed = audit.apply(key, {"expires_at": old_expiry})
    await _check_number_of_keys(session, settings, key.user_id, now)

    copied = key.model_dump(exclude=NOT_COPIED)
    successor = UserApiKey(**copied, created_at=now, updated_at=now)
    max_days = settings.api_key_max_expire_days
    lifetimes = (key.lifetime_seconds, max_days and max_days * 86_400)
    successor.lifetime_seconds = min((one for one in lifetimes if one), default=None)
    if successor.lifetime_seconds:
        lifetime = timedelta(seconds=successor.lifetime_seconds)
        successor.expires_at = now + min(lifetime, LATEST - now)
    new = await _add(session, settings, successor, actor)
    key.replaced_by = new.key.id
    _record(session, Action.API_KEY_ROTATED, locked, changed)
    return new


async def revoke(session: AsyncSession, locked: LockedKey) -> None:
    """Permanent and idempotent."""
    if locked.key.revoked_at is None:
        locked.key.revoked_at = utc_now()
        _record(session, Action.API_KEY_REVOKED, locked)


async def revoke_all(
    database: Database, session: AsyncSession, user_id: UUID, actor: Caller
) -> int:
    """Revoke the keys in transactions of STEP keys, so that other writers hardly wait.

    The session does only the last step. If a step fails, the earlier ones stay: call this again.
    """
    position = tuple_(col(UserApiKey.created_at), col(UserApiKey.id))
    unrevoked = (col(UserApiKey.user_id) == user_id) & col(UserApiKey.revoked_at).is_(None)
    others = unrevoked & (col(UserApiKey.id) != actor.key_id)  # the last transaction needs this key
    last = select(UserApiKey.created_at, UserApiKey.id).offset(STEP - 1).limit(1)
    last = last.order_by(col(UserApiKey.created_at), col(UserApiKey.id))
    left = others
    number = 0
    while True:
        async with database.session() as step:
            end = (await step.exec(last.where(left))).first()
            if end is None:
                break
            number += await _revoke(step, user_id, actor, left & (position <= end))
        left = others & (position > end)  # skips revoked keys, without reading them
        await asyncio.sleep(PAUSE_SECONDS)
    return number + await _revoke(session, user_id, actor, unrevoked)


async def _revoke(
    session: AsyncSession, user_id: UUID, actor: Caller, chosen: ColumnElement[bool]
) -> int:
    """The database does the work."""
    await confirm_caller(session, actor, Scope.ADMIN, user_ids=[user_id])
    if await session.get(User, user_id) is None:
        raise NotFound
    locked = select(UserApiKey.id).where(chosen).order_by(col(UserApiKey.id)).with_for_update()
    number = await audit.record_keys(session, Action.API_KEY_REVOKED, actor, user_id, locked)
    await session.exec(update_rows(UserApiKey).where(chosen).values(revoked_at=utc_now()))
    return number


def retention(settings: Settings) -> list[Retention]:
    days = settings.api_key_retention_days
    return [  # few at a time, because the database deletes the usage of each key too
        Retention("api_keys", UserApiKey, "revoked_at", days, chunk=100),
        Retention("api_keys", UserApiKey, "expires_at", days, chunk=100),
    ]


def _record(
    session: AsyncSession,
    action: Action,
    locked: LockedKey,
    changes: audit.Changes | None = None,
) -> None:
    key, actor = locked
    audit.record(session, action, actor, user_id=key.user_id, key_id=key.id, changes=changes)
