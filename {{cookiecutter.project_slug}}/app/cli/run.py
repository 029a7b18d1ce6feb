import asyncio
import json
import sys
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.table import Column, Table
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.api_keys.schemas import ApiKeyCreated
from app.api_keys.service import NewKey
from app.core.database import Database, reason
from app.core.errors import ApiError, InvalidInput
from app.settings import get_settings

T = TypeVar("T")
RowT = TypeVar("RowT")

PAGE = 1000  # rows of a list in memory


def run(work: Callable[[AsyncSession], Awaitable[T]], *, read_only: bool = False) -> T:
    """Do the work in one session, which commits at the end."""

    async def in_session(database: Database) -> T:
        async with database.session(read_only=read_only) as session:
            return await work(session)

    return run_in_sessions(in_session)


def run_in_sessions(work: Callable[[Database], Awaitable[T]]) -> T:
    """Do the work. Exits with 1 if it is rejected, and with 2 if an argument is invalid."""

    async def with_database() -> T:
        settings = get_settings()
        database = Database(settings.database_url, pooler=settings.database_pooler)
        try:
            return await work(database)
        finally:
            await database.dispose()

    try:
        return asyncio.run(with_database())
    except InvalidInput as error:
        fail(" ".join(detail for _, detail in error.errors))
    except ApiError as error:
        fail(error.detail)
    except DBAPIError as error:
        message = f"The database failed: {reason(error)}."
        is_missing = "no such table" in message or "does not exist" in message
        if error.statement and is_missing:  # not the role or the database
            message += " Is it migrated? Run `alembic upgrade head`."
        fail(message)
    except ValidationError as error:
        for one in error.errors():
            name = ".".join(map(str, one["loc"]))
            say(f"{name}: {'must be an email address' if name == 'email' else one['msg']}")
        sys.exit(2)


def say(message: str) -> None:
    print(_printable(message), file=sys.stderr)


def fail(message: str) -> NoReturn:
    say(message)
    sys.exit(1)


def print_key(new: NewKey, as_json: bool) -> None:
    key, text = new
    created = ApiKeyCreated.of(key, text)
    as_text = text.get_secret_value()
    print(created.model_dump_json(indent=2, ensure_ascii=True) if as_json else as_text)


async def print_query(
    session: AsyncSession,
    query: SelectOfScalar[RowT],
    schema: type[BaseModel],
    columns: Sequence[str],
    as_json: bool,
) -> None:
    """Print all rows, however many, page by page."""
    result = await session.stream_scalars(query.execution_options(yield_per=PAGE))
    before = "["
    async for page in result.partitions():
        rows = [schema.model_validate(row) for row in page]
        if as_json:
            for row in rows:
                print(before, row.model_dump_json(ensure_ascii=True), sep="")
                before = ","
        else:
            print_rows(rows, columns, as_json=False)
    if as_json:
        print("[]" if before == "[" else "]")


def print_rows(rows: Sequence[BaseModel], columns: Sequence[str], as_json: bool) -> None:
    """A table on a terminal, tab-separated lines elsewhere. JSON has all fields."""
    dumped = [row.model_dump(mode="json") for row in rows]
    if as_json:
        print(json.dumps(dumped, indent=2))
        return
    cells = [[_cell(row[column]) for column in columns] for row in dumped]
    if not sys.stdout.isatty():
        for row in cells:
            print("\t".join(row))
    else:
        table = Table(*(Column(name, no_wrap=name == "id", overflow="fold") for name in columns))
        for row in cells:
            table.add_row(*row)
        Console(markup=False, emoji=False).print(table)


def _cell(value: object) -> str:
    if isinstance(value, list):
        value = " ".join(map(str, value))
    return "" if value is None else _printable(str(value))


def _printable(text: str) -> str:
    """Without control and format characters, which can move the cursor or reverse text."""
    unsafe = ("C", "Zl", "Zp")  # categories of Unicode
    return "".join("�" if unicodedata.category(one).startswith(unsafe) else one for one in text)
