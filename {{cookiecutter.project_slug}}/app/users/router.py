from fastapi import APIRouter

from app.api_keys.dependencies import CurrentUser
from app.users.models import User
from app.users.schemas import UserRead

router = APIRouter(prefix="/v1/users", tags=["users"])


@router.get("/me", response_model=UserRead)
async def read_me(user: CurrentUser) -> User:
    """The owner of the calling key."""
    return user
