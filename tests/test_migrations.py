"""Changes the models of a generated project as its developers would, and migrates."""

import re
from pathlib import Path

import pytest

from tests.bakery import FRUGAL, PYTHONS, lend_environment, run
from tests.conftest import Bake
from tests.servers import PEPPER, PostgresqlStore

MODELS = """
import enum
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from uuid import UUID

from pydantic import AwareDatetime, NaiveDatetime
from sqlalchemy import JSON
from sqlmodel import Field, SQLModel


class Color(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Kind(enum.Enum):
    SMALL = "small"


class Box(SQLModel, table=True):
    __tablename__ = "boxes"

    id: int | None = Field(default=None, primary_key=True)
"""

VALUES = {
    "str": "'x'",
    "int": "1",
    "float": "0.5",
    "bool": "True",
    "Decimal": "Decimal('1.5')",
    "datetime": "datetime(2030, 1, 1, tzinfo=UTC)",
    "AwareDatetime": "datetime(2030, 1, 1, tzinfo=UTC)",
    "NaiveDatetime": "datetime(2030, 1, 1)",
    "date": "date(2030, 1, 1)",
    "time": "time(1)",
    "timedelta": "timedelta(days=1)",
    "UUID": "UUID(int=1)",
    "bytes": "b'x'",
    "Color": "Color.RED",
    "Level": "Level.HIGH",
    "Kind": "Kind.SMALL",
}
EVERY_TYPE = "\n".join(f"    {name}_: {name}\n    {name}_or_none: {name} | None = None" for name in VALUES)

JSON_AND_TEXT = """
    short: str = Field(max_length=5)
    price: Decimal = Field(max_digits=5, decimal_places=2)
    tags: list[str] = Field(default_factory=list, sa_type=JSON)
"""

NEW_COLUMNS = """
    name: str = ""
    is_open: bool = True
    color: Color = Color.BLUE
"""

ADD_AND_READ = f"""
import asyncio

import app.api_keys.models
from app.boxes.models import *
from app.core.database import Database
from app.settings import get_settings

expected = dict({", ".join(f"{name}_={value}" for name, value in VALUES.items())})
expected |= dict(short="x", price=Decimal("1.50"), tags=["x"])


async def main():
    database = Database(get_settings().database_url)
    async with database.session() as session:
        session.add(Box(id=1, **expected))
    async with database.session() as session:
        box = await session.get_one(Box, 1)
    assert {{name: getattr(box, name) for name in expected}} == expected, box
    await database.dispose()


asyncio.run(main())
"""

NO_DEFAULT = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "by_hand", "{head}"


def upgrade():
    with op.batch_alter_table("boxes") as boxes:
        boxes.add_column(sa.Column("weight", sa.Integer(), nullable=False))


def downgrade():
    with op.batch_alter_table("boxes") as boxes:
        boxes.drop_column("weight")
"""


@pytest.fixture
def project(bake: Bake) -> Path:
    project = bake()
    lend_environment(project, next(iter(PYTHONS.values())))
    (project / "app/boxes").mkdir()
    (project / "app/boxes/__init__.py").touch()
    return project


def define(project: Path, *columns: str) -> None:
    (project / "app/boxes/models.py").write_text(MODELS + "\n".join(columns) + "\n")


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_every_type_that_sqlmodel_maps_can_be_migrated(
    project: Path, request: pytest.FixtureRequest, database: str
) -> None:
    url = f"sqlite:///{project}/boxes.db"
    if database == "postgresql":
        url = PostgresqlStore.create(request.getfixturevalue("cluster")).url
    define(project, EVERY_TYPE, JSON_AND_TEXT)
    twice = "alembic upgrade head && alembic check && alembic downgrade -1 && alembic upgrade head"
    run(["make", "migration", "m=add boxes"], project, DATABASE_URL=url)
    run(["bash", "-c", f"export PATH=.venv/bin:$PATH; {twice}"], project, DATABASE_URL=url)
    run([".venv/bin/python", "-c", ADD_AND_READ], project, DATABASE_URL=url)
    define(project, EVERY_TYPE, JSON_AND_TEXT, NEW_COLUMNS)
    run(["make", "migration", "m=add columns"], project, DATABASE_URL=url)
    run(["bash", "-c", f"export PATH=.venv/bin:$PATH; {twice}"], project, DATABASE_URL=url)


def test_the_tests_of_a_project_migrate_rows_of_its_own_tables(project: Path) -> None:
    tests = [".venv/bin/pytest", "tests/test_migrations.py", "-k", "rows or undone_and_repeated"]
    define(project, EVERY_TYPE, JSON_AND_TEXT)
    run(["make", "migration", "m=add boxes"], project)
    define(project, EVERY_TYPE, JSON_AND_TEXT, NEW_COLUMNS)
    run(["make", "migration", "m=add columns"], project)
    run(tests, project, **FRUGAL)
    [head] = re.findall(r"(\w+) \(head\)", run([".venv/bin/alembic", "heads"], project))
    (project / "migrations/versions/by_hand.py").write_text(NO_DEFAULT.format(head=head))
    with pytest.raises(AssertionError, match="NOT NULL"):
        run(tests, project, **FRUGAL)


@pytest.mark.parametrize("type_", ["Path", "IPv4Address | None"])
def test_a_type_that_drivers_reject_stops_the_generation(project: Path, type_: str) -> None:
    define(project, f"    source: {type_} = None")
    with pytest.raises(AssertionError, match=r"FAILED: Box\.source: databases do not accept \w+, so declare"):
        run(["make", "migration", "m=add boxes"], project)
    assert len([*(project / "migrations/versions").glob("*.py")]) == 1


def test_several_heads_are_reported_in_one_sentence(project: Path) -> None:
    for name in "abcdef":
        revision = f'revision, down_revision = "{name}", "1e541203d153"\n'
        (project / f"migrations/versions/{name}.py").write_text(revision)
    with pytest.raises(AssertionError, match="cannot be migrated: Multiple head revisions") as error:
        run([".venv/bin/python", "-m", "app", "start", "admin@example.com"], project, API_KEY_PEPPERS=PEPPER)
    assert "Traceback" not in str(error.value)
