import base64
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import Uuid, literal, tuple_
from sqlalchemy.orm import class_mapper
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.core.errors import InvalidInput

ItemT = TypeVar("ItemT")
RowT = TypeVar("RowT", bound=Any)  # Any: a table with the columns id and created_at


class PageQuery(BaseModel):
    limit: int = Field(default=50, ge=1, le=100, description="Maximum number of items.")
    cursor: str | None = Field(
        default=None, max_length=200, description="The `next_cursor` of the previous page."
    )


class Page(BaseModel, Generic[ItemT]):
    items: list[ItemT]
    next_cursor: str | None = Field(
        description="The `cursor` of the next page. Null on the last page.",
        examples=["MjAzMC0wMS0zMVQxMjowMDowMCswMDowMCA0azF6OXEwdjdtMmM4eDVi"],
    )


class Rows(NamedTuple, Generic[RowT]):
    items: Sequence[RowT]
    next_cursor: str | None


async def paginate(
    session: AsyncSession, statement: SelectOfScalar[RowT], model: type[RowT], page: PageQuery
) -> Rows[RowT]:
    """One page, newest first. A cursor names the last row, so new rows do not shift pages."""
    columns = class_mapper(model).columns
    created_at, row_id = columns["created_at"], columns["id"]
    if page.cursor is not None:
        last_moment, last_id = _decode(page.cursor, UUID if isinstance(row_id.type, Uuid) else str)
        last = tuple_(literal(last_moment, created_at.type), literal(last_id, row_id.type))
        statement = statement.where(tuple_(created_at, row_id) < last)
    statement = statement.order_by(created_at.desc(), row_id.desc()).limit(page.limit + 1)
    rows = (await session.exec(statement)).all()
    items = rows[: page.limit]
    return Rows(items, _encode(items[-1]) if len(rows) > page.limit else None)


def _encode(row: RowT) -> str:
    return base64.urlsafe_b64encode(f"{row.created_at.isoformat()} {row.id}".encode()).decode()


def _decode(cursor: str, id_type: type[UUID] | type[str]) -> tuple[datetime, UUID | str]:
    try:
        text = base64.b64decode(cursor, altchars="-_", validate=True).decode("ascii")
        moment, _, row_id = text.partition(" ")
        created_at = datetime.fromisoformat(moment)
        if created_at.utcoffset() != timedelta(0) or not row_id.isprintable():
            raise ValueError
        return created_at, id_type(row_id)
    except ValueError:
        detail = "Input should be the next_cursor of a page."
        raise InvalidInput(("/query/cursor", detail)) from None
