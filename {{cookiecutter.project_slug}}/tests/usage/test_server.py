import asyncio
import time

from sqlmodel import func, select

from app.core.database import Database
from app.usage.models import ApiKeyUsage
from tests.conftest import MakeDatabase
from tests.test_server import create_admin_key, running


def count_requests(database_url: str) -> int:
    async def count() -> int:
        database = Database(database_url)
        [[total]] = await database.fetch_all(select(func.sum(ApiKeyUsage.requests)))
        await database.dispose()
        return int(total)

    return asyncio.run(count())


def test_a_crash_loses_the_counts_since_the_last_flush_and_counts_nothing_twice(
    make_database: MakeDatabase,
) -> None:
    url = make_database()
    api_key = create_admin_key(url)
    with running(url, api_key=api_key, USAGE_FLUSH_SECONDS="0.5") as (server, process):
        sent = flushed = 0
        deadline = time.monotonic() + 30
        while flushed < 20 and time.monotonic() < deadline:
            flushed = server.get("/v1/api-keys/current/usage").json()["total"]
            sent += 1
        process.kill()
        process.wait(timeout=30)
    assert 20 <= flushed <= count_requests(url) <= sent


def test_shutdown_writes_the_last_counts(make_database: MakeDatabase) -> None:
    url = make_database()
    api_key = create_admin_key(url)
    with running(url, api_key=api_key, USAGE_FLUSH_SECONDS="3600") as (server, _):
        for _ in range(3):
            server.get("/v1/users/me")
    assert count_requests(url) == 3
