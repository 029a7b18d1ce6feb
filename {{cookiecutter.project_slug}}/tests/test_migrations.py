import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.engine import make_url

from app.api_keys import service as api_keys
from app.api_keys.schemas import ApiKeyCreate
from app.database import Database
from app.settings import ROOT
from app.usage.models import ApiKeyUsage
from app.users import service as users
from app.users.schemas import UserCreate
from tests.conftest import PEPPER, MakeDatabase, alembic_config, make_settings

# Changes a parent table in the way that SQLite can only do by copying and dropping it.
ANOTHER_REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "another", "{head}"

def upgrade():
    with op.batch_alter_table("users") as users:
        users.add_column(sa.Column("nickname", sa.String(10), nullable=False, server_default="none"))
        users.alter_column("first_name", type_=sa.String(200))

def downgrade():
    with op.batch_alter_table("users") as users:
        users.alter_column("first_name", type_=sa.String(100))
        users.drop_column("nickname")
"""

BREAKS = """
def upgrade():
    op.execute(sa.delete(sa.table("users")))
"""


@pytest.fixture
def url(make_database: MakeDatabase) -> str:
    return make_database(migrated=False)


def engine_of(url: str) -> Engine:
    """A synchronous engine that knows nothing of the app's."""
    return create_engine(make_url(url).set(drivername=url.partition(":")[0].replace("+aiosqlite", "")))


def schema(url: str) -> dict[str, tuple[object, ...]]:
    engine = engine_of(url)
    inspector = inspect(engine)
    found: dict[str, tuple[object, ...]] = {
        table: (
            {column["name"]: {**column, "type": str(column["type"])} for column in inspector.get_columns(table)},
            inspector.get_indexes(table),
            inspector.get_foreign_keys(table),
            inspector.get_unique_constraints(table),
            inspector.get_pk_constraint(table),
        )
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }
    engine.dispose()
    return found


def rows(url: str) -> dict[str, list[dict[str, object]]]:
    engine = engine_of(url)
    with engine.connect() as connection:
        found = {
            table: [dict(row) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY 1")).mappings()]  # noqa: S608
            for table in inspect(engine).get_table_names()
            if table != "alembic_version"
        }
    engine.dispose()
    return found


def fill(url: str) -> None:
    """Bring the database to head, with rows in every table."""
    command.upgrade(alembic_config(url), "head")

    async def add_rows() -> None:
        database = Database(url)
        async with database.session() as session:
            user = await users.create(session, UserCreate(email="ada@example.com"))
            new = ApiKeyCreate(name="laptop", scopes=[], user_id=user.id)
            key, _ = await api_keys.create(session, make_settings(), new, actor=None)
            session.add(ApiKeyUsage(key_id=key.id, start=key.created_at, requests=3))
        await database.dispose()

    asyncio.run(add_rows())


def test_the_migrations_say_what_the_models_say(database_url: str) -> None:
    command.check(alembic_config(database_url))


def test_every_migration_goes_up_down_and_up_again(url: str) -> None:
    config = alembic_config(url)
    for script in reversed([*ScriptDirectory.from_config(config).walk_revisions()]):
        before = schema(url)
        command.upgrade(config, script.revision)
        after = schema(url)
        command.downgrade(config, "-1")
        assert schema(url) == before
        command.upgrade(config, script.revision)
        assert schema(url) == after


def test_rows_outlive_a_change_of_the_table_that_they_belong_to(url: str, tmp_path: Path) -> None:
    config = alembic_config(url)
    fill(url)
    before = rows(url)
    assert all(before.values())
    head = ScriptDirectory.from_config(config).get_current_head()
    (tmp_path / "another.py").write_text(ANOTHER_REVISION.format(head=head))
    config.set_main_option("version_locations", f"{ROOT / 'migrations' / 'versions'}:{tmp_path}")
    command.upgrade(config, "another")
    assert [{**row, "nickname": "none"} for row in before["users"]] == rows(url)["users"]
    assert rows(url) | {"users": []} == before | {"users": []}
    command.downgrade(config, "-1")
    assert rows(url) == before


def test_a_migration_that_leaves_rows_that_point_nowhere_is_undone(url: str, tmp_path: Path) -> None:
    config = alembic_config(url)
    fill(url)
    before = rows(url)
    head = ScriptDirectory.from_config(config).get_current_head()
    broken = ANOTHER_REVISION.format(head=head) + BREAKS
    (tmp_path / "another.py").write_text(broken)
    config.set_main_option("version_locations", f"{ROOT / 'migrations' / 'versions'}:{tmp_path}")
    if url.startswith("sqlite"):
        with pytest.raises(RuntimeError, match="point nowhere"):
            command.upgrade(config, "another")
        assert rows(url) == before
    else:
        command.upgrade(config, "another")
        assert not rows(url)["user_api_keys"]  # PostgreSQL looks after its foreign keys itself: it cascades


def test_two_instances_may_migrate_at_once(url: str) -> None:
    environment = {"DATABASE_URL": url, "API_KEY_PEPPERS": f"1:{PEPPER}", "API_KEY_PREFIX": "acme"}
    instances = [
        subprocess.Popen(
            [sys.executable, "-m", "alembic", "upgrade", "head"], cwd=ROOT, env=environment, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    outputs = [(instance.communicate()[1], instance.returncode) for instance in instances]
    assert [code for _, code in outputs] == [0, 0], outputs
    command.check(alembic_config(url))
