import asyncio
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest
from fastapi import FastAPI
from sqlalchemy import event, literal, literal_column, text
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError, IntegrityError, InternalError, OperationalError, StatementError
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys import service as api_keys
from app.api_keys.models import UserApiKey
from app.api_keys.schemas import ApiKeyCreate
from app.database import Database, _write_ahead
from app.users import service as users
from app.users.models import User
from app.users.schemas import UserCreate
from tests.conftest import AsUser, make_settings


async def add_user(database: Database, email: str = "ada@example.com") -> User:
    async with database.session() as session:
        return await users.create(session, UserCreate(email=email))


async def add_key(database: Database, user: User) -> UserApiKey:
    async with database.session() as session:
        new = ApiKeyCreate(name="a key", scopes=[], user_id=user.id)
        return (await api_keys.create(session, make_settings(api_key_max_per_user=5), new, actor=None))[0]


async def test_times_come_back_in_utc(database: Database) -> None:
    user = await add_user(database)
    moment = datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    async with database.session() as session:
        await session.exec(update(User).where(col(User.id) == user.id).values(created_at=moment))
    async with database.session() as session:
        created_at = (await session.exec(select(User.created_at).where(User.id == user.id))).one()
    assert (created_at, created_at.tzinfo) == (datetime(2030, 1, 1, tzinfo=UTC), UTC)


async def test_a_naive_time_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="without a time zone"):
        async with database.session() as session:
            await session.exec(update(User).values(created_at=datetime(2030, 1, 1)))  # noqa: DTZ001 - the point


async def test_deleting_a_user_deletes_their_keys_in_the_session_and_in_the_database(database: Database) -> None:
    for through_session in (True, False):
        user = await add_user(database)
        key = await add_key(database, user)
        async with database.session() as session:
            if through_session:
                await session.delete(await session.get_one(User, user.id))
            else:
                connection = await session.connection()
                await connection.execute(text("DELETE FROM users WHERE email = 'ada@example.com'"))
        async with database.session() as session:
            assert await session.get(UserApiKey, key.id) is None


async def test_a_key_that_is_taken_from_its_user_is_deleted(database: Database) -> None:
    user = await add_user(database)
    key = await add_key(database, user)
    async with database.session() as session:
        owner = await session.get_one(User, user.id)
        await session.refresh(owner, ["api_keys"])
        assert [key.id for key in owner.api_keys] == [key.id]
        owner.api_keys.clear()
    async with database.session() as session:
        assert await session.get(UserApiKey, key.id) is None


async def test_a_key_without_a_user_is_refused_by_the_database(database: Database) -> None:
    user = await add_user(database)
    key = await add_key(database, user)
    with pytest.raises(IntegrityError):
        async with database.session() as session:
            await session.exec(update(UserApiKey).where(col(UserApiKey.id) == key.id).values(user_id=uuid4()))


async def test_an_error_of_the_database_does_not_show_the_values(database: Database) -> None:
    async with database.session() as session:
        connection = await session.connection()
        with pytest.raises(DBAPIError, match="nowhere") as error:
            await connection.execute(text("SELECT * FROM nowhere WHERE secret = :secret"), {"secret": "hunter2"})
        await session.rollback()
    assert "hunter2" not in str(error.value)


async def test_a_block_that_raises_commits_nothing(real_database: Database) -> None:
    async def fail() -> None:
        async with real_database.session() as session:
            await users.create(session, UserCreate(email="nobody@example.com"))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with real_database.session(read_only=True) as session:
        assert (await session.exec(select(User).where(User.email == "nobody@example.com"))).first() is None


@pytest.mark.parametrize("failure", [OperationalError, InternalError])  # disk full; read-only, on PostgreSQL
async def test_a_commit_that_fails_is_never_answered_with_success(
    app: FastAPI, as_user: AsUser, monkeypatch: pytest.MonkeyPatch, failure: type[DBAPIError]
) -> None:
    me = await as_user()

    async def fail(_: AsyncSession) -> None:
        raise failure("COMMIT", {}, Exception("refused"))

    monkeypatch.setattr(AsyncSession, "commit", fail)
    response = await me.post("/v1/api-keys", json={"name": "x", "scopes": []})
    assert response.status_code == 503


async def test_on_sqlite_writers_wait_for_each_other(tmp_path: Path) -> None:
    """Each reads a number and writes the next one: without BEGIN IMMEDIATE, some would write the same."""
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'counter.db'}")

    async def count_up() -> None:
        async with database.session() as session:
            connection = await session.connection()
            number = (await connection.exec_driver_sql("SELECT number FROM counter")).scalar_one()
            await connection.exec_driver_sql(f"UPDATE counter SET number = {number + 1}")  # noqa: S608

    async with database.session() as session:
        await (await session.connection()).exec_driver_sql("CREATE TABLE counter AS SELECT 0 AS number")
    await asyncio.gather(*(count_up() for _ in range(30)))
    async with database.connection() as connection:
        assert (await connection.exec_driver_sql("SELECT number FROM counter")).scalar_one() == 30
    await database.dispose()


async def test_a_new_sqlite_file_is_switched_to_its_log_while_another_writes(tmp_path: Path) -> None:
    """As when several instances migrate it at once."""
    file = tmp_path / "new.db"
    database = Database(f"sqlite+aiosqlite:///{file}")

    async def ask() -> object:
        async with database.connection() as connection:
            return (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar_one()

    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        asking = asyncio.create_task(ask())
        await asyncio.wait({asking}, timeout=0.3)
        other.rollback()
    assert await asking == "wal"
    await database.dispose()


def test_a_sqlite_file_that_can_have_no_log_is_an_error() -> None:
    class Cursor:
        def execute(self, statement: str) -> None:
            if "journal_mode" in statement:
                raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(sqlite3.OperationalError):
        _write_ahead(cast(DBAPICursor, Cursor()))


async def test_a_look_up_outlives_its_connection(database_url: str) -> None:
    """As after a restart of PostgreSQL: what waits in the pool is dead, and nothing has noticed yet."""
    database = Database(database_url)
    async with database._look_ups.connect() as connection:
        dead = (await connection.get_raw_connection()).driver_connection
    assert dead
    await dead.close()
    assert await database.look_up(select(literal(1)), {}) == (1,)
    await database.dispose()


async def test_a_look_up_that_fails_is_not_tried_again(real_database: Database) -> None:
    tries: list[object] = []

    def count(*execution: object) -> None:
        tries.append(execution)

    engine = real_database._look_ups.sync_engine
    event.listen(engine, "before_cursor_execute", count)
    with pytest.raises(DBAPIError):
        await real_database.look_up(select(literal_column("nothing")), {})
    event.remove(engine, "before_cursor_execute", count)
    assert len(tries) == 1
