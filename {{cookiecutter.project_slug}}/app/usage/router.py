from typing import Annotated

from fastapi import APIRouter, Query

from app.api_keys.dependencies import owned_key
from app.api_keys.models import UserApiKey
from app.auth.caller import Caller
from app.auth.dependencies import requires
from app.auth.scopes import Scope
from app.core.database import SessionDep
from app.usage import service
from app.usage.schemas import TotalUsageQuery, TotalUsageRead, UsageQuery, UsageRead

router = APIRouter(prefix="/v1", tags=["api keys"])


@router.get("/usage")
async def read_total_usage(
    caller: Annotated[Caller, requires(Scope.API_KEYS_READ)],
    query: Annotated[TotalUsageQuery, Query()],
    session: SessionDep,
) -> TotalUsageRead:
    """Get the usage of all API keys

    The sums, and the busiest keys. Admins see the keys of all users.
    """
    return await service.read_total(session, caller, query)


@router.get("/api-keys/{key_id}/usage")
async def read_usage(
    key: Annotated[UserApiKey, owned_key(Scope.API_KEYS_READ, free_for_current=True)],
    query: Annotated[UsageQuery, Query()],
    session: SessionDep,
) -> UsageRead:
    """Get the usage of an API key

    The last few seconds may be missing. Requires `api_keys:read`, except for `current`.
    """
    return await service.read(session, key.id, query)
