import asyncio
import json
import sys
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, NoReturn, TypeVar

import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys.schemas import ApiKeyCreated
from app.api_keys.service import NewKey
from app.core.database import Database
from app.core.errors import ApiError, InvalidInput
from app.settings import get_settings

T = TypeVar("T")

Email = Annotated[str, typer.Argument(help="The user's email address.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def run(work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Do the work in one session, which commits at the end.

    Exits with 1 if it is rejected, and with 2 if an argument is invalid.
    """

    async def in_session() -> T:
        database = Database(get_settings().database_url)
        try:
            async with database.session() as session:
                return await work(session)
        finally:
            await database.dispose()

    try:
        return asyncio.run(in_session())
    except InvalidInput as error:
        fail(" ".join(detail for _, detail in error.errors))
    except ApiError as error:
        fail(error.detail)
    except DBAPIError as error:
        fail(f"The database failed: {error.orig} (is it migrated? alembic upgrade head)")
    except ValidationError as error:
        for one in error.errors():
            say(f"{'.'.join(map(str, one['loc']))}: {one['msg']}")
        sys.exit(2)


def say(message: str) -> None:
    print(message, file=sys.stderr)


def fail(message: str) -> NoReturn:
    say(message)
    sys.exit(1)


def print_key(new: NewKey, as_json: bool) -> None:
    key, text = new
    created = ApiKeyCreated.of(key, text)
    print(created.model_dump_json(indent=2, ensure_ascii=True) if as_json else text)


def print_rows(rows: Sequence[BaseModel], columns: Sequence[str], as_json: bool) -> None:
    """A table on a terminal, tab-separated lines elsewhere. JSON has all fields."""
    dumped = [row.model_dump(mode="json") for row in rows]
    if as_json:
        print(json.dumps(dumped, indent=2))
        return
    cells = [[_cell(row[column]) for column in columns] for row in dumped]
    if not on_terminal():
        for row in cells:
            print("\t".join(row))
    elif cells:
        table = Table(*columns)
        for row in cells:
            table.add_row(*map(Text, row))  # in a str, rich would expand [red] and :warning:
        Console().print(table)


def on_terminal() -> bool:
    return sys.stdout.isatty()


def _cell(value: object) -> str:
    if isinstance(value, list):
        value = " ".join(map(str, value))
    text = "" if value is None else str(value)
    # Control and format characters can move the cursor, or reverse the text after them.
    unsafe = ("C", "Zl", "Zp")  # categories of Unicode
    return "".join("�" if unicodedata.category(one).startswith(unsafe) else one for one in text)
