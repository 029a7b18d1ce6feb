import pytest
from sqlalchemy import (
    ColumnElement,
    String,
    collate,
    create_engine,
    literal,
    literal_column,
    select,
)

from app.core.database import Database
from app.core.search import contains


@pytest.mark.parametrize(
    ("text", "part", "expected"),
    [
        ("Édith", "éDI", True),
        ("édith", "É", True),
        ("Иванова", "иВА", True),
        ("Edith", "é", False),
        ("100 %", "0 %", True),
        ("100", "%", False),
        ("a_b", "A_B", True),
        ("axb", "a_b", False),
    ],
)
async def test_a_search_ignores_case_in_every_alphabet_whatever_the_collation(
    database: Database, text: str, part: str, expected: bool
) -> None:
    value: ColumnElement[str] = literal(text)
    if database.engine.dialect.name == "postgresql":
        value = collate(value, "C")
    [[found]] = await database.fetch_all(select(contains(value, part)))
    assert bool(found) is expected


async def test_null_contains_nothing(database: Database) -> None:
    [[found]] = await database.fetch_all(select(contains(literal(None, String()), "")))
    assert found is None


def test_on_postgresql_the_collation_knows_every_alphabet() -> None:
    """A trigram index must be on the same expression (docs/operations.md)."""
    found = contains(literal_column("name", String()), "x")
    statement = str(found.compile(create_engine("postgresql+psycopg://")))
    assert 'lower(name COLLATE "und-x-icu") LIKE' in statement
