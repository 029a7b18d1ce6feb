from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.api_keys import service
from app.api_keys.dependencies import CurrentCaller, SettingsDep, owned_key, requires
from app.api_keys.models import ApiKeyEvent, UserApiKey
from app.api_keys.schemas import (
    ApiKeyCreate,
    ApiKeyCreated,
    ApiKeyQuery,
    ApiKeyRead,
    ApiKeyRenew,
    ApiKeyRotate,
    ApiKeyRotated,
    ApiKeyUpdate,
    EventRead,
    PreviousKey,
)
from app.api_keys.verifier import Caller
from app.database import SessionDep
from app.openapi import headers
from app.pagination import Page, PageQuery, Rows
from app.scopes import Scope

router = APIRouter(prefix="/v1/api-keys", tags=["api keys"])

Readable = Annotated[UserApiKey, owned_key(Scope.API_KEYS_READ)]
ReadableOrCurrent = Annotated[UserApiKey, owned_key(Scope.API_KEYS_READ, current_is_free=True)]
Writable = Annotated[UserApiKey, owned_key(Scope.API_KEYS_WRITE)]
WritableOrCurrent = Annotated[UserApiKey, owned_key(Scope.API_KEYS_WRITE, current_is_free=True)]

SHOWN_ONCE = {"headers": headers("Location", "Cache-Control")}


@router.post("", status_code=201, responses={201: SHOWN_ONCE, 409: {"description": "The user has keys enough."}})
async def create_api_key(
    new: ApiKeyCreate,
    caller: Annotated[Caller, requires(Scope.API_KEYS_WRITE)],
    session: SessionDep,
    settings: SettingsDep,
    response: Response,
) -> ApiKeyCreated:
    """Make a key. It is in this response and nowhere else."""
    key, text = await service.create(session, settings, new, caller)
    _shown_once(response, key)
    return ApiKeyCreated.of(key, api_key=text)


@router.get("", response_model=Page[ApiKeyRead])
async def list_api_keys(
    caller: Annotated[Caller, requires(Scope.API_KEYS_READ)],
    session: SessionDep,
    query: Annotated[ApiKeyQuery, Query()],
) -> Rows[UserApiKey]:
    """List the caller's keys, newest first. An admin's list holds everybody's."""
    return await service.page(session, caller, query)


@router.get("/{key_id}", response_model=ApiKeyRead)
async def read_api_key(key: ReadableOrCurrent) -> UserApiKey:
    """Read a key, without its secret. `current` needs no scope, any other `api_keys:read`."""
    return key


@router.patch("/{key_id}", response_model=ApiKeyRead, responses={409: {"description": "The key is revoked."}})
async def update_api_key(
    changes: ApiKeyUpdate, key: Writable, caller: CurrentCaller, session: SessionDep
) -> UserApiKey:
    """Change a key, or switch it off and on. What is absent stays as it is."""
    await service.change(session, key, changes, caller)
    return key


@router.delete("/{key_id}", status_code=204)
async def revoke_api_key(key: WritableOrCurrent, caller: CurrentCaller, session: SessionDep) -> None:
    """Revoke a key for good. To do it again changes nothing. `current` needs no scope, any other `api_keys:write`."""
    await service.revoke(session, key, caller)


@router.post(
    "/{key_id}/renew", response_model=ApiKeyRead, responses={409: {"description": "The key is revoked or rotated."}}
)
async def renew_api_key(
    wanted: ApiKeyRenew, key: Writable, caller: CurrentCaller, session: SessionDep, settings: SettingsDep
) -> UserApiKey:
    """Give a key a new end. An expired key works again; a revoked one never does."""
    await service.renew(session, settings, key, wanted, caller)
    return key


@router.post(
    "/{key_id}/rotate",
    status_code=201,
    responses={201: SHOWN_ONCE, 409: {"description": "The key is revoked, disabled or rotated already."}},
)
async def rotate_api_key(
    wanted: ApiKeyRotate,
    key: WritableOrCurrent,
    caller: CurrentCaller,
    session: SessionDep,
    settings: SettingsDep,
    response: Response,
) -> ApiKeyRotated:
    """Replace a key by a new one. That has the same name, rights, limits and lifetime; the old one works on for the
    overlap. `current` needs no scope, any other `api_keys:write`."""
    successor, text = await service.rotate(session, settings, key, wanted.overlap_seconds, caller)
    _shown_once(response, successor)
    return ApiKeyRotated.of(successor, api_key=text, previous=PreviousKey.model_validate(key, from_attributes=True))


@router.get("/{key_id}/events", response_model=Page[EventRead])
async def list_events(key: Readable, session: SessionDep, query: Annotated[PageQuery, Query()]) -> Rows[ApiKeyEvent]:
    """List who did what to a key, newest first."""
    return await service.events(session, key, query)


def _shown_once(response: Response, key: UserApiKey) -> None:
    response.headers["Location"] = f"/v1/api-keys/{key.id}"
    response.headers["Cache-Control"] = "no-store"
