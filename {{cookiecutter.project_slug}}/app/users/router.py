from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from app.api_keys import service as api_keys
from app.api_keys.dependencies import CurrentUser, requires
from app.api_keys.verifier import Caller
from app.database import SessionDep
from app.openapi import headers
from app.pagination import Page, Rows
from app.scopes import Scope
from app.users import service
from app.users.models import User
from app.users.schemas import MeUpdate, RevokedKeys, UserCreate, UserQuery, UserRead, UserUpdate

router = APIRouter(prefix="/v1/users", tags=["users"])

Admin = Annotated[Caller, requires(Scope.ADMIN)]

LAST_ADMIN = {"description": "This is the last active admin."}


@router.get("/me", response_model=UserRead)
async def read_me(user: CurrentUser) -> User:
    """Read the owner of the calling key."""
    return user


@router.patch("/me", response_model=UserRead)
async def update_me(
    changes: MeUpdate, caller: Annotated[Caller, requires(Scope.USERS_WRITE)], session: SessionDep
) -> User:
    """Change one's own name. What is absent stays as it is."""
    return await service.change(session, caller.user_id, changes)


@router.get("", response_model=Page[UserRead])
async def list_users(_: Admin, session: SessionDep, query: Annotated[UserQuery, Query()]) -> Rows[User]:
    """List all users, newest first."""
    return await service.page(session, query)


@router.post(
    "",
    status_code=201,
    response_model=UserRead,
    responses={201: {"headers": headers("Location")}, 409: {"description": "The email is taken."}},
)
async def create_user(new: UserCreate, _: Admin, session: SessionDep, response: Response) -> User:
    """Create a user, who has no key yet."""
    user = await service.create(session, new)
    response.headers["Location"] = f"/v1/users/{user.id}"
    return user


@router.get("/{user_id}", response_model=UserRead)
async def read_user(user_id: UUID, _: Admin, session: SessionDep) -> User:
    """Read a user."""
    return await service.get(session, user_id)


@router.patch("/{user_id}", response_model=UserRead, responses={409: LAST_ADMIN})
async def update_user(user_id: UUID, changes: UserUpdate, _: Admin, session: SessionDep) -> User:
    """Change a user. The keys of one who is not active do not work; the last active admin must stay one."""
    return await service.change(session, user_id, changes)


@router.delete("/{user_id}", status_code=204, responses={409: LAST_ADMIN})
async def delete_user(user_id: UUID, _: Admin, session: SessionDep) -> None:
    """Delete a user, and all their keys with them."""
    await service.delete(session, user_id)


@router.delete("/{user_id}/api-keys")
async def revoke_api_keys(user_id: UUID, caller: Admin, session: SessionDep) -> RevokedKeys:
    """Revoke all keys of a user."""
    user = await service.get(session, user_id)
    return RevokedKeys(revoked=await api_keys.revoke_all(session, user.id, caller))
