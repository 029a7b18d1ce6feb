from typing import Annotated

from fastapi import APIRouter, Query

from app.api_keys.dependencies import owned_key
from app.api_keys.models import UserApiKey
from app.auth.scopes import Scope
from app.core.database import SessionDep
from app.usage import service
from app.usage.schemas import UsageQuery, UsageRead

router = APIRouter(prefix="/v1/api-keys/{key_id}/usage", tags=["api keys"])


@router.get("")
async def read_usage(
    key: Annotated[UserApiKey, owned_key(Scope.API_KEYS_READ, free_for_current=True)],
    query: Annotated[UsageQuery, Query()],
    session: SessionDep,
) -> UsageRead:
    """Get the usage of an API key

    The last few seconds may be missing. Requires `api_keys:read`, except for `current`.
    """
    return await service.read(session, key.id, query)
