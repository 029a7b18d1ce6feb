import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys.models import UserApiKey
from app.core.database import Database
from app.core.middleware import FinishedRequest
from app.core.retention import purge
from app.main import create_app
from app.settings import Settings
from app.usage import recorder as recorder_module
from app.usage import service
from app.usage.models import ApiKeyUsage, ApiKeyUsageDay, Counts
from app.usage.recorder import UsageRecorder
from app.usage.settings import UsageSettings
from tests.conftest import AsUser, ChangeKey

ME = "/v1/users/me"
NOON = datetime(2030, 1, 2, 12, 30, tzinfo=UTC)


def test_the_limits_have_their_values() -> None:
    assert (recorder_module.MAX_COUNTERS, recorder_module.SHUTDOWN_SECONDS) == (100_000, 5)
    assert recorder_module.CHUNK == {"postgresql": 1000, "sqlite": 100}
    assert (service.MAX_BUCKETS, service.MAX_TOTAL_BUCKETS) == (1000, 100)


def finished(key_id: str | None, status: int = 200) -> FinishedRequest:
    return FinishedRequest({}, status, 0.01, key_id, None, key_id is not None, None)


async def counts(
    database: Database, model: type[Counts] = ApiKeyUsage
) -> list[tuple[str, datetime, int, int]]:
    async with database.session() as session:
        rows = (await session.exec(select(model).order_by(col(model.start)))).all()
    return [(row.key_id, row.start, row.requests, row.errors) for row in rows]


async def test_each_authenticated_request_is_counted_once(
    app: FastAPI, database: Database, as_user: AsUser, change_key: ChangeKey
) -> None:
    with time_machine.travel(NOON, tick=False):
        me = await as_user()
        await me.get(ME)
        await me.get("/v1/users")  # 403
        await me.get(ME, headers={"Authorization": f"Bearer {me.api_key[:-1]}!"})  # 401
        networks, revoked = await as_user(), await as_user()
        await change_key(networks.key, allowed_cidrs=["192.0.2.0/24"])
        await change_key(revoked.key, revoked_at=NOON)
        await networks.get(ME)  # 403
        await revoked.get(ME)  # 401
        await app.state.usage.flush()
        assert await counts(database) == [(me.key.id, NOON.replace(minute=0), 2, 1)]
        await me.get("/v1/users")  # 403
        for _ in range(2):
            await app.state.usage.flush()
        assert await counts(database) == [(me.key.id, NOON.replace(minute=0), 3, 2)]
        day = NOON.replace(hour=0, minute=0)
        assert await counts(database, ApiKeyUsageDay) == [(me.key.id, day, 3, 2)]


@pytest.mark.parametrize("settings", [{"rate_limit": "1/minute"}], indirect=True)
async def test_requests_over_the_rate_limit_are_counted_as_errors(
    app: FastAPI, database: Database, as_user: AsUser
) -> None:
    me = await as_user()
    assert [(await me.get(ME)).status_code for _ in range(3)] == [200, 429, 429]
    await app.state.usage.flush()
    assert (await counts(database))[0][2:] == (3, 2)


async def test_requests_during_a_flush_are_counted_once(
    database: Database, as_user: AsUser
) -> None:
    me = await as_user()
    recorder = UsageRecorder(UsageSettings(), database)

    async def record() -> None:
        for _ in range(1000):
            recorder.record(finished(me.key.id))
            await asyncio.sleep(0)

    async def flush() -> None:
        for _ in range(20):
            await recorder.flush()

    with time_machine.travel(NOON, tick=False):
        await asyncio.gather(record(), flush())
        await recorder.flush()
    assert [row[2] for row in await counts(database)] == [1000]


