from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys.models import UserApiKey
from app.audit import service as audit
from app.audit.models import Action
from app.auth.caller import Caller
from app.auth.confirmation import confirm_caller
from app.auth.scopes import Scope
from app.core.errors import Conflict, NotFound
from app.core.pagination import Rows, paginate
from app.core.search import contains
from app.users.models import User
from app.users.schemas import MeUpdate, UserCreate, UserQuery, UserUpdate

# The actor is the caller. None stands for the command line, which may do everything.


async def create(session: AsyncSession, new: UserCreate, actor: Caller | None) -> User:
    actor = await confirm_caller(session, actor, Scope.ADMIN)
    user = User(**new.model_dump())
    session.add(user)
    try:
        await session.flush()
    except IntegrityError:
        raise Conflict("A user with this email already exists.") from None
    audit.record(session, Action.USER_CREATED, actor, user_id=user.id)
    return user


async def list_page(session: AsyncSession, query: UserQuery) -> Rows[User]:
    statement = select(User)
    if query.q:
        columns = (col(User.email), col(User.first_name), col(User.last_name))
        statement = statement.where(or_(*(contains(column, query.q) for column in columns)))
    if query.is_active is not None:
        statement = statement.where(User.is_active == query.is_active)
    return await paginate(session, statement, User, query)


async def get(session: AsyncSession, user_id: UUID) -> User:
    user = await session.get(User, user_id, populate_existing=True)
    if user is None:
        raise NotFound
    return user


async def update_me(session: AsyncSession, changes: MeUpdate, actor: Caller) -> User:
    await confirm_caller(session, actor, Scope.USERS_WRITE)
    return await _update(session, actor.user_id, changes, actor)


async def update(
    session: AsyncSession, user_id: UUID, changes: UserUpdate, actor: Caller | None
) -> User:
    wanted = changes.model_dump(exclude_unset=True)
    may_remove_admin = False in (wanted.get("is_admin"), wanted.get("is_active"))
    await confirm_caller(
        session, actor, Scope.ADMIN, user_ids=[user_id], lock_admins=may_remove_admin
    )
    if may_remove_admin:
        await _require_another_admin(session, user_id)
    return await _update(session, user_id, changes, actor)


async def _update(
    session: AsyncSession, user_id: UUID, changes: MeUpdate, actor: Caller | None
) -> User:
    user = await get(session, user_id)
    if changed := audit.apply(user, changes.model_dump(exclude_unset=True)):
        audit.record(session, Action.USER_UPDATED, actor, user_id=user_id, changes=changed)
        await session.flush()
    return user


async def delete(session: AsyncSession, user_id: UUID, actor: Caller) -> None:
    await confirm_caller(session, actor, Scope.ADMIN, user_ids=[user_id], lock_admins=True)
    await _require_another_admin(session, user_id)
    user = await get(session, user_id)
    # The database deletes the keys too, but locks them in arbitrary order.
    keys = select(UserApiKey.id).where(UserApiKey.user_id == user_id)
    await session.exec(keys.order_by(col(UserApiKey.id)).with_for_update())
    await session.delete(user)
    audit.record(session, Action.USER_DELETED, actor, user_id=user_id)


async def has_admin(session: AsyncSession) -> bool:
    return bool(await _active_admins(session))


async def _require_another_admin(session: AsyncSession, user_id: UUID) -> None:
    """The admins are locked, so two of them cannot demote each other at the same time."""
    if await _active_admins(session) == [user_id]:
        raise Conflict("The last active admin cannot be demoted, disabled or deleted.")


async def _active_admins(session: AsyncSession) -> list[UUID]:
    admins = select(User.id).where(col(User.is_admin), col(User.is_active)).limit(2)
    return [*(await session.exec(admins)).all()]
