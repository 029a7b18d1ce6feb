from datetime import datetime
from ipaddress import ip_network
from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints

from app.api_keys.models import Status, UserApiKey
from app.schemas import Body, FromRow, Moment, Name
from app.scopes import Scope


def _network(value: str) -> str:
    return str(ip_network(value))


def _each_once(scopes: list[Scope]) -> list[Scope]:
    return sorted(set(scopes))


Scopes = Annotated[list[Scope], Field(max_length=100), AfterValidator(_each_once)]
Network = Annotated[str, StringConstraints(max_length=43), AfterValidator(_network)]
Networks = Annotated[list[Network], Field(min_length=1, max_length=100)]


class ApiKeyCreate(Body):
    name: Name
    scopes: Scopes
    expires_at: Moment | None = Field(
        None, description="Absent: after the configured number of days. Null: never, where that is allowed."
    )
    allowed_cidrs: Networks | None = Field(None, description="Networks that may use the key; null: any.")
    user_id: UUID | None = Field(None, description="Whose key it will be; needs `admin` for anybody but oneself.")


class ApiKeyRead(FromRow):
    id: str
    user_id: UUID
    name: str
    hint: str = Field(description="The key's start up to its id, and its last four characters.")
    scopes: list[str]
    status: Status
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
    def of(cls, key: UserApiKey, text: str) -> Self:
        return cls(**ApiKeyRead.model_validate(key).model_dump(), api_key=text)
