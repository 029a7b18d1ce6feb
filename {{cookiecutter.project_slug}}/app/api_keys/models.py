from datetime import datetime
from enum import StrEnum
from typing import Self
from uuid import UUID, uuid4

from sqlalchemy import JSON, BigInteger, Column, ColumnElement, Index, case
from sqlmodel import Field, Relationship, SQLModel, col

from app.database import UtcDateTime, utc_now
from app.users.models import User


class Status(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"
    EXPIRED = "expired"
    REVOKED = "revoked"

    @classmethod
    def of(cls, *, revoked_at: datetime | None, enabled: bool, expires_at: datetime | None, now: datetime) -> Self:
        """The one definition of a usable key; of several reasons against it, the most lasting one is named."""
        if revoked_at is not None:
            return cls("revoked")
        if not enabled:
            return cls("disabled")
        return cls("expired" if expires_at is not None and expires_at <= now else "active")

    @staticmethod
    def in_sql(now: datetime) -> ColumnElement[str]:
        """The same definition, for a query."""
        return case(
            (col(UserApiKey.revoked_at).is_not(None), "revoked"),
            (~col(UserApiKey.enabled), "disabled"),
            (col(UserApiKey.expires_at) <= now, "expired"),
            else_="active",
        )


class Action(StrEnum):
    CREATED = "created"
    UPDATED = "updated"
    RENEWED = "renewed"
    ROTATED = "rotated"
    REVOKED = "revoked"


class UserApiKey(SQLModel, table=True):
    """A key, without the key: what is stored here neither is one nor can be turned into one."""

    __tablename__ = "user_api_keys"
    __table_args__ = (
        Index("ix_user_api_keys_user_id_created_at", "user_id", "created_at", "id"),
        Index("ix_user_api_keys_created_at", "created_at", "id"),
    )

    id: str = Field(primary_key=True, max_length=16)
    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE")
    name: str = Field(max_length=100)
    hint: str = Field(max_length=40)
    digest: bytes = Field(repr=False)
    pepper_id: int
    scopes: list[str] = Field(default_factory=list, sa_type=JSON)
    allowed_cidrs: list[str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    rate_limit: str | None = Field(default=None, max_length=20)
    enabled: bool = True
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime, sa_column_kwargs={"onupdate": utc_now})
    # From the last creation or renewal to expires_at: what a rotation gives again.
    lifetime_seconds: int | None = Field(default=None, sa_type=BigInteger)
    replaced_by: str | None = Field(default=None, max_length=16)  # the key that a rotation made of this one
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)

    user: User = Relationship(back_populates="api_keys")

    @property
    def status(self) -> Status:
        return Status.of(revoked_at=self.revoked_at, enabled=self.enabled, expires_at=self.expires_at, now=utc_now())


class ApiKeyEvent(SQLModel, table=True):
    """Who did what to a key. Actors are kept when they are deleted; none means the command line."""

    __tablename__ = "api_key_events"
    __table_args__ = (Index("ix_api_key_events_key_id_created_at", "key_id", "created_at", "id"),)

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    key_id: str = Field(foreign_key="user_api_keys.id", ondelete="CASCADE", max_length=16)
    action: str = Field(max_length=20)
    actor_user_id: UUID | None = None
    actor_key_id: str | None = Field(default=None, max_length=16)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class ApiKeyStamp(SQLModel, table=True):
    """One row: a number that each deed advances which may change what a key is allowed (`cache.py`)."""

    __tablename__ = "api_key_stamp"

    id: int = Field(default=1, primary_key=True)
    number: int = Field(default=0, sa_type=BigInteger)
