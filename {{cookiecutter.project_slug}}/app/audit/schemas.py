from datetime import datetime
from uuid import UUID

from pydantic import ConfigDict, Field

from app.audit.models import Action
from app.core.pagination import PageQuery
from app.core.types import FromRow, Moment

EXAMPLE_KEY_ID = "4k1z9q0v7m2c8x5b"


class AuditEventQuery(PageQuery):
    model_config = ConfigDict(populate_by_name=True)

    actor_user_id: UUID | None = None
    actor_key_id: str | None = Field(default=None, pattern="^[0-9a-z]{16}$")
    target_user_id: UUID | None = None
    target_key_id: str | None = Field(default=None, pattern="^[0-9a-z]{16}$")
    action: Action | None = None
    start: Moment | None = Field(default=None, alias="from", description="Inclusive.")
    end: Moment | None = Field(default=None, alias="to", description="Exclusive.")


class AuditEventRead(FromRow):
    id: UUID
    created_at: datetime
    action: Action
    actor_user_id: UUID | None = Field(description="Null for the command line.")
    actor_key_id: str | None = Field(examples=[EXAMPLE_KEY_ID])
    target_user_id: UUID
    target_key_id: str | None = Field(
        description="Null for the user, or for all keys of the user.", examples=[EXAMPLE_KEY_ID]
    )
    changes: dict[str, list[object] | None] = Field(
        description="The old and the new value of each field, or null where they are not recorded.",
        examples=[{"scopes": [[], ["users:read"]], "name": None}],
    )
