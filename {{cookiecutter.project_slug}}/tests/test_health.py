import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from alembic.script import ScriptDirectory
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database import Database
from app.health import builds_on, older_revisions
from app.main import create_app
from tests.conftest import MakeDatabase, alembic_config, make_settings


async def test_live_asks_nothing_of_the_database() -> None:
    app = create_app(make_settings(database_url="postgresql://127.0.0.1:1/nowhere"))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/health/live")).json() == {"status": "ok"}


async def test_ready_while_the_database_is_at_head(client: AsyncClient) -> None:
    response = await client.get("/health/ready")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def detail_of_503(app: FastAPI) -> str:
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        response = await client.get("/health/ready")
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    return str(response.json()["detail"])


async def set_revision(database: Database, revision: str) -> None:
    async with database.session() as session:
        statement = text("UPDATE alembic_version SET version_num = :revision")
        await (await session.connection()).execute(statement, {"revision": revision})


async def test_not_ready_while_a_migration_is_missing(
    app: FastAPI, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.health.older_revisions", lambda: {"older"})
    await set_revision(database, "older")
    assert "alembic upgrade head" in await detail_of_503(app)


def test_older_revisions_are_all_that_alembic_knows_but_its_head() -> None:
    scripts = ScriptDirectory.from_config(alembic_config(""))
    known = {script.revision for script in scripts.walk_revisions()}
    assert older_revisions() == known - {scripts.get_current_head()} | {None}


@pytest.mark.parametrize(
    ("line", "revisions"),
    [
        ("down_revision = None", []),
        ('down_revision: str | None = "0a1b"', ["0a1b"]),
        ("down_revision = ('0a1b', '2c3d')", ["0a1b", "2c3d"]),
    ],
)
def test_a_migration_says_what_it_builds_on(line: str, revisions: list[str]) -> None:
    assert builds_on(f'"""add items"""\n\nrevision = "4e5f"\n{line}\nbranch_labels = None\n') == revisions


async def test_still_ready_when_the_next_version_has_migrated(client: AsyncClient, database: Database) -> None:
    await set_revision(database, "newer")
    assert (await client.get("/health/ready")).status_code == 200


async def test_not_ready_on_an_empty_database(make_database: MakeDatabase) -> None:
    app = create_app(make_settings(database_url=make_database(migrated=False)))
    assert "alembic upgrade head" in await detail_of_503(app)
    await app.state.database.dispose()


async def test_not_ready_while_the_database_is_away() -> None:
    app = create_app(make_settings(database_url="postgresql://127.0.0.1:1/nowhere"))
    assert await detail_of_503(app) == "The database does not answer."


async def test_not_ready_while_the_database_hangs(app: FastAPI) -> None:
    class Frozen(Database):
        def __init__(self) -> None:
            pass

        @asynccontextmanager
        async def connection(self) -> AsyncIterator[AsyncConnection]:
            await asyncio.Event().wait()
            raise AssertionError
            yield

    app.state.database = Frozen()
    assert await detail_of_503(app) == "The database does not answer."


async def test_not_ready_while_the_pool_is_exhausted(app: FastAPI) -> None:
    class Exhausted(Database):
        def __init__(self) -> None:
            pass

        @asynccontextmanager
        async def connection(self) -> AsyncIterator[AsyncConnection]:
            raise PoolTimeout
            yield

    app.state.database = Exhausted()
    assert await detail_of_503(app) == "The database does not answer."
