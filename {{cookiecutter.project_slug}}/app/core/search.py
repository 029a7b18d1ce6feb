from typing import Any

from sqlalchemy import ColumnElement, String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapped
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class LowerCase(FunctionElement[str]):
    """lower() for every alphabet, not only ASCII. `core/database.py` defines it for SQLite."""

    type = String()
    inherit_cache = True


@compiles(LowerCase)
def _lower(element: LowerCase, compiler: SQLCompiler, **options: Any) -> str:  # Any: SQLAlchemy's
    return f"lower({compiler.process(element.clauses, **options)})"


@compiles(LowerCase, "postgresql")
def _lower_on_postgresql(element: LowerCase, compiler: SQLCompiler, **options: Any) -> str:
    # The collation of a database may be C, whose only letters are those of ASCII.
    return f'lower({compiler.process(element.clauses, **options)} COLLATE "und-x-icu")'


def contains(
    column: Mapped[str] | Mapped[str | None] | ColumnElement[str], part: str
) -> ColumnElement[bool]:
    """Whether a text contains `part`, in upper or in lower case."""
    return LowerCase(column).contains(part.lower(), autoescape=True)
