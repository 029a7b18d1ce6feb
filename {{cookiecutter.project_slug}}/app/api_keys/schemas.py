from datetime import datetime
from ipaddress import ip_network
from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, StrictBool

from app.api_keys import format as key_format
from app.api_keys.models import Action, Status, UserApiKey
from app.pagination import PageQuery
from app.schemas import Body, FromRow, Integer, Line, Moment, Name
from app.scopes import Scope
from app.settings import RateLimit, Settings

EXAMPLE_ID = "4k1z9q0v7m2c8x5b"
# Looks like a key and is none: no checksum has an x in its first place.
EXAMPLE_KEY = f"{Settings.model_fields['api_key_prefix'].default}_live_{EXAMPLE_ID}_{'Example' * 7}"


def _network(value: str) -> str:
    try:
        if "%" in value:  # the zone of an IPv6 address means something on one machine only
            raise ValueError
        return str(ip_network(value))
    except ValueError:  # whose own message repeats the input
        raise ValueError("Input should be a network, as in 203.0.113.0/24 or 2001:db8::/32") from None


def _each_once(scopes: list[Scope]) -> list[Scope]:
    return sorted(set(scopes))


Scopes = Annotated[list[Scope], Field(max_length=100), AfterValidator(_each_once)]
Network = Annotated[str, Field(json_schema_extra={"format": "cidr"}), AfterValidator(_network)]
Networks = Annotated[list[Network], Field(min_length=1, max_length=100)]


EXPIRES_AT = "Absent: after the default number of days. Null: never, where that is allowed."


class ApiKeyCreate(Body, json_schema_extra={"examples": [{"name": "ci", "scopes": ["users:read"]}]}):
    name: Name
    scopes: Scopes
    expires_at: Moment | None = Field(None, description=EXPIRES_AT)
    rate_limit: RateLimit | None = Field(None, description="As `100/minute`; null: the default of this API.")
    allowed_cidrs: Networks | None = Field(None, description="Networks that may use the key; null: any.")
    user_id: UUID | None = Field(None, description="Whose key it will be; needs `admin` for anybody but oneself.")


class ApiKeyUpdate(Body, json_schema_extra={"examples": [{"name": "ci", "rate_limit": "100/minute"}]}):
    name: Name = Field(default_factory=str)
    scopes: Scopes = Field(default_factory=list)
    enabled: StrictBool = Field(default_factory=bool)
    rate_limit: RateLimit | None = None
    allowed_cidrs: Networks | None = None


class ApiKeyRenew(Body, json_schema_extra={"examples": [{}]}):
    expires_at: Moment | None = Field(None, description=EXPIRES_AT)


class ApiKeyRotate(Body, json_schema_extra={"examples": [{"overlap_seconds": 3600}]}):
    overlap_seconds: Integer = Field(0, ge=0, le=2_592_000, description="How long the old key works on.")


class ApiKeyQuery(PageQuery):
    status: Status | None = None
    q: Line | None = Field(None, description="Part of the name, in any case.")
    expires_before: Moment | None = None
    unused_since: Moment | None = Field(None, description="Neither used nor created since.")
    user_id: UUID | None = Field(None, description="Needs `admin` for anybody but oneself.")


class ApiKeyRead(FromRow):
    id: str = Field(examples=[EXAMPLE_ID])
    user_id: UUID
    name: str = Field(examples=["ci"])
    hint: str = Field(
        description="The key's start up to its id, and its last four characters.",
        examples=[key_format.hint(EXAMPLE_KEY)],
    )
    scopes: list[str] = Field(examples=[[Scope.USERS_READ]])
    status: Status
    rate_limit: str | None = Field(examples=["100/minute"])
    allowed_cidrs: list[str] | None = Field(examples=[["203.0.113.0/24"]])
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class ApiKeyCreated(ApiKeyRead):
    """The only response of a key's life that holds the key."""

    api_key: str = Field(
        description="The key itself. It is shown this once, and stored nowhere.", examples=[EXAMPLE_KEY]
    )

    @classmethod
    def of(cls, key: UserApiKey, **more: object) -> Self:
        return cls.model_validate(ApiKeyRead.model_validate(key).model_dump() | more)


class PreviousKey(BaseModel):
    id: str = Field(examples=[EXAMPLE_ID])
    expires_at: datetime


class ApiKeyRotated(ApiKeyCreated):
    previous: PreviousKey


class EventRead(FromRow):
    id: UUID
    action: Action
    created_at: datetime
    actor_user_id: UUID | None = Field(description="Null, as `actor_key_id`: the command line.")
    actor_key_id: str | None = Field(examples=[EXAMPLE_ID])
