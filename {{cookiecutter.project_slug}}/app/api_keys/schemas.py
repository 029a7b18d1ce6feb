from datetime import datetime
from ipaddress import ip_network
from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, SecretStr, StrictBool

from app.api_keys.models import Status, UserApiKey
from app.auth import key_format
from app.auth.scopes import Scope
from app.core.pagination import PageQuery
from app.core.types import (
    UNSET,
    Body,
    FromRow,
    Integer,
    Line,
    Moment,
    Name,
    RateLimit,
    without_mapping,
)
from app.settings import Settings

EXAMPLE_ID = "4k1z9q0v7m2c8x5b"
# Not a valid key: no checksum starts with x.
EXAMPLE_KEY = f"{Settings.model_fields['api_key_prefix'].default}_live_{EXAMPLE_ID}_{'Example' * 7}"
NETWORKS = ["203.0.113.0/24", "2001:db8::/32"]
MAX_OVERLAP_SECONDS = 30 * 86_400

OWNER = "The owner. Another user requires `admin`."
EXPIRES_AT = "Absent: after the default number of days. Null: never, where that is allowed."


def _network(value: str) -> str:
    try:
        if "%" in value:  # the zone of an IPv6 address has a meaning on one machine only
            raise ValueError
        return str(without_mapping(ip_network(value)))
    except ValueError:  # its message contains the input
        message = "Input should be a network, for example 203.0.113.0/24 or 2001:db8::/32"
        raise ValueError(message) from None


def _unique(scopes: list[Scope]) -> list[Scope]:
    return sorted(set(scopes))


Scopes = Annotated[list[Scope], Field(max_length=100), AfterValidator(_unique)]
Network = Annotated[str, Field(max_length=50), AfterValidator(_network)]
Networks = Annotated[list[Network], Field(min_length=1, max_length=100)]


class ApiKeyCreate(Body):
    name: Name = Field(examples=["ci"])
    scopes: Scopes = Field(examples=[["users:read"]])
    expires_at: Moment | None = Field(default=None, description=EXPIRES_AT)
    rate_limit: RateLimit | None = Field(
        default=None, description="For example `100/minute`. Null: the default of this API."
    )
    allowed_cidrs: Networks | None = Field(
        default=None, description="Networks that may use the key. Null: any.", examples=[NETWORKS]
    )
    user_id: UUID | None = Field(default=None, description=OWNER)


class ApiKeyUpdate(Body):
    name: Name = Field(default=UNSET, examples=["ci"])
    scopes: Scopes = UNSET
    enabled: StrictBool = UNSET
    rate_limit: RateLimit | None = None
    allowed_cidrs: Networks | None = Field(default=None, examples=[NETWORKS])


class ApiKeyRenew(Body):
    expires_at: Moment | None = Field(default=None, description=EXPIRES_AT)


class ApiKeyRotate(Body):
    overlap_seconds: Integer = Field(
        default=0,
        ge=0,
        le=MAX_OVERLAP_SECONDS,
        description="How long the old key stays valid. Absent: 0.",
    )


class ApiKeyQuery(PageQuery):
    status: Status | None = None
    q: Line | None = Field(default=None, description="Part of the name.")
    expires_before: Moment | None = None
    unused_since: Moment | None = Field(default=None, description="Not used or created since.")
    user_id: UUID | None = Field(default=None, description=OWNER)


class ApiKeyRead(FromRow):
    id: str = Field(examples=[EXAMPLE_ID])
    user_id: UUID
    name: str = Field(examples=["ci"])
    hint: str = Field(
        description="The key's start up to and including its id, and its last 4 characters.",
        examples=[key_format.hint(EXAMPLE_KEY)],
    )
    scopes: list[str] = Field(examples=[[Scope.USERS_READ]])
    status: Status
    rate_limit: str | None = Field(examples=["100/minute"])
    allowed_cidrs: list[str] | None = Field(examples=[NETWORKS])
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class ApiKeyCreated(ApiKeyRead):
    """The only response that contains the key."""

    api_key: str = Field(description="Shown only in this response.", examples=[EXAMPLE_KEY])

    @classmethod
    def of(cls, key: UserApiKey, text: SecretStr, **more: object) -> Self:
        api_key = text.get_secret_value()
        fields = {**key.model_dump(), "status": key.status, "api_key": api_key, **more}
        return cls.model_validate(fields)


class PreviousKey(FromRow):
    id: str = Field(examples=[EXAMPLE_ID])
    expires_at: datetime


class ApiKeyRotated(ApiKeyCreated):
    previous: PreviousKey


class RevokedKeys(BaseModel):
    revoked: int
