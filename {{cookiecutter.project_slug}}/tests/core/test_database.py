import asyncio
import os
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Engine, event, false, literal, literal_column, text
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    DBAPIError,
    InternalError,
    InvalidRequestError,
    OperationalError,
)
from sqlalchemy.pool import Pool
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys.models import UserApiKey
from app.core.database import SESSION_CONNECTIONS, Database
from app.users import service as users
from app.users.models import User
from app.users.schemas import UserCreate
from tests.conftest import TEST_DATABASE_URL, AsUser, alembic_config

ONE = select(literal(1))


async def test_times_are_returned_in_utc(database: Database, as_user: AsUser) -> None:
    user_id = (await as_user()).user.id
    moment = datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    async with database.session() as session:
        await session.exec(update(User).where(col(User.id) == user_id).values(created_at=moment))
        created_at = (await session.exec(select(User.created_at).where(User.id == user_id))).one()
    assert (created_at, created_at.tzinfo) == (datetime(2030, 1, 1, tzinfo=UTC), UTC)


async def test_the_database_deletes_the_keys_of_a_deleted_user(
    database: Database, as_user: AsUser
) -> None:
    me = await as_user()
    async with database.session() as session:
        connection = await session.connection()
        await connection.execute(text("DELETE FROM users"))
        assert await session.get(UserApiKey, me.key.id) is None


async def test_a_relationship_that_is_not_loaded_raises_an_error(
    database: Database, as_user: AsUser
) -> None:
    me = await as_user()
    async with database.session() as session:
        user = await session.get_one(User, me.user.id)
        with pytest.raises(InvalidRequestError, match=r"User\.api_keys.*not available"):
            assert user.api_keys
        await session.refresh(user, ["api_keys"])
        assert [key.id for key in user.api_keys] == [me.key.id]


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


@pytest.mark.parametrize("existing_mode", [None, 0o640])
async def test_a_new_sqlite_file_is_private_and_an_existing_one_keeps_its_mode(
    tmp_path: Path, existing_mode: int | None
) -> None:
    file = tmp_path / "app.db"
    if existing_mode:
        file.touch()
        file.chmod(existing_mode)
    mask = os.umask(0o022)
    try:
        url = f"sqlite+aiosqlite:///{file}"
        await asyncio.to_thread(command.upgrade, alembic_config(url), "head")
        database = Database(url)
        async with database.session() as session:
            await session.exec(select(User))
            modes = modes_in(tmp_path)
        await database.dispose()
    finally:
        os.umask(mask)
    assert modes == dict.fromkeys(["app.db", "app.db-shm", "app.db-wal"], existing_mode or 0o600)


async def test_a_database_in_memory_creates_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database = Database("sqlite+aiosqlite://")
    assert await database.fetch_all(ONE) == [(1,)]
    await database.dispose()
    assert modes_in(tmp_path) == {}


async def test_a_database_error_does_not_show_the_values(database: Database) -> None:
    async with database.session() as session:
        connection = await session.connection()
        statement = text("SELECT * FROM nowhere WHERE secret = :secret")
        with pytest.raises(DBAPIError, match="nowhere") as error:
            await connection.execute(statement, {"secret": "hunter2"})
        await session.rollback()
    assert "hunter2" not in str(error.value)


async def test_a_session_that_raises_commits_nothing(real_database: Database) -> None:
    email = "nobody@example.com"

    async def fail() -> None:
        async with real_database.session() as session:
            await users.create(session, UserCreate(email=email), None)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with real_database.session(read_only=True) as session:
        assert (await session.exec(select(User).where(User.email == email))).first() is None


# When a disk is full, and when PostgreSQL is read-only.
@pytest.mark.parametrize("failure", [OperationalError, InternalError])
async def test_a_failed_commit_is_never_reported_as_success(
    as_user: AsUser, monkeypatch: pytest.MonkeyPatch, failure: type[DBAPIError]
) -> None:
    me = await as_user()

    async def fail(_: AsyncSession) -> None:
        raise failure("COMMIT", {}, Exception("rejected"))

    monkeypatch.setattr(AsyncSession, "commit", fail)
    response = await me.post("/v1/api-keys", json={"name": "x", "scopes": []})
    assert response.status_code == 503


async def test_on_sqlite_writers_do_not_lose_updates_of_each_other(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'counter.db'}")
    async with database.session() as session:
        connection = await session.connection()
        await connection.exec_driver_sql("CREATE TABLE counter AS SELECT 0 AS number")

    async def increment() -> None:
        async with database.session() as session:
            connection = await session.connection()
            number = (await connection.exec_driver_sql("SELECT number FROM counter")).scalar_one()
            await connection.execute(text("UPDATE counter SET number = :n"), {"n": number + 1})

    await asyncio.gather(*(increment() for _ in range(30)))
    assert await database.fetch_all(text("SELECT number FROM counter")) == [(30,)]
    await database.dispose()


async def test_a_read_only_session_does_not_wait_for_a_writer(real_database: Database) -> None:
    async with real_database.session() as writer:
        await writer.exec(update(User).where(false()).values(is_active=False))
        async with real_database.session(read_only=True) as reader:
            await asyncio.wait_for(reader.exec(select(User).limit(1)), 4)


async def test_lookups_do_not_wait_for_connections_of_sessions(real_database: Database) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(SESSION_CONNECTIONS):
            session = await stack.enter_async_context(real_database.session(read_only=True))
            await session.exec(ONE)
        assert await asyncio.wait_for(real_database.fetch_all(ONE), 4) == [(1,)]


async def test_a_lookup_succeeds_after_a_restart_of_the_database(database_url: str) -> None:
    database = Database(database_url)
    connections: list[DBAPIConnection] = []

    def collect(connection: DBAPIConnection, *_: object) -> None:
        connections.append(connection)

    event.listen(Pool, "checkout", collect)
    await database.fetch_all(ONE)
    event.remove(Pool, "checkout", collect)
    [connection] = connections
    await connection.driver_connection.close()
    assert await database.fetch_all(ONE) == [(1,)]
    await database.dispose()


async def test_a_lookup_that_fails_is_not_repeated(real_database: Database) -> None:
    statements: list[object] = []

    def count(*execution: object) -> None:
        statements.append(execution)

    event.listen(Engine, "before_cursor_execute", count)
    with pytest.raises(DBAPIError):
        await real_database.fetch_all(select(literal_column("nothing")))
    event.remove(Engine, "before_cursor_execute", count)
    assert len(statements) == 1


@pytest.mark.skipif(TEST_DATABASE_URL is None, reason="TEST_DATABASE_URL is not set")
async def test_the_options_in_the_url_are_kept(database_url: str) -> None:
    url = make_url(database_url).update_query_dict({"options": "-c search_path=tenant"})
    database = Database(url.render_as_string(hide_password=False))
    for setting, value in (("search_path", "tenant"), ("timezone", "UTC")):
        assert (await database.fetch_all(text(f"SHOW {setting}")))[0][0] == value
    await database.dispose()
