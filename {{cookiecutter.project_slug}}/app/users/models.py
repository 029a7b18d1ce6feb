from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from sqlalchemy import Index, text
from sqlmodel import Field, Relationship, SQLModel

from app.core.database import utc_now

if TYPE_CHECKING:
    from app.api_keys.models import UserApiKey


class User(SQLModel, table=True):
    """A person or a program that owns keys. There is no password: only keys give access."""

    # SQLModel declares a function, so pyright and basedpyright report an error.
    __tablename__ = "users"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index(
            "ix_users_active_admins",
            "id",
            postgresql_where=text("is_admin AND is_active"),
            sqlite_where=text("is_admin = 1 AND is_active = 1"),
        ),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    email: str = Field(max_length=254, unique=True)  # lower case, see types.Email
    first_name: str = Field(default="", max_length=100)
    last_name: str = Field(default="", max_length=100)
    is_active: bool = True
    is_admin: bool = False
    created_at: datetime = Field(default_factory=utc_now, index=True)
    updated_at: datetime = Field(default_factory=utc_now, sa_column_kwargs={"onupdate": utc_now})

    # passive_deletes: the database deletes the keys, so they need not be loaded first.
    api_keys: list["UserApiKey"] = Relationship(
        back_populates="user",
        cascade_delete=True,
        sa_relationship_kwargs={"lazy": "raise", "passive_deletes": True},
    )
