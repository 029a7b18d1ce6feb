import re
import shutil
import sqlite3
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from time import sleep
from typing import Any
from uuid import UUID

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Column, Engine, MetaData, String, Table, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlmodel import SQLModel

from app.settings import ROOT
from tests.conftest import MakeDatabase, alembic_config

# Changes a parent table in a way that SQLite can only do by copying and dropping it.
ANOTHER_REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "another", "{head}"

def upgrade():
    with op.batch_alter_table("users") as users:
        users.add_column(sa.Column("nickname", sa.String(9), nullable=False, server_default="none"))
        users.alter_column("first_name", type_=sa.String(200))

def downgrade():
    with op.batch_alter_table("users") as users:
        users.alter_column("first_name", type_=sa.String(100))
        users.drop_column("nickname")
"""

# Values that your own check constraints and rare types need, like {"items.price": Decimal("9.99")}.
SAMPLES: dict[str, object] = {}

BROKEN = """
def upgrade():
    op.execute(sa.delete(sa.table("users")))
"""


@pytest.fixture
def url(make_database: MakeDatabase) -> str:
    return make_database(migrated=False)


def engine_of(url: str) -> Engine:
    """A synchronous engine, without the app's configuration."""
    return create_engine(make_url(url.replace("+aiosqlite", "")))


def tables_of(engine: Engine) -> list[Table]:
    """As they are in the database, parents first."""
    metadata = MetaData()
    metadata.reflect(engine)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def schema_of(url: str) -> list[str]:
    engine = engine_of(url)
    tables = tables_of(engine)
    engine.dispose()
    created = [str(CreateTable(table).compile(engine)) for table in tables]
    created += [
        str(CreateIndex(index).compile(engine)) for table in tables for index in table.indexes
    ]
    return sorted(line for statement in created for line in statement.splitlines())


def rows_of(url: str) -> dict[str, list[tuple[object, ...]]]:
    engine = engine_of(url)
    with engine.connect() as connection:
        rows = {
            table.name: [(*row,) for row in connection.execute(table.select())]
            for table in tables_of(engine)
        }
    engine.dispose()
    return rows


def sample(column: Column[Any], number: int) -> object:
    """The value of a column in the row of that number. Row 1 is NULL where that is allowed."""
    name = f"{column.table.name}.{column.name}"
    if name in SAMPLES:
        return SAMPLES[name]
    if number == 1 and column.nullable:
        return None
    for key in column.foreign_keys:
        return sample(key.column, number)
    for check in column.table.constraints:
        is_enum = check.name == f"ck_{column.table.name}_{column.name}"
        if is_enum and isinstance(check, CheckConstraint):
            return re.findall("'(.*?)'", str(check.sqltext))[0]
    if isinstance(column.type, String):
        return str(number).zfill(column.type.length or 1)
    return {
        bool: True,
        bytes: bytes([number]),
        date: date(2030, 1, number),
        datetime: datetime(2030, 1, number, tzinfo=UTC),
        Decimal: Decimal(number),
        float: float(number),
        int: number,
        object: {},  # JSON
        time: time(number),
        timedelta: timedelta(days=number),
        UUID: UUID(int=number),
    }[column.type.python_type]


def fill(url: str) -> None:
    """Give every table two rows, and no others."""
    engine = engine_of(url)
    tables = tables_of(engine)
    with engine.begin() as connection:
        for table in reversed(tables):
            connection.execute(table.delete())
        for table in tables:
            columns = [column for column in table.columns if column.computed is None]
            for number in (1, 2):
                row = {column.name: sample(column, number) for column in columns}
                connection.execute(table.insert().values(row))
    engine.dispose()


def add_revision(url: str, folder: Path, source: str) -> Config:
    config = alembic_config(url)
    head = ScriptDirectory.from_config(config).get_current_head()
    (folder / "another.py").write_text(source.replace("{head}", str(head)))
    config.set_main_option("version_locations", f"{ROOT / 'migrations' / 'versions'}:{folder}")
    config.set_main_option("path_separator", "os")
    return config


def test_the_migrations_match_the_models(url: str, database_url: str) -> None:
    command.check(alembic_config(database_url))
    engine = engine_of(url)
    SQLModel.metadata.create_all(engine)
    engine.dispose()
    # command.check overlooks the conditions of indexes and missing lengths.
    created, migrated = schema_of(url), schema_of(database_url)
    assert {line for line in created if " DEFAULT " in line} <= {*migrated}
    # A migration may have added a default for existing rows.
    assert {*map(without_default, created)} == {*map(without_default, migrated)}


