import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy.exc import OperationalError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys.dependencies import CurrentCaller
from app.api_keys.models import UserApiKey
from app.database import Database
from app.usage import recorder as recorder_module
from app.usage.models import ApiKeyUsage
from app.usage.recorder import UsageRecorder
from tests.conftest import AsUser, ChangeKey, make_settings

ME = "/v1/users/me"
NOON = datetime(2030, 1, 2, 12, 30, tzinfo=UTC)


async def counted(database: Database) -> list[tuple[str, datetime, bool, int, int]]:
    async with database.session() as session:
        rows = (await session.exec(select(ApiKeyUsage).order_by(col(ApiKeyUsage.start)))).all()
    return [(row.key_id, row.start, row.is_day, row.requests, row.errors) for row in rows]


async def test_every_authenticated_request_is_counted_once_with_errors_apart(
    app: FastAPI, database: Database, as_user: AsUser
) -> None:
    me = await as_user()
    await me.get(ME)
    await me.get("/v1/users")  # 403
    await me.get(ME, headers={"Authorization": f"Bearer {me.api_key[:-1]}!"})  # 401: nobody's
    await app.state.usage.flush()
    (row,) = await counted(database)
    assert (row[0], *row[2:]) == (me.key.id, False, 2, 1)
    await me.get(ME)
    await app.state.usage.flush()
    await app.state.usage.flush()
    assert (await counted(database))[0][3:] == (3, 1)


@pytest.mark.parametrize("settings", [{"rate_limit": "1/minute"}], indirect=True)
async def test_what_the_limit_refuses_is_counted_as_an_error(app: FastAPI, database: Database, as_user: AsUser) -> None:
    me = await as_user()
    assert [(await me.get(ME)).status_code for _ in range(3)] == [200, 429, 429]
    await app.state.usage.flush()
    assert (await counted(database))[0][3:] == (3, 2)


@pytest.mark.parametrize("settings", [{"usage_flush_seconds": 0.1}], indirect=True)
async def test_a_thousand_requests_at_once_are_a_thousand(
    app: FastAPI, database: Database, no_auth: AsyncClient
) -> None:
    @app.get("/v1/ping")
    async def ping(caller: CurrentCaller) -> str:
        await asyncio.sleep(0.01)
        return caller.key_id

    async with app.state.usage.running():  # flushes all the while
        responses = await asyncio.gather(*(no_auth.get("/v1/ping") for _ in range(1000)))
    key_id = responses[0].json()
    assert [(row[0], *row[3:]) for row in await counted(database)] == [(key_id, 1000, 0)]


async def test_hours_are_counted_apart_and_last_used_moves_forward(database: Database, as_user: AsUser) -> None:
    me = await as_user()
    recorder = UsageRecorder(make_settings(), database)
    for hours in (0, 1, 1):
        with time_machine.travel(NOON + timedelta(hours=hours), tick=False):
            recorder.record(me.key.id, error=False)
    await recorder.flush()
    assert [row[1:] for row in await counted(database)] == [
        (datetime(2030, 1, 2, 12, tzinfo=UTC), False, 1, 0),
        (datetime(2030, 1, 2, 13, tzinfo=UTC), False, 2, 0),
    ]
    with time_machine.travel(NOON, tick=False):  # another instance, that flushes late
        recorder.record(me.key.id, error=False)
    await recorder.flush()
    async with database.session() as session:
        key = await session.get_one(UserApiKey, me.key.id)
        assert key.last_used_at == NOON + timedelta(hours=1)
        assert key.updated_at == me.key.updated_at


async def test_a_late_write_revives_no_revoked_key(
    app: FastAPI, as_user: AsUser, change_key: ChangeKey, database: Database
) -> None:
    me = await as_user()
    await me.get(ME)
    assert (await me.delete("/v1/api-keys/current")).status_code == 204
    await app.state.usage.flush()
    assert (await me.get(ME)).json()["code"] == "api_key_revoked"
    async with database.session() as session:
        assert (await session.get_one(UserApiKey, me.key.id)).last_used_at is not None


