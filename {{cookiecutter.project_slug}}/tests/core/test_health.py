import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.core import health
from app.core.database import Database
from app.core.postgresql import NEEDS_POOLER
from app.main import create_app
from tests.conftest import MakeDatabase, make_settings

NO_SERVER = make_settings(database_url="postgresql://127.0.0.1:1/nowhere")


async def test_liveness_does_not_depend_on_the_database() -> None:
    transport = ASGITransport(create_app(NO_SERVER))
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/health/live")).json() == {"status": "ok"}


async def test_ready_while_the_database_is_migrated(client: AsyncClient) -> None:
    response = await client.get("/health/ready")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_the_readiness_probe_queries_the_database_ten_times_a_second_at_most(
    app: FastAPI, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Mock(monotonic=Mock(return_value=1000.0))
    monkeypatch.setattr(health, "time", clock)
    fetch_all = AsyncMock(wraps=app.state.database.fetch_all)
    monkeypatch.setattr(app.state.database, "fetch_all", fetch_all)
    for queries in (1, 2):
        responses = await asyncio.gather(*(client.get("/health/ready") for _ in range(50)))
        assert {response.status_code for response in responses} == {200}
        assert (await client.get("/health/ready")).status_code == 200
        assert fetch_all.await_count == queries
        clock.monotonic.return_value += 0.11


@pytest.fixture
def three_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "pyproject.toml").write_text("[tool.alembic]\nscript_location = '%(here)s'")
    (tmp_path / "versions").mkdir()
    for revision, previous in (("first", None), ("second", "first"), ("third", "second")):
        migration = f"revision = {revision!r}\ndown_revision = {previous!r}"
        (tmp_path / "versions" / f"{revision}.py").write_text(migration)
    monkeypatch.setattr(health, "ROOT", tmp_path)
    health.outdated_revisions.cache_clear()
    yield
    health.outdated_revisions.cache_clear()


@pytest.mark.usefixtures("three_migrations")
@pytest.mark.parametrize(
    ("revision", "status"),
    [("first", 503), ("second", 503), ("third", 200), ("of the next version", 200), (None, 503)],
)
async def test_ready_at_the_newest_revision_or_a_later_one(
    client: AsyncClient, database: Database, revision: str | None, status: int
) -> None:
    async with database.session() as session:
        connection = await session.connection()
        await connection.execute(text("DELETE FROM alembic_version"))
        if revision:
            insert = text("INSERT INTO alembic_version VALUES (:revision)")
            await connection.execute(insert, {"revision": revision})
    response = await client.get("/health/ready")
    assert response.status_code == status
    assert status == 200 or response.json()["detail"] == health.NOT_MIGRATED


async def problem_of(app: FastAPI) -> str:
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        response = await client.get("/health/ready")
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    return str(response.json()["detail"])


async def test_not_ready_while_the_database_is_empty(make_database: MakeDatabase) -> None:
    app = create_app(make_settings(database_url=make_database(migrated=False)))
    assert await problem_of(app) == "The database is not migrated. Run `alembic upgrade head`."
    await app.state.database.dispose()


async def test_not_ready_while_the_database_is_down() -> None:
    assert await problem_of(create_app(NO_SERVER)) == "The database does not respond."


async def never(*_: object, **__: object) -> None:
    await asyncio.Event().wait()


async def pool_timeout(*_: object, **__: object) -> None:
    raise PoolTimeout


# The checks have their own connections. They are all in use only while the database is frozen.
@pytest.mark.parametrize("fetch_all", [never, pool_timeout])
async def test_not_ready_while_the_database_is_frozen(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, fetch_all: Callable[..., Awaitable[None]]
) -> None:
    monkeypatch.setattr(health, "MAX_SECONDS", 0.01)
    monkeypatch.setattr(app.state.database, "fetch_all", fetch_all)
    assert await problem_of(app) == "The database does not respond."


async def test_a_cancelled_probe_does_not_cancel_the_others(app: FastAPI) -> None:
    readiness = app.state.readiness
    probes = [asyncio.create_task(readiness.find_problem()) for _ in range(2)]
    await asyncio.sleep(0)
    probes[0].cancel()
    assert await probes[1] is None


async def test_not_ready_behind_a_pooler_without_the_setting(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = OperationalError(None, None, Exception(NEEDS_POOLER))
    monkeypatch.setattr(app.state.database, "fetch_all", AsyncMock(side_effect=error))
    assert "DATABASE_POOLER" in await problem_of(app)
