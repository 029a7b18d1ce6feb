import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Uuid, literal, tuple_
from sqlalchemy.orm import class_mapper
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.errors import InvalidInput


class Listed(Protocol):
    """What a row needs to be listed in pages."""

    @property
    def id(self) -> UUID | str: ...

    @property
    def created_at(self) -> datetime: ...


class PageQuery(BaseModel):
    limit: int = Field(50, ge=1, le=100, description="The most items that one page holds.")
    cursor: str | None = Field(None, max_length=200, description="`next_cursor` of the page before.")


ItemT = TypeVar("ItemT")
RowT = TypeVar("RowT", bound=Listed)


class Page(BaseModel, Generic[ItemT]):
    model_config = ConfigDict(from_attributes=True)

    items: list[ItemT]
    next_cursor: str | None = Field(
        description="The `cursor` of the next page; null on the last one.",
        examples=["MjAzMC0wMS0zMVQxMjowMDowMCswMDowMCA0azF6OXEwdjdtMmM4eDVi"],
    )


@dataclass
class Rows(Generic[RowT]):
    items: Sequence[RowT]
    next_cursor: str | None


async def paginate(
    session: AsyncSession, statement: SelectOfScalar[RowT], model: type[RowT], page: PageQuery
) -> Rows[RowT]:
    """One page, newest first. A cursor names the last row seen, so rows that are added meanwhile shift nothing."""
    columns = class_mapper(model).columns
    created_at, row_id = columns["created_at"], columns["id"]
    if page.cursor is not None:
        last_created_at, last_id = _decode(page.cursor, UUID if isinstance(row_id.type, Uuid) else str)
        last = tuple_(literal(last_created_at, created_at.type), literal(last_id, row_id.type))
        statement = statement.where(tuple_(created_at, row_id) < last)
    newest_first = statement.order_by(created_at.desc(), row_id.desc())
    rows = (await session.exec(newest_first.limit(page.limit + 1))).all()
    items = rows[: page.limit]
    return Rows(items, _encode(items[-1]) if len(rows) > page.limit else None)


def _encode(row: Listed) -> str:
    return base64.urlsafe_b64encode(f"{row.created_at.isoformat()} {row.id}".encode()).decode()


def _decode(cursor: str, id_type: type[UUID] | type[str]) -> tuple[datetime, UUID | str]:
    try:
        moment, _, row_id = base64.b64decode(cursor, altchars="-_", validate=True).decode("ascii").partition(" ")
        created_at = datetime.fromisoformat(moment)
        if created_at.utcoffset() != timedelta(0) or not row_id.isprintable():
            raise ValueError
        return created_at, id_type(row_id)
    except ValueError:
        raise InvalidInput(("/query/cursor", "This is not the next_cursor of a page.")) from None
