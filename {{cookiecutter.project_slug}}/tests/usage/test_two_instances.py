import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlmodel import func, select

from app.core.database import Database
from app.core.middleware import FinishedRequest
from app.usage import recorder as recorder_module
from app.usage.models import ApiKeyUsage
from app.usage.recorder import UsageRecorder
from app.usage.settings import UsageSettings
from tests.conftest import AsUser, MakeDatabase


@pytest.fixture(scope="module")
def committed_url(make_database: MakeDatabase) -> str:
    return make_database()


@pytest.fixture
async def database(committed_url: str) -> AsyncIterator[Database]:
    """Replaces the database that rolls back, which has only one connection."""
    database = Database(committed_url)
    yield database
    await database.dispose()


async def test_two_instances_count_the_same_keys_exactly(
    as_user: AsUser, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "CHUNK", {"postgresql": 3, "sqlite": 3})
    key_ids = [(await as_user()).key.id for _ in range(10)]
    recorders = [UsageRecorder(UsageSettings(), database) for _ in range(2)]
    for _ in range(5):
        for recorder, order in zip(recorders, (key_ids, reversed(key_ids)), strict=True):
            for key_id in order:
                recorder.record(FinishedRequest({}, 200, 0.01, key_id, None, True, None))
        await asyncio.gather(*(recorder.flush() for recorder in recorders))
    async with database.session(read_only=True) as session:
        totals = select(func.sum(ApiKeyUsage.requests)).group_by(ApiKeyUsage.key_id)
        assert [int(total) for total in await session.exec(totals)] == [10] * 10
