from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.api_keys import service
from app.api_keys.dependencies import owned_key, requires
from app.api_keys.models import UserApiKey
from app.api_keys.schemas import ApiKeyCreate, ApiKeyCreated, ApiKeyRead
from app.api_keys.verifier import Caller
from app.database import SessionDep
from app.pagination import Page, PageQuery, Rows
from app.scopes import Scope

router = APIRouter(prefix="/v1/api-keys", tags=["api keys"])


@router.post("", status_code=201)
async def create_api_key(
    new: ApiKeyCreate,
    caller: Annotated[Caller, requires(Scope.API_KEYS_WRITE)],
    session: SessionDep,
    request: Request,
    response: Response,
) -> ApiKeyCreated:
    """Make a key. It is in this response and nowhere else."""
    key, text = await service.create(session, request.app.state.settings, new, caller)
    response.headers["Location"] = f"/v1/api-keys/{key.id}"
    response.headers["Cache-Control"] = "no-store"
    return ApiKeyCreated.of(key, text)


@router.get("", response_model=Page[ApiKeyRead])
async def list_api_keys(
    caller: Annotated[Caller, requires(Scope.API_KEYS_READ)], session: SessionDep, page: Annotated[PageQuery, Query()]
) -> Rows[UserApiKey]:
    """The caller's keys, newest first; an admin's list holds everybody's."""
    return await service.page(session, caller, page)


@router.get("/{key_id}", response_model=ApiKeyRead)
async def read_api_key(
    key: Annotated[UserApiKey, owned_key(Scope.API_KEYS_READ, current_is_free=True)],
) -> UserApiKey:
    """One key, without its secret."""
    return key


@router.delete("/{key_id}", status_code=204)
async def revoke_api_key(
    key: Annotated[UserApiKey, owned_key(Scope.API_KEYS_WRITE, current_is_free=True)], session: SessionDep
) -> None:
    """Revoke a key for good. Its row stays; doing it again changes nothing."""
    await service.revoke(session, key)