async def test_hours_are_separate_and_last_used_at_only_moves_forward(
    database: Database, as_user: AsUser
) -> None:
    me = await as_user()
    recorder = UsageRecorder(UsageSettings(), database)
    for hours in (0, 1, 1):
        with time_machine.travel(NOON + timedelta(hours=hours), tick=False):
            recorder.record(finished(me.key.id))
    await recorder.flush()
    assert [row[1:] for row in await counts(database)] == [
        (datetime(2030, 1, 2, 12, tzinfo=UTC), 1, 0),
        (datetime(2030, 1, 2, 13, tzinfo=UTC), 2, 0),
    ]
    assert [row[1:] for row in await counts(database, ApiKeyUsageDay)] == [
        (datetime(2030, 1, 2, tzinfo=UTC), 3, 0)
    ]
    with time_machine.travel(NOON, tick=False):  # another instance, whose flush was late
        recorder.record(finished(me.key.id))
    await recorder.flush()
    last_used = col(UserApiKey.last_used_at) == NOON + timedelta(hours=1)
    async with database.session() as session:
        key = (await session.exec(select(UserApiKey).where(last_used))).one()
    assert key.updated_at == me.key.updated_at


async def test_a_late_flush_leaves_a_revoked_key_revoked(
    app: FastAPI, as_user: AsUser, database: Database
) -> None:
    me = await as_user()
    assert (await me.delete("/v1/api-keys/current")).status_code == 204
    await app.state.usage.flush()
    assert (await me.get(ME)).json()["code"] == "api_key_revoked"
    async with database.session() as session:
        assert (await session.get_one(UserApiKey, me.key.id)).last_used_at is not None


async def test_counts_of_deleted_keys_are_dropped(database: Database, as_user: AsUser) -> None:
    me = await as_user()
    recorder = UsageRecorder(UsageSettings(), database)
    for key_ids in (["0" * 16], [me.key.id, "0" * 16, None]):
        for key_id in key_ids:
            recorder.record(finished(key_id))
        await recorder.flush()
    assert [(row[0], row[2]) for row in await counts(database)] == [(me.key.id, 1)]


class Failing(Database):
    """Waits, then fails before the commit or while committing, unless `fails` is None.

    The first `working_sessions` sessions work.
    """

    def __init__(
        self,
        working: Database,
        fails: str | None = None,
        seconds: float = 0,
        working_sessions: int = 0,
    ) -> None:
        self.working = working
        self.engine = working.engine
        self.fails = fails
        self.seconds = seconds
        self.working_sessions = working_sessions
        self.is_in_use = asyncio.Event()

    @asynccontextmanager
    async def session(self, *, read_only: bool = False) -> AsyncIterator[AsyncSession]:
        self.is_in_use.set()
        await asyncio.sleep(self.seconds)
        self.working_sessions -= 1
        fails = self.fails if self.working_sessions < 0 else None
        if fails == "before":
            raise OperationalError("INSERT", {}, Exception("gone"))
        async with self.working.session() as session:
            yield session
        if fails == "while":
            raise OperationalError("COMMIT", {}, Exception("gone"))


