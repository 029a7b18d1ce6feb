from typing import Annotated

from fastapi import APIRouter, Query

from app.api_keys.dependencies import owned_key
from app.api_keys.models import UserApiKey
from app.database import SessionDep
from app.scopes import Scope
from app.usage import service
from app.usage.schemas import UsageQuery, UsageRead

router = APIRouter(prefix="/v1/api-keys/{key_id}/usage", tags=["api keys"])


@router.get("")
async def read_usage(
    key: Annotated[UserApiKey, owned_key(Scope.API_KEYS_READ, current_is_free=True)],
    query: Annotated[UsageQuery, Query()],
    session: SessionDep,
) -> UsageRead:
    """Read how often a key was used. The last seconds may be missing. `current` needs no scope, any other
    `api_keys:read`."""
    return await service.read(session, key.id, query)
