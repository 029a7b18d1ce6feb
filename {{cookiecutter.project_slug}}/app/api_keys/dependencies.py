from typing import Annotated, Any

from fastapi import Depends, Path, Request, Security

from app.api_keys import service
from app.api_keys.models import UserApiKey
from app.api_keys.schemas import EXAMPLE_ID
from app.api_keys.service import LockedKey
from app.auth.dependencies import CurrentCaller
from app.auth.scopes import Scope
from app.core.database import SessionDep
from app.settings import Settings


async def get_app_settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


SettingsDep = Annotated[Settings, Depends(get_app_settings)]

KeyId = Annotated[
    str,
    Path(
        # Postman fills in a random match, so `current` must not be one of two alternatives.
        pattern="^[0-9a-z]{7,16}$",
        description="The key's id, or `current` for the calling key.",
        examples=[EXAMPLE_ID],
    ),
]


def _key_in_path(scope: Scope, *, free_for_current: bool, lock: bool) -> Any:  # Any: as Security
    async def key_in_path(
        key_id: KeyId, caller: CurrentCaller, session: SessionDep
    ) -> UserApiKey | LockedKey:
        if key_id == "current":
            key_id = caller.key_id
        scopes = [] if free_for_current and key_id == caller.key_id else [scope]
        caller.require(*scopes)
        if lock:
            return await service.lock(session, key_id, caller, *scopes)
        return await service.get(session, key_id, caller)

    return Security(key_in_path, scopes=[] if free_for_current else [scope])


def owned_key(scope: Scope, *, free_for_current: bool = False) -> Any:  # Any: as Security
    """`key: Annotated[UserApiKey, owned_key(Scope.API_KEYS_READ)]`

    Raises NotFound unless the caller owns the key or is an admin. `free_for_current`: the calling
    key itself needs no scope.
    """
    return _key_in_path(scope, free_for_current=free_for_current, lock=False)


def locked_key(scope: Scope, *, free_for_current: bool = False) -> Any:  # Any: as Security
    """`locked: Annotated[LockedKey, locked_key(Scope.API_KEYS_WRITE)]`, with a confirmed caller"""
    return _key_in_path(scope, free_for_current=free_for_current, lock=True)
