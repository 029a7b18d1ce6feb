from collections.abc import Sequence
from uuid import UUID

from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys.models import UserApiKey
from app.core.errors import NotFound
from app.users.models import User


async def get_user(session: AsyncSession, email: str) -> User:
    user = (await session.exec(select(User).where(User.email == email.lower()))).first()
    if user is None:
        raise NotFound(f"No user has the email {email}.")
    return user


async def list_users(session: AsyncSession) -> Sequence[User]:
    return (await session.exec(select(User).order_by(User.email))).all()


async def list_keys(session: AsyncSession, owner_id: UUID | None) -> Sequence[UserApiKey]:
    statement = select(UserApiKey).order_by(col(UserApiKey.created_at), col(UserApiKey.id))
    if owner_id:
        statement = statement.where(UserApiKey.user_id == owner_id)
    return (await session.exec(statement)).all()


async def count_by_pepper(session: AsyncSession) -> dict[int, int]:
    """How many keys that are not revoked each pepper has signed."""
    pepper_id = col(UserApiKey.pepper_id)
    unrevoked = select(pepper_id, func.count()).where(col(UserApiKey.revoked_at).is_(None))
    return dict((await session.exec(unrevoked.group_by(pepper_id))).all())
