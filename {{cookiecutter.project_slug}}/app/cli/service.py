from uuid import UUID

from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.api_keys.models import UserApiKey
from app.core.errors import NotFound
from app.users.models import User


async def get_user(session: AsyncSession, email: str) -> User:
    user = (await session.exec(select(User).where(User.email == email.lower()))).first()
    if user is None:
        raise NotFound(f"No user has the email {email}.")
    return user


def keys_of(owner_id: UUID | None) -> SelectOfScalar[UserApiKey]:
    keys = select(UserApiKey).order_by(col(UserApiKey.created_at), col(UserApiKey.id))
    return keys.where(UserApiKey.user_id == owner_id) if owner_id else keys


async def count_by_pepper(session: AsyncSession) -> dict[int, int]:
    """How many keys that are not revoked each pepper has signed."""
    pepper_id = col(UserApiKey.pepper_id)
    unrevoked = select(pepper_id, func.count()).where(col(UserApiKey.revoked_at).is_(None))
    return dict((await session.exec(unrevoked.group_by(pepper_id))).all())
