from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from app.auth.caller import Caller
from app.auth.dependencies import CurrentUser, requires
from app.auth.scopes import Scope
from app.core.database import SessionDep
from app.core.pagination import Page, Rows
from app.users import service
from app.users.dependencies import USER_PATH
from app.users.models import User
from app.users.schemas import MeUpdate, UserCreate, UserQuery, UserRead, UserUpdate

router = APIRouter(prefix="/v1", tags=["users"])

Admin = Annotated[Caller, requires(Scope.ADMIN)]


@router.get("/users/me", response_model=UserRead)
async def read_me(user: CurrentUser) -> User:
    """Get the owner of the calling key"""
    return user


@router.patch("/users/me", response_model=UserRead)
async def update_me(
    changes: MeUpdate, caller: Annotated[Caller, requires(Scope.USERS_WRITE)], session: SessionDep
) -> User:
    """Update your own name

    Omitted fields keep their values.
    """
    return await service.update_me(session, changes, caller)


@router.get("/users", response_model=Page[UserRead])
async def list_users(
    _: Admin, session: SessionDep, query: Annotated[UserQuery, Query()]
) -> Rows[User]:
    """List users

    Newest first.
    """
    return await service.list_page(session, query)


@router.post("/users", status_code=201, response_model=UserRead)
async def create_user(
    new: UserCreate, caller: Admin, session: SessionDep, request: Request, response: Response
) -> User:
    """Create a user

    New users have no key yet.
    """
    user = await service.create(session, new, caller)
    response.headers["Location"] = request.url_for("read_user", user_id=user.id).path
    return user


@router.get(USER_PATH, response_model=UserRead)
async def read_user(user_id: UUID, _: Admin, session: SessionDep) -> User:
    """Get a user"""
    return await service.get(session, user_id)


@router.patch(USER_PATH, response_model=UserRead)
async def update_user(
    user_id: UUID, changes: UserUpdate, caller: Admin, session: SessionDep
) -> User:
    """Update a user

    Keys of an inactive user are rejected. Omitted fields keep their values.
    """
    return await service.update(session, user_id, changes, caller)


@router.delete(USER_PATH, status_code=204)
async def delete_user(user_id: UUID, caller: Admin, session: SessionDep) -> None:
    """Delete a user

    Deletes the user's keys too.
    """
    await service.delete(session, user_id, caller)
