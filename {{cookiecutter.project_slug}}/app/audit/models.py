from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid4

from sqlalchemy import JSON, Column, FetchedValue, Index, text
from sqlmodel import Field, SQLModel


class Action(StrEnum):
    API_KEY_CREATED = "api_key.created"
    API_KEY_UPDATED = "api_key.updated"
    API_KEY_RENEWED = "api_key.renewed"
    API_KEY_ROTATED = "api_key.rotated"
    API_KEY_REVOKED = "api_key.revoked"
    USER_CREATED = "user.created"
    USER_UPDATED = "user.updated"
    USER_DELETED = "user.deleted"


class AuditEvent(SQLModel, table=True):
    """Who changed what, and when. Without an actor, it was the command line.

    There are no foreign keys: events outlive users and keys.
    """

    __tablename__ = "audit_events"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_audit_events_created_at", "created_at", "id"),
        Index("ix_audit_events_target_key_id_created_at", "target_key_id", "created_at", "id"),
        # The key cache reads the recent ones of these.
        Index(
            "ix_audit_events_changes_rights",
            "created_at",
            postgresql_where=text("changes_rights"),
            sqlite_where=text("changes_rights"),
        ),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    # Set by the database, because the clocks of several instances differ.
    created_at: datetime = Field(default=None, sa_column_kwargs={"server_default": FetchedValue()})
    action: str = Field(max_length=20)
    actor_user_id: UUID | None = None
    actor_key_id: str | None = Field(default=None, max_length=16)
    target_user_id: UUID
    target_key_id: str | None = Field(default=None, max_length=16)
    changes: dict[str, list[object] | None] = Field(sa_column=Column(JSON, nullable=False))
    changes_rights: bool
