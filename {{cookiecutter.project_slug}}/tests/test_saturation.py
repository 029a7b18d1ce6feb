"""While slow requests use all connections of sessions, the rest of the app still works."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth import cache
from app.auth.dependencies import CurrentCaller
from app.core.database import SESSION_CONNECTIONS, Database, Rows, SessionDep
from app.settings import Settings
from tests.conftest import AsUser, MakeDatabase, make_settings

REQUESTS = 64


class CountingDatabase(Database):
    is_saturated = False
    reads = 0  # of the audit log

    async def fetch_all(
        self,
        query: Executable,
        parameters: Mapping[str, object] | None = None,
        *,
        is_check: bool = False,
    ) -> Rows:
        if self.is_saturated:
            assert is_check, "this would wait for key lookups"
        rows = await super().fetch_all(query, parameters, is_check=is_check)
        self.reads += "audit_events" in str(query)
        return rows


@pytest.fixture
def settings(make_database: MakeDatabase) -> Settings:
    return make_settings(database_url=make_database(), api_key_cache_seconds=10)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[CountingDatabase]:
    database = CountingDatabase(settings.database_url)
    yield database
    await database.dispose()


async def test_slow_requests_delay_neither_readiness_nor_authentication(
    app: FastAPI,
    client: AsyncClient,
    as_user: AsUser,
    database: CountingDatabase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache, "TRUST_SECONDS", 60)  # a slow machine must not look up the key
    monkeypatch.setattr(cache, "READ_SECONDS", 0)
    finish = asyncio.Event()
    held: list[AsyncConnection] = []

    @app.get("/v1/slow")
    async def slow(_: CurrentCaller, session: SessionDep) -> None:
        held.append(await session.connection())
        await finish.wait()

    @app.get("/v1/quick")
    async def quick(caller: CurrentCaller) -> str:
        return caller.key_id

    me = await as_user()
    await me.get("/v1/quick")
    database.is_saturated = True
    requests = [asyncio.create_task(me.get("/v1/slow")) for _ in range(REQUESTS)]
    async with asyncio.timeout(4):
        while len(held) < SESSION_CONNECTIONS or database.reads < 3:
            assert (await client.get("/health/ready")).status_code == 200
            assert (await me.get("/v1/quick")).json() == me.key.id
            await asyncio.sleep(0.01)
    assert not any(request.done() for request in requests)
    finish.set()
    responses = await asyncio.gather(*requests)
    assert [response.status_code for response in responses] == [200] * REQUESTS
    async with app.state.verifier.cache.running():
        pass  # the last read of the audit log ends before the database is closed