async def test_while_the_database_is_down_counts_are_kept_up_to_a_maximum(
    database: Database,
    as_user: AsUser,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not hasattr(service.Counter(), "__dict__")  # which would be larger
    monkeypatch.setattr(recorder_module, "MAX_COUNTERS", 2)
    clients = [await as_user() for _ in range(3)]
    failing = Failing(database, "before")
    recorder = UsageRecorder(UsageSettings(), failing)

    async def record() -> None:
        for client in clients:
            recorder.record(finished(client.key.id))

    with time_machine.travel(NOON, tick=False):
        for _ in range(2):
            await asyncio.gather(recorder.flush(), record())
        failing.fails = None
        await recorder.flush()
    expected = {(client.key.id, NOON.replace(minute=0), 2, 0) for client in clients[:2]}
    assert {*await counts(database)} == expected
    assert [one.levelname for one in caplog.records] == ["ERROR", "WARNING", "ERROR"]


async def test_hours_older_than_the_retention_are_deleted(
    settings: Settings, database: Database, as_user: AsUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USAGE_RETENTION_DAYS", "7")
    me = await as_user()
    app = create_app(settings, database)
    hours = [NOON.replace(minute=0) - timedelta(hours=hours) for hours in (169, 168, 167, 0)]
    async with database.session() as session:
        for model in (ApiKeyUsage, ApiKeyUsageDay):
            session.add_all(
                model(key_id=me.key.id, start=hour, requests=1, errors=0) for hour in hours
            )
    with time_machine.travel(NOON.replace(minute=0), tick=False):
        deleted = [step async for step in purge(database, app.state.retention)]
    assert deleted == [("usage", 1), ("usage_days", 1)]
    assert [row[1] for row in await counts(database)] == hours[1:]


@pytest.mark.parametrize("fails", ["before", "while"])
async def test_a_failure_in_the_middle_keeps_the_counts_that_are_not_written(
    database: Database,
    as_user: AsUser,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fails: str,
) -> None:
    monkeypatch.setattr(recorder_module, "CHUNK", {"postgresql": 1, "sqlite": 1})
    clients = [await as_user() for _ in range(5)]
    failing = Failing(database, fails, working_sessions=2)
    recorder = UsageRecorder(UsageSettings(), failing)
    for client in clients:
        recorder.record(finished(client.key.id))
    await recorder.flush()
    assert len(await counts(database)) == 2 + (fails == "while")
    assert ("1 requests may not be counted" in caplog.text) == (fails == "while")
    failing.fails = None
    await recorder.flush()
    assert [row[2] for row in await counts(database)] == [1] * 5


async def test_a_flush_gives_other_writers_of_sqlite_a_chance_between_its_transactions(
    database: Database,
    as_user: AsUser,
    monkeypatch: pytest.MonkeyPatch,
    pauses: list[float],
) -> None:
    monkeypatch.setattr(recorder_module, "CHUNK", {"postgresql": 1, "sqlite": 1})
    recorder = UsageRecorder(UsageSettings(), database)
    for client in [await as_user() for _ in range(3)]:
        recorder.record(finished(client.key.id))
    await recorder.flush()
    assert pauses == [0.01 if database.engine.dialect.name == "sqlite" else 0] * 3


async def test_the_recorder_survives_an_unexpected_error(
    database: Database,
    as_user: AsUser,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("USAGE_FLUSH_SECONDS", "0.01")
    me = await as_user()
    recorder = UsageRecorder(UsageSettings(), database)
    failed = asyncio.Event()

    async def fail(*_: object) -> None:
        failed.set()
        raise LookupError("unexpected")

    with monkeypatch.context() as broken:
        broken.setattr(service, "add", fail)
        async with recorder.running():
            recorder.record(finished(me.key.id))
            await asyncio.wait_for(failed.wait(), 4)
            broken.undo()
    assert [row[2] for row in await counts(database)] == [1]
    assert "LookupError: unexpected" in caplog.text


async def test_counts_are_flushed_every_few_seconds_and_at_shutdown(
    settings: Settings, database: Database, as_user: AsUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USAGE_FLUSH_SECONDS", "0.01")
    me = await as_user()
    slow = Failing(database, seconds=0.05)
    recorder: UsageRecorder = create_app(settings, slow).state.usage
    with time_machine.travel(NOON, tick=False):
        async with recorder.running():
            recorder.record(finished(me.key.id))
            await asyncio.wait_for(slow.is_in_use.wait(), 4)
            recorder.record(finished(me.key.id))  # during the first flush
    assert [row[2] for row in await counts(database)] == [2]


async def test_counts_are_flushed_when_an_error_ends_the_process(
    app: FastAPI, database: Database, as_user: AsUser
) -> None:
    me = await as_user()
    recorder: UsageRecorder = app.state.usage
    with time_machine.travel(NOON, tick=False), suppress(LookupError):
        async with recorder.running():
            recorder.record(finished(me.key.id))
            raise LookupError
    assert [row[2] for row in await counts(database)] == [1]


async def test_an_idle_process_does_not_use_the_database(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USAGE_FLUSH_SECONDS", "0.01")
    unused = Failing(database)
    async with UsageRecorder(UsageSettings(), unused).running():
        await asyncio.sleep(0.05)
    assert not unused.is_in_use.is_set()


async def test_shutdown_does_not_wait_for_a_frozen_database(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder_module, "SHUTDOWN_SECONDS", 0.05)
    recorder = UsageRecorder(UsageSettings(), Failing(database, seconds=3600))
    async with asyncio.timeout(5), recorder.running():
        recorder.record(finished("key"))
    assert [one.levelname for one in caplog.records] == ["ERROR"]