async def test_counts_of_a_key_that_was_deleted_are_dropped(database: Database, as_user: AsUser) -> None:
    me = await as_user()
    recorder = UsageRecorder(make_settings(), database)
    recorder.record("0000000000000000", error=False)
    await recorder.flush()
    assert await counted(database) == []
    recorder.record(me.key.id, error=False)
    recorder.record("0000000000000000", error=False)
    await recorder.flush()
    assert [row[0] for row in await counted(database)] == [me.key.id]


class Flaky(Database):
    """Fails until it is told to work: before the commit, or, worse, while committing."""

    def __init__(self, working: Database) -> None:
        self.working = working
        self.fails: str | None = "before"

    @asynccontextmanager
    async def session(self, *, read_only: bool = False) -> AsyncIterator[AsyncSession]:
        if self.fails == "before":
            raise OperationalError("INSERT", {}, Exception("gone"))
        async with self.working.session() as session:
            yield session
        if self.fails == "after":
            raise OperationalError("COMMIT", {}, Exception("gone"))


async def test_while_the_database_is_away_counts_are_kept_as_far_as_they_fit(
    database: Database, as_user: AsUser, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "MOST_COUNTERS", 2)
    one, two, three = await as_user(), await as_user(), await as_user()
    flaky = Flaky(database)
    recorder = UsageRecorder(make_settings(), flaky)
    for _ in range(2):
        for who in (one, two, three):
            recorder.record(who.key.id, error=False)
        await recorder.flush()
    assert "the database took no counts" in caplog.text
    assert "1 requests were not counted" in caplog.text
    flaky.fails = None
    await recorder.flush()
    assert sorted((row[0], row[3]) for row in await counted(database)) == sorted(((one.key.id, 2), (two.key.id, 2)))


async def test_a_commit_that_may_have_worked_is_not_tried_again(
    database: Database, as_user: AsUser, caplog: pytest.LogCaptureFixture
) -> None:
    me = await as_user()
    flaky = Flaky(database)
    flaky.fails = "after"
    recorder = UsageRecorder(make_settings(), flaky)
    recorder.record(me.key.id, error=False)
    await recorder.flush()
    assert "1 requests may not be counted" in caplog.text
    flaky.fails = None
    await recorder.flush()
    assert [row[3] for row in await counted(database)] == [1]


async def test_old_hours_are_folded_into_days(database: Database, as_user: AsUser) -> None:
    me = await as_user()
    recorder = UsageRecorder(make_settings(usage_retention_days=7), database)
    for hours in (-24 * 8, -24 * 8 + 1, -24 * 6, 0):
        with time_machine.travel(NOON + timedelta(hours=hours), tick=False):
            recorder.record(me.key.id, error=hours < -24 * 7)
            await recorder.flush()
    for _ in range(2):
        with time_machine.travel(NOON, tick=False):
            await recorder.fold()
    assert [row[1:] for row in await counted(database)] == [
        (datetime(2029, 12, 25, tzinfo=UTC), True, 2, 2),
        (datetime(2029, 12, 27, 12, tzinfo=UTC), False, 1, 0),
        (datetime(2030, 1, 2, 12, tzinfo=UTC), False, 1, 0),
    ]


async def test_folding_waits_for_a_database_that_is_away(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    await UsageRecorder(make_settings(), Flaky(database)).fold()
    assert "could not be folded" in caplog.text


async def test_the_end_of_the_app_flushes(database: Database, as_user: AsUser) -> None:
    me = await as_user()
    recorder = UsageRecorder(make_settings(usage_flush_seconds=3600), database)
    async with recorder.running():
        recorder.record(me.key.id, error=False)
    assert len(await counted(database)) == 1


class Frozen(Database):
    """Never answers."""

    def __init__(self) -> None:
        pass

    @asynccontextmanager
    async def session(self, *, read_only: bool = False) -> AsyncIterator[AsyncSession]:
        await asyncio.Event().wait()
        raise AssertionError
        yield


async def test_the_end_of_the_app_does_not_wait_for_a_database_that_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder_module, "SHUTDOWN_SECONDS", 0.05)
    recorder = UsageRecorder(make_settings(usage_flush_seconds=3600), Frozen())
    async with recorder.running():
        recorder.record("key", error=False)
    assert "what was counted last is lost" in caplog.text
