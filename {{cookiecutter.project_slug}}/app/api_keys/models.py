from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import JSON, BigInteger, Column, ColumnElement, Index, case, text
from sqlmodel import Field, Relationship, SQLModel, col

from app.core.database import utc_now
from app.users.models import User


class Status(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"
    EXPIRED = "expired"
    REVOKED = "revoked"

    @staticmethod
    def of(revoked_at: datetime | None, enabled: bool, expires_at: datetime | None) -> "Status":
        if revoked_at is not None:
            return Status.REVOKED
        if not enabled:
            return Status.DISABLED
        if expires_at is not None and expires_at <= datetime.now(UTC):
            return Status.EXPIRED
        return Status.ACTIVE

    @staticmethod
    def in_sql(now: datetime) -> ColumnElement[str]:
        """The same as `of`, for a query."""
        return case(
            (col(UserApiKey.revoked_at).is_not(None), "revoked"),
            (~col(UserApiKey.enabled), "disabled"),
            (col(UserApiKey.expires_at) <= now, "expired"),
            else_="active",
        )


class UserApiKey(SQLModel, table=True):
    """A key without its secret, which cannot be derived from what is stored here."""

    __tablename__ = "user_api_keys"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_user_api_keys_user_id_created_at", "user_id", "created_at", "id"),
        Index("ix_user_api_keys_created_at", "created_at", "id"),
        Index("ix_user_api_keys_expires_at", "expires_at"),
        Index(
            "ix_user_api_keys_revoked_at",
            "revoked_at",
            postgresql_where=text("revoked_at IS NOT NULL"),
            sqlite_where=text("revoked_at IS NOT NULL"),
        ),
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
    created_at: datetime = Field(default_factory=utc_now)
    updated_at: datetime = Field(default_factory=utc_now, sa_column_kwargs={"onupdate": utc_now})
    # From the creation or the last renewal until expires_at. Rotation gives it to the new key.
    lifetime_seconds: int | None = Field(default=None, sa_type=BigInteger)
    # Of the first key in a chain of rotations, which share a rate limit.
    original_id: str = Field(default="", max_length=16)
    replaced_by: str | None = Field(default=None, max_length=16)
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    user: User = Relationship(back_populates="api_keys", sa_relationship_kwargs={"lazy": "raise"})

    @property
    def status(self) -> Status:
        return Status.of(self.revoked_at, self.enabled, self.expires_at)
