from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.errors import Conflict
from app.users.models import User
from app.users.schemas import UserCreate


async def create(session: AsyncSession, new: UserCreate) -> User:
    user = User(**new.model_dump())
    session.add(user)
    try:
        await session.flush()
    except IntegrityError:
        raise Conflict("There is a user with this email already.") from None
    return user


async def by_email(session: AsyncSession, email: str) -> User | None:
    return (await session.exec(select(User).where(User.email == email.lower()))).first()


async def everyone(session: AsyncSession) -> list[User]:
    return list((await session.exec(select(User).order_by(User.email))).all())


async def any_admin(session: AsyncSession) -> bool:
    return (await session.exec(select(User.id).where(col(User.is_admin), col(User.is_active)))).first() is not None