def without_default(line: str) -> str:
    """Also without a comma at the end: constraints have no order."""
    return re.sub(r" DEFAULT .*?(?= NOT NULL|,? ?$)", "", line).rstrip(", ")


def test_every_migration_can_be_undone_and_repeated(url: str) -> None:
    config = alembic_config(url)
    for script in reversed([*ScriptDirectory.from_config(config).walk_revisions()]):
        before = schema_of(url)
        command.upgrade(config, script.revision)
        after = schema_of(url)
        assert after != before
        command.downgrade(config, "-1")
        assert schema_of(url) == before
        command.upgrade(config, script.revision)
        assert schema_of(url) == after


def test_every_migration_succeeds_on_tables_with_rows(url: str) -> None:
    config = alembic_config(url)
    for script in reversed([*ScriptDirectory.from_config(config).walk_revisions()]):
        fill(url)
        command.upgrade(config, script.revision)
    fill(url)


def test_a_change_of_a_table_keeps_the_rows_that_refer_to_it(url: str, tmp_path: Path) -> None:
    command.upgrade(alembic_config(url), "head")
    fill(url)
    before = rows_of(url)
    assert all(before.values())
    config = add_revision(url, tmp_path, ANOTHER_REVISION)
    command.upgrade(config, "another")
    users = [(*row, "none") for row in before["users"]]
    assert rows_of(url) == before | {"users": users}
    command.downgrade(config, "-1")
    assert rows_of(url) == before


def test_a_migration_that_would_leave_references_to_missing_rows_is_undone(
    url: str, tmp_path: Path
) -> None:
    command.upgrade(alembic_config(url), "head")
    fill(url)
    before = rows_of(url)
    config = add_revision(url, tmp_path, ANOTHER_REVISION + BROKEN)
    if url.startswith("sqlite"):
        with pytest.raises(RuntimeError, match="rows would refer to missing rows"):
            command.upgrade(config, "another")
        assert rows_of(url) == before
    else:  # PostgreSQL checks foreign keys itself, and deletes the keys of a deleted user
        command.upgrade(config, "another")
        assert rows_of(url)["user_api_keys"] == []


def test_migrating_switches_sqlite_to_a_write_ahead_log_although_another_process_writes(
    tmp_path: Path,
) -> None:
    file = tmp_path / "new.db"
    config = alembic_config(f"sqlite+aiosqlite:///{file}")
    with ThreadPoolExecutor() as pool, closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        migration = pool.submit(command.upgrade, config, "head")
        sleep(0.5)
        assert not migration.done()
        other.rollback()
        migration.result(timeout=30)
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_sql_of_migrations_is_printed_without_a_database(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # SQLite alters tables by copying them, which needs a database.
    config = alembic_config("postgresql+psycopg://nobody@nowhere.invalid/none")
    command.upgrade(config, "head", sql=True)
    assert "CREATE TABLE user_api_keys" in capsys.readouterr().out


def test_no_migration_is_written_if_the_models_have_not_changed(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = alembic_config(url)
    config.cmd_opts = Namespace(autogenerate=True)
    command.upgrade(config, "head")
    migrations = shutil.copytree(ROOT / "migrations", tmp_path / "migrations")
    config.set_main_option("script_location", str(migrations))
    before = sorted(migrations.rglob("*.py"))
    command.revision(config, "nothing", autogenerate=True)
    assert sorted(migrations.rglob("*.py")) == before
    assert "The models have not changed" in caplog.text


def test_the_clock_of_the_database_sets_created_at_of_audit_events(
    url: str, tmp_path: Path
) -> None:
    command.upgrade(alembic_config(url), "head")
    engine = engine_of(url)
    [table] = [table for table in tables_of(engine) if table.name == "audit_events"]
    row = {one.name: sample(one, 1) for one in table.columns if one.name != "created_at"}
    with engine.begin() as connection:  # in one transaction, but not at the same time
        for number in (1, 2):
            connection.execute(table.insert().values(row | {"id": sample(table.c.id, number)}))
            sleep(0.01)
        events = SQLModel.metadata.tables["audit_events"]
        first, second = connection.execute(events.select().order_by(events.c.id)).mappings()
    engine.dispose()
    assert first["created_at"] < second["created_at"]
    # The clock of the machine, even if that of the tests was changed.
    now = datetime.fromtimestamp(tmp_path.stat().st_mtime, UTC)
    assert abs(now - first["created_at"]) < timedelta(minutes=1)
