from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Query, Request, Response

from app.api_keys import schemas, service
from app.api_keys.dependencies import SettingsDep, locked_key, owned_key
from app.api_keys.models import UserApiKey
from app.api_keys.service import LockedKey
from app.audit import service as audit
from app.audit.models import AuditEvent
from app.audit.schemas import AuditEventRead
from app.auth.caller import Caller
from app.auth.dependencies import requires
from app.auth.scopes import Scope
from app.core.database import Database, SessionDep
from app.core.pagination import Page, PageQuery, Rows
from app.users.dependencies import USER_PATH

router = APIRouter(prefix="/v1", tags=["api keys"])

Writable = Annotated[LockedKey, locked_key(Scope.API_KEYS_WRITE)]
WritableOrCurrent = Annotated[LockedKey, locked_key(Scope.API_KEYS_WRITE, free_for_current=True)]


@router.post("/api-keys", status_code=201)
async def create_api_key(
    new: schemas.ApiKeyCreate,
    caller: Annotated[Caller, requires(Scope.API_KEYS_WRITE)],
    session: SessionDep,
    settings: SettingsDep,
    request: Request,
    response: Response,
) -> schemas.ApiKeyCreated:
    """Create an API key

    This is the only response that contains the key.
    """
    key, text = await service.create(session, settings, new, caller)
    response.headers["Location"] = request.url_for("read_api_key", key_id=key.id).path
    return schemas.ApiKeyCreated.of(key, text)


@router.get("/api-keys", response_model=Page[schemas.ApiKeyRead])
async def list_api_keys(
    caller: Annotated[Caller, requires(Scope.API_KEYS_READ)],
    session: SessionDep,
    query: Annotated[schemas.ApiKeyQuery, Query()],
) -> Rows[UserApiKey]:
    """List API keys

    Newest first. Admins see the keys of all users.
    """
    return await service.list_page(session, caller, query)


@router.get("/api-keys/{key_id}", response_model=schemas.ApiKeyRead)
async def read_api_key(
    key: Annotated[UserApiKey, owned_key(Scope.API_KEYS_READ, free_for_current=True)],
) -> UserApiKey:
    """Get an API key

    Requires `api_keys:read`, except for `current`.
    """
    return key


@router.patch("/api-keys/{key_id}", response_model=schemas.ApiKeyRead)
async def update_api_key(
    changes: schemas.ApiKeyUpdate, locked: Writable, session: SessionDep, settings: SettingsDep
) -> UserApiKey:
    """Update an API key

    Omitted fields keep their values. To widen a key, the caller needs all of its scopes.
    """
    return await service.update(session, settings, locked, changes)


@router.delete("/api-keys/{key_id}", status_code=204)
async def revoke_api_key(locked: WritableOrCurrent, session: SessionDep) -> None:
    """Revoke an API key

    Permanent and idempotent. Requires `api_keys:write`, except for `current`.
    """
    await service.revoke(session, locked)


@router.post("/api-keys/{key_id}/renew", response_model=schemas.ApiKeyRead)
async def renew_api_key(
    locked: Writable,
    session: SessionDep,
    settings: SettingsDep,
    body: Annotated[schemas.ApiKeyRenew, Body(default_factory=schemas.ApiKeyRenew)],
) -> UserApiKey:
    """Renew an API key

    Reactivates an expired key, but never a revoked one. A later expiry requires all scopes of the
    key.
    """
    return await service.renew(session, settings, locked, body)


@router.post("/api-keys/{key_id}/rotate", status_code=201)
async def rotate_api_key(
    locked: WritableOrCurrent,
    session: SessionDep,
    settings: SettingsDep,
    request: Request,
    response: Response,
    body: Annotated[schemas.ApiKeyRotate, Body(default_factory=schemas.ApiKeyRotate)],
) -> schemas.ApiKeyRotated:
    """Rotate an API key

    Creates a key with the same name, scopes, limits and lifetime. The old key stays valid for the
    overlap. Requires `api_keys:write`, except for `current`.
    """
    key, text = await service.rotate(session, settings, locked, body.overlap_seconds)
    response.headers["Location"] = request.url_for("read_api_key", key_id=key.id).path
    return schemas.ApiKeyRotated.of(
        key, text, previous=schemas.PreviousKey.model_validate(locked.key)
    )


@router.get("/api-keys/{key_id}/events", response_model=Page[AuditEventRead])
async def list_api_key_events(
    key: Annotated[UserApiKey, owned_key(Scope.API_KEYS_READ)],
    session: SessionDep,
    query: Annotated[PageQuery, Query()],
) -> Rows[AuditEvent]:
    """List the audit events of an API key

    Newest first.
    """
    return await audit.list_key_events(session, key.id, query)


@router.delete(f"{USER_PATH}/api-keys", tags=["users"])
async def revoke_api_keys(
    request: Request,
    user_id: UUID,
    caller: Annotated[Caller, requires(Scope.ADMIN)],
    session: SessionDep,
) -> schemas.RevokedKeys:
    """Revoke all API keys of a user

    After a failure, repeat the request: keys that have been revoked stay revoked.
    """
    database: Database = request.app.state.database
    number = await service.revoke_all(database, session, user_id, caller)
    return schemas.RevokedKeys(revoked=number)
