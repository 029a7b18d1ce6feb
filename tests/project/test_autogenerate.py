import enum
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.util import CommandError
from sqlmodel import AutoString, SQLModel, UTCDateTime

from app.settings import ROOT
from tests.conftest import MakeDatabase, alembic_config

AnyColumn = sa.Column[Any]  # Any: of any type
Define = Callable[..., None]


class Color(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class OtherColor(enum.StrEnum):
    RED = "red"
    MAGENTA = "magenta"
    WHITE = "white"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class OwnType(sa.TypeDecorator[str]):
    impl = sa.String
    cache_ok = True


@pytest.fixture
def define() -> Iterator[Define]:
    """Defines the table `boxes`, again and again."""
    metadata = SQLModel.metadata

    def define(*columns: AnyColumn | sa.CheckConstraint) -> None:
        if "boxes" in metadata.tables:
            metadata.remove(metadata.tables["boxes"])
        sa.Table("boxes", metadata, sa.Column("id", sa.Integer, primary_key=True), *columns)

    yield define
    metadata.remove(metadata.tables["boxes"])


class Project:
    """A database, and migrations that can be generated."""

    def __init__(self, url: str, folder: Path) -> None:
        self.engine = sa.create_engine(sa.make_url(url.replace("+aiosqlite", "")))
        self.migrations = shutil.copytree(ROOT / "migrations", folder / "migrations")
        self.config = alembic_config(url)
        self.config.set_main_option("script_location", str(self.migrations))

    def generate(self, name: str) -> None:
        """As `alembic revision --autogenerate` does."""
        self.config.cmd_opts = Namespace(autogenerate=True)
        command.revision(self.config, name, autogenerate=True)
        self.config.cmd_opts = None

    def migrate(self, name: str) -> str:
        """Generate a migration, apply it, undo it and apply it again. Returns its source."""
        self.generate(name)
        command.upgrade(self.config, "head")
        command.downgrade(self.config, "-1")
        command.upgrade(self.config, "head")
        command.check(self.config)
        [path] = self.migrations.glob(f"versions/*_{name}.py")
        return path.read_text("utf-8")

    def execute(self, statement: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement))

    def read(self, column: str) -> object:
        with self.engine.connect() as connection:
            return connection.execute(sa.text(f"SELECT {column} FROM boxes")).scalar_one()  # noqa: S608 - no input


@pytest.fixture
def project(make_database: MakeDatabase, tmp_path: Path) -> Iterator[Project]:
    project = Project(make_database(), tmp_path)
    yield project
    project.engine.dispose()


TYPES = [
    AutoString(),
    AutoString(20),
    UTCDateTime(),
    sa.DateTime(),
    sa.Date(),
    sa.Time(),
    sa.Interval(),
    sa.Boolean(),
    sa.Integer(),
    sa.BigInteger(),
    sa.Float(),
    sa.Numeric(),
    sa.Numeric(10, 2),
    sa.Uuid(),
    sa.LargeBinary(),
    sa.JSON(),
    sa.Text(),
    sa.Enum(Color),
    sa.Enum(Level),
    OwnType(10),
]


def test_columns_of_every_type_are_migrated_to_types_of_sqlalchemy(
    project: Project, define: Define
) -> None:
    define(
        *(sa.Column(f"required_{n}", one, nullable=False) for n, one in enumerate(TYPES)),
        *(sa.Column(f"optional_{n}", one) for n, one in enumerate(TYPES)),
    )
    source = project.migrate("add")
    assert "sqlmodel" not in source
    assert "tests." not in source
    define()
    assert "drop_column" in project.migrate("drop")


def test_the_members_of_an_enum_are_compared(project: Project, define: Define) -> None:
    define(sa.Column("color", sa.Enum(Color), nullable=False))
    project.migrate("add")
    project.execute("INSERT INTO boxes (id, color) VALUES (1, 'RED')")
    define(sa.Column("color", sa.Enum(OtherColor), nullable=False))
    with pytest.raises(CommandError, match="ck_boxes_color"):
        command.check(project.config)
    project.migrate("change")
    project.execute("UPDATE boxes SET color = 'MAGENTA'")
    with pytest.raises(sa.exc.IntegrityError):
        project.execute("UPDATE boxes SET color = 'BLUE'")


def test_what_has_not_changed_is_not_migrated(project: Project, define: Define) -> None:
    define(
        sa.Column("empty", AutoString(), server_default=""),
        sa.Column("quoted", AutoString(), server_default="it's"),
        sa.Column("list", sa.JSON, server_default="[]"),
        sa.Column("number", sa.Integer, server_default="5"),
        sa.Column("decimal", sa.Numeric(5, 2), server_default="1.50"),
        sa.Column("flag", sa.Boolean, server_default=sa.true()),
        sa.Column("day", sa.Date, server_default="2030-01-01"),
        sa.Column("moment", UTCDateTime(), server_default=sa.func.now()),
        sa.Column("set_by_the_database", UTCDateTime(), server_default=sa.FetchedValue()),
        sa.CheckConstraint("number < 9", name="small"),
    )
    project.migrate("add")  # and check


@pytest.mark.parametrize(("before", "after"), [("a", "b"), ("a", None), (None, "b"), ("a", "")])
def test_a_changed_server_default_is_migrated(
    project: Project, define: Define, before: str | None, after: str | None
) -> None:
    define(sa.Column("name", AutoString(), server_default=before))
    project.migrate("add")
    define(sa.Column("name", AutoString(), server_default=after))
    with pytest.raises(CommandError, match="modify_default"):
        command.check(project.config)
    project.migrate("change")
    project.execute("INSERT INTO boxes (id) VALUES (1)")
    assert project.read("name") == after


def test_a_changed_type_is_migrated(project: Project, define: Define) -> None:
    define(sa.Column("name", AutoString(10)))
    project.migrate("add")
    define(sa.Column("name", AutoString(20)))
    assert "type_=sa.String(length=20)" in project.migrate("change")


def test_existing_rows_get_the_default_of_a_new_column(project: Project, define: Define) -> None:
    define()
    project.migrate("add")
    project.execute("INSERT INTO boxes (id) VALUES (1)")
    define(
        sa.Column("name", AutoString(), nullable=False, default="it's"),
        sa.Column("is_open", sa.Boolean, nullable=False, default=False),
        sa.Column("number", sa.Integer, nullable=False, default=5),
        sa.Column("price", sa.Numeric(5, 2), nullable=False, default=Decimal("1.50")),
        sa.Column("color", sa.Enum(Color), nullable=False, default=Color.BLUE),
    )
    project.migrate("change")
    columns = ("name", "is_open", "number", "price", "color")
    row = [project.read(column) for column in columns]
    assert row == ["it's", False, 5, Decimal("1.50"), "BLUE"]


@pytest.mark.parametrize("default", [None, lambda: "x", date(2030, 1, 1)])
def test_no_migration_is_written_if_existing_rows_would_have_no_value(
    project: Project, define: Define, default: object
) -> None:
    define()
    project.migrate("add")
    define(sa.Column("name", AutoString(), nullable=False, default=default))
    before = sorted(project.migrations.rglob("*.py"))
    with pytest.raises(CommandError, match=r"^boxes\.name: existing rows need a value, so give"):
        project.generate("change")
    assert sorted(project.migrations.rglob("*.py")) == before
