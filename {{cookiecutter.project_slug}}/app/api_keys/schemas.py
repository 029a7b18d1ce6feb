from datetime import datetime
from ipaddress import ip_network
from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, StrictBool, StrictInt, StringConstraints

from app.api_keys.models import Action, Status, UserApiKey
from app.pagination import PageQuery
from app.schemas import Body, FromRow, Line, Moment, Name
from app.scopes import Scope
from app.settings import RateLimit


def _network(value: str) -> str:
    return str(ip_network(value))


def _each_once(scopes: list[Scope]) -> list[Scope]:
    return sorted(set(scopes))


Scopes = Annotated[list[Scope], Field(max_length=100), AfterValidator(_each_once)]
Network = Annotated[str, StringConstraints(max_length=43), AfterValidator(_network)]
Networks = Annotated[list[Network], Field(min_length=1, max_length=100)]


EXPIRES_AT = "Absent: after the default number of days. Null: never, where that is allowed."


class ApiKeyCreate(Body):
    name: Name
    scopes: Scopes
    expires_at: Moment | None = Field(None, description=EXPIRES_AT)
    rate_limit: RateLimit | None = Field(None, description="As `100/minute`; null: the default of this API.")
    allowed_cidrs: Networks | None = Field(None, description="Networks that may use the key; null: any.")
    user_id: UUID | None = Field(None, description="Whose key it will be; needs `admin` for anybody but oneself.")


class ApiKeyUpdate(Body):
    """What is absent stays as it is."""

    name: Name = ""
    scopes: Scopes = Field(default_factory=list)
    enabled: StrictBool = True
    rate_limit: RateLimit | None = None
    allowed_cidrs: Networks | None = None


class ApiKeyRenew(Body):
    expires_at: Moment | None = Field(None, description=EXPIRES_AT)


class ApiKeyRotate(Body):
    overlap_seconds: StrictInt = Field(0, ge=0, le=2_592_000, description="How long the old key works on.")


class ApiKeyQuery(PageQuery):
    status: Status | None = None
    q: Line | None = Field(None, description="Part of the name, in any case.")
    expires_before: Moment | None = None
    unused_since: Moment | None = Field(None, description="Neither used nor created since.")
    user_id: UUID | None = Field(None, description="Needs `admin` for anybody but oneself.")


class ApiKeyRead(FromRow):
    id: str
    user_id: UUID
    name: str
    hint: str = Field(description="The key's start up to its id, and its last four characters.")
    scopes: list[str]
    status: Status
    rate_limit: str | None
    allowed_cidrs: list[str] | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class ApiKeyCreated(ApiKeyRead):
    """The only response of a key's life that holds the key."""

    api_key: str = Field(description="The key itself. It is shown this once, and stored nowhere.")

    @classmethod
    def of(cls, key: UserApiKey, **more: object) -> Self:
        return cls.model_validate(ApiKeyRead.model_validate(key).model_dump() | more)


class PreviousKey(BaseModel):
    id: str
    expires_at: datetime


class ApiKeyRotated(ApiKeyCreated):
    previous: PreviousKey


class EventRead(FromRow):
    id: UUID
    action: Action
    created_at: datetime
    actor_user_id: UUID | None = Field(description="Null, as `actor_key_id`: the command line.")
    actor_key_id: str | None
