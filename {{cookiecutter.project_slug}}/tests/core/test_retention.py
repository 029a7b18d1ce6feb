import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import time_machine
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError
from sqlmodel import col, select

from app.api_keys.models import UserApiKey
from app.audit.models import AuditEvent
from app.core import retention
from app.core.database import Database
from app.core.errors import Conflict
from app.core.retention import TRY_LOCK, Retention, purge, purge_daily
from tests.conftest import AsUser, ChangeKey, MakeDatabase

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
DAYS = {"api_key_retention_days": 30, "audit_retention_days": 30}
EVENTS = Retention("audit_events", AuditEvent, "created_at", 30)
AT_LIMIT = NOW - timedelta(days=30)
OLD = AT_LIMIT - timedelta(microseconds=1)


async def add_events(database: Database, *moments: datetime) -> None:
    async with database.session() as session:
        session.add_all(
            AuditEvent(
                created_at=moment,
                action="user.updated",
                target_user_id=UUID(int=1),
                changes={},
                changes_rights=False,
            )
            for moment in moments
        )


async def moments_of_events(database: Database) -> list[datetime]:
    async with database.session(read_only=True) as session:
        events = select(AuditEvent.created_at).where(AuditEvent.target_user_id == UUID(int=1))
        return [*await session.exec(events.order_by(col(AuditEvent.created_at)))]


def dialect_of(database: Database) -> str:
    return database.engine.dialect.name


async def purge_at(now: datetime, database: Database, *retentions: Retention) -> dict[str, int]:
    deleted: dict[str, int] = {}
    with time_machine.travel(now, tick=False):
        async for name, number in purge(database, retentions):
            deleted[name] = deleted.get(name, 0) + number
    return deleted


@pytest.fixture
def url(make_database: MakeDatabase) -> str:
    return make_database()


@pytest.fixture
async def committed(url: str) -> AsyncIterator[Database]:
    """A database whose transactions are committed."""
    database = Database(url)
    yield database
    await database.dispose()


@pytest.mark.parametrize("settings", [DAYS], indirect=True)
async def test_keys_that_have_been_revoked_or_expired_for_long_are_deleted(
    app: FastAPI, as_user: AsUser, change_key: ChangeKey, database: Database
) -> None:
    with time_machine.travel(NOW, tick=False):
        me = await as_user()
        keys = [(await as_user(user=me.user)).key for _ in range(6)]
    endings: dict[str, dict[str, object]] = {
        "expired": {"expires_at": OLD},
        "revoked": {"expires_at": None, "revoked_at": OLD},
        "both": {"expires_at": OLD, "revoked_at": NOW},
        "expired later": {"expires_at": AT_LIMIT},
        "revoked later": {"expires_at": None, "revoked_at": AT_LIMIT},
        "working": {"expires_at": None},
    }
    for key, (name, changes) in zip(keys, endings.items(), strict=True):
        await change_key(key, name=name, **changes)
    assert (await purge_at(NOW, database, *app.state.retention))["api_keys"] == 3
    async with database.session() as session:
        names = await session.exec(select(UserApiKey.name).where(UserApiKey.user_id == me.user.id))
        assert {*names} == {"a key", "expired later", "revoked later", "working"}


@pytest.mark.parametrize("settings", [DAYS, {}], indirect=True)
async def test_old_audit_events_are_deleted_if_a_setting_says_so(
    app: FastAPI, database: Database
) -> None:
    await add_events(database, OLD, AT_LIMIT)
    await purge_at(NOW, database, *app.state.retention)
    days = app.state.settings.audit_retention_days
    assert await moments_of_events(database) == ([AT_LIMIT] if days else [OLD, AT_LIMIT])


async def test_rows_are_deleted_in_short_transactions(
    committed: Database, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setattr(retention, "utc_now", lambda: NOW)
    await add_events(committed, OLD, *[OLD - timedelta(days=1)] * 4, AT_LIMIT)
    left = []
    async for name, number in purge(committed, [EVENTS._replace(chunk=2)]):
        left.append((name, number, len(await moments_of_events(committed))))
    assert left == [("audit_events", 2, 4), ("audit_events", 2, 2), ("audit_events", 1, 1)]
    assert pauses == [0.02] * 3  # for the other writers of SQLite


async def test_only_one_process_deletes_at_a_time(
    committed: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_events(committed, OLD)
    with monkeypatch.context() as locked:
        locked.setitem(TRY_LOCK, "sqlite", "SELECT false")  # as if SQLite had this lock
        async with committed.session(read_only=True) as other:
            await (await other.connection()).exec_driver_sql(TRY_LOCK[dialect_of(committed)])
            with pytest.raises(Conflict):
                await purge_at(NOW, committed, EVENTS)
    assert await purge_at(NOW, committed, EVENTS) == {"audit_events": 1}


async def test_locked_rows_are_left_for_the_next_day(committed: Database) -> None:
    if dialect_of(committed) == "sqlite":
        pytest.skip("SQLite does not lock rows.")
    await add_events(committed, OLD, OLD)
    async with committed.session() as other:
        await other.exec(select(AuditEvent.id).limit(1).with_for_update())
        assert await purge_at(NOW, committed, EVENTS) == {"audit_events": 1}
    assert await purge_at(NOW, committed, EVENTS) == {"audit_events": 1}


FAILURES = [None, Conflict(), OperationalError("DELETE", {}, Exception("gone")), LookupError()]


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
async def test_rows_are_deleted_at_every_midnight_whatever_happens(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: Exception | None,
) -> None:
    purged = 0
    twice = asyncio.Event()

    async def count(*_: object) -> AsyncIterator[tuple[str, int]]:
        nonlocal purged
        purged += 1
        if purged == 2:
            twice.set()
        if failure:
            raise failure
        yield "usage", 1

    monkeypatch.setattr(retention, "purge", count)
    async with purge_daily(database, []):
        await asyncio.sleep(0.01)
        assert purged == 0  # not at the start
    monkeypatch.setattr(retention, "seconds_until_midnight", lambda: 0.01)
    async with purge_daily(database, []):
        await asyncio.wait_for(twice.wait(), 4)
    assert ("{'usage': 1}" in caplog.text) is (failure is None)
    is_logged = "old rows were not deleted" in caplog.text
    assert is_logged is not (failure is None or isinstance(failure, Conflict))


async def test_the_app_deletes_the_old_rows_of_all_features(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: asyncio.Future[object] = asyncio.Future()

    async def report(_: Database, retentions: object) -> AsyncIterator[tuple[str, int]]:
        if not found.done():
            found.set_result(retentions)
        yield "usage", 1

    monkeypatch.setattr(retention, "purge", report)
    monkeypatch.setattr(retention, "seconds_until_midnight", lambda: 0.01)
    async with app.router.lifespan_context(app):
        assert await asyncio.wait_for(found, 4) is app.state.retention


async def test_a_shutdown_waits_for_one_transaction_only(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = asyncio.Event()

    async def delete_forever(*_: object) -> AsyncIterator[tuple[str, int]]:
        while True:
            started.set()
            yield "usage", 1
            await asyncio.sleep(0.01)

    monkeypatch.setattr(retention, "purge", delete_forever)
    monkeypatch.setattr(retention, "SHUTDOWN_SECONDS", 60)
    monkeypatch.setattr(retention, "seconds_until_midnight", lambda: 0)
    async with asyncio.timeout(5), purge_daily(database, []):
        await started.wait()


def test_midnight_is_in_utc() -> None:
    with time_machine.travel(NOW + timedelta(seconds=0.5), tick=False):
        assert retention.seconds_until_midnight() == 12 * 3600 - 0.5
