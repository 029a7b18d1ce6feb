from datetime import datetime
from enum import StrEnum
from typing import Self
from uuid import UUID

from sqlalchemy import JSON, Column, Index
from sqlmodel import Field, Relationship, SQLModel

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


class UserApiKey(SQLModel, table=True):
    """A key, without the key: what is stored here neither is one nor can be turned into one."""

    __tablename__ = "user_api_keys"
    __table_args__ = (Index("ix_user_api_keys_user_id_created_at", "user_id", "created_at", "id"),)

    id: str = Field(primary_key=True, max_length=16)
    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE")
    name: str = Field(max_length=100)
    hint: str = Field(max_length=40)
    digest: bytes = Field(repr=False)
    pepper_id: int
    scopes: list[str] = Field(default_factory=list, sa_type=JSON)
    allowed_cidrs: list[str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    enabled: bool = True
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime, sa_column_kwargs={"onupdate": utc_now})
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)

    user: User = Relationship(back_populates="api_keys")

    @property
    def status(self) -> Status:
        return Status.of(revoked_at=self.revoked_at, enabled=self.enabled, expires_at=self.expires_at, now=utc_now())
