from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.errors import Conflict, NotFound
from app.pagination import Rows, paginate
from app.users.models import User
from app.users.schemas import MeUpdate, UserCreate, UserQuery, UserUpdate


async def create(session: AsyncSession, new: UserCreate) -> User:
    user = User(**new.model_dump())
    session.add(user)
    try:
        await session.flush()
    except IntegrityError:
        raise Conflict("There is a user with this email already.") from None
    return user


async def page(session: AsyncSession, query: UserQuery) -> Rows[User]:
    statement = select(User)
    if query.q:
        columns = (col(User.email), col(User.first_name), col(User.last_name))
        statement = statement.where(or_(*(column.icontains(query.q, autoescape=True) for column in columns)))
    if query.is_active is not None:
        statement = statement.where(User.is_active == query.is_active)
    return await paginate(session, statement, User, query)


async def get(session: AsyncSession, user_id: UUID) -> User:
    user = await session.get(User, user_id, populate_existing=True)
    if user is None:
        raise NotFound
    return user


async def by_email(session: AsyncSession, email: str) -> User:
    user = (await session.exec(select(User).where(User.email == email.lower()))).first()
    if user is None:
        raise NotFound(f"There is no user {email}.")
    return user


async def everyone(session: AsyncSession) -> list[User]:
    return list((await session.exec(select(User).order_by(User.email))).all())


async def change(session: AsyncSession, user_id: UUID, changes: MeUpdate | UserUpdate) -> User:
    values = changes.model_dump(exclude_unset=True)
    if not (values.get("is_admin", True) and values.get("is_active", True)):
        await _keep_another_admin(session, user_id)
    user = await get(session, user_id)
    user.sqlmodel_update(values)
    await session.flush()
    return user


async def delete(session: AsyncSession, user_id: UUID) -> None:
    await _keep_another_admin(session, user_id)
    await session.delete(await get(session, user_id))
    await session.flush()


async def any_admin(session: AsyncSession) -> bool:
    return bool(await _lock_admins(session))


async def _keep_another_admin(session: AsyncSession, user_id: UUID) -> None:
    """Refuse to lose the last admin. With all of them locked, two cannot demote each other at once."""
    if await _lock_admins(session) == [user_id]:
        raise Conflict("This is the last active admin.")


async def _lock_admins(session: AsyncSession) -> list[UUID]:
    admins = select(User.id).where(col(User.is_admin), col(User.is_active)).order_by(col(User.id))
    return list((await session.exec(admins.with_for_update())).all())
