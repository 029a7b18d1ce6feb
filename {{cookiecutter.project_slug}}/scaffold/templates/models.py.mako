from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID, uuid4

from pydantic import JsonValue
from sqlalchemy import JSON, Column, Index, UniqueConstraint
from sqlmodel import Field, SQLModel

from app.core.database import utc_now
% for field in enums:


class ${field.own_type}(StrEnum):
% for member in field.members:
    ${member_name(member)} = "${member}"
% endfor
% endfor


class ${names.class_name}(SQLModel, table=True):
    __tablename__ = "${names.table}"  # pyright: ignore[reportAssignmentType]
% if names.owned or references:
    __table_args__ = (
% if names.owned:
        Index("ix_${names.table}_user_id_created_at", "user_id", "created_at", "id"),
% endif
% for field in references:
        Index("ix_${names.table}_${field.name}_created_at", "${field.name}", "created_at", "id"),
% endfor
% for field in uniques if names.owned else []:
        UniqueConstraint("user_id", "${field.name}"),
% endfor
    )
% endif

    id: UUID = Field(default_factory=uuid4, primary_key=True)
% if names.owned:
    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE")
% endif
% for field in fields:
    ${field.in_table()}
% endfor
    created_at: datetime = Field(default_factory=utc_now, index=True)
    updated_at: datetime = Field(default_factory=utc_now, sa_column_kwargs={"onupdate": utc_now})
