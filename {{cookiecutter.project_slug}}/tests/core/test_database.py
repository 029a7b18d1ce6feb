import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from pathlib import Path
from uuid import uuid4

import pytest
import time_machine
from alembic import command
from sqlalchemy import (
    Column,
    Engine,
    Enum,
    Table,
    event,
    literal,
    literal_column,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    DBAPIError,
    InternalError,
    InvalidRequestError,
    OperationalError,
)
from sqlalchemy.pool import Pool
from sqlalchemy.schema import CreateTable
from sqlalchemy.util import await_only
from sqlmodel import SQLModel, col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys.models import UserApiKey
from app.core.database import (
    LOOKUP_CONNECTIONS,
    SESSION_CONNECTIONS,
    Database,
    create_engine,
)
from app.users import service as users
from app.users.models import User
from app.users.schemas import UserCreate
from tests.conftest import TEST_DATABASE_URL, AsUser, alembic_config, listening

CURRENT = "/v1/api-keys/current"
ONE = select(literal(1))


async def test_times_are_returned_in_utc(database: Database, as_user: AsUser) -> None:
    user_id = (await as_user()).user.id
    moment = datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    async with database.session() as session:
        await session.exec(update(User).where(col(User.id) == user_id).values(created_at=moment))
        created_at = (await session.exec(select(User.created_at).where(User.id == user_id))).one()
    assert (created_at, created_at.tzinfo) == (datetime(2030, 1, 1, tzinfo=UTC), UTC)


@pytest.fixture
def in_kathmandu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "Asia/Kathmandu")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_kathmandu")
async def test_times_do_not_depend_on_the_time_zone_of_the_process(as_user: AsUser) -> None:
    me = await as_user()
    expiry = datetime(2050, 1, 31, 23, tzinfo=UTC)
    key = (await me.post(f"{CURRENT}/renew", json={"expires_at": expiry.isoformat()})).json()
    assert key["expires_at"] == "2050-01-31T23:00:00Z"
    assert (await me.get(CURRENT)).json()["expires_at"] == key["expires_at"]
    for seconds, status, found in ((-1, 200, []), (0, 401, [key["id"]])):
        with time_machine.travel(expiry + timedelta(seconds=seconds), tick=False):
            admin = await as_user(admin=True)
            assert (await me.get(CURRENT)).status_code == status
            expired = await admin.get("/v1/api-keys", params={"status": "expired"})
            assert [one["id"] for one in expired.json()["items"]] == found


async def test_a_relationship_raises_an_error_until_it_is_loaded_and_cascades_then(
    database: Database, as_user: AsUser
) -> None:
    me = await as_user()
    async with database.session() as session:
        user = await session.get_one(User, me.user.id)
        with pytest.raises(InvalidRequestError, match=r"User\.api_keys.*not available"):
            assert user.api_keys
        await session.refresh(user, ["api_keys"])
        assert [key.id for key in user.api_keys] == [me.key.id]
        await session.delete(user)
        await session.flush()
        assert await session.get(UserApiKey, me.key.id) is None


async def add(session: AsyncSession) -> None:
    session.add(User(email="late@example.com"))


@pytest.mark.parametrize(
    "use",
    [
        add,
        AsyncSession.commit,
        AsyncSession.connection,
        lambda session: session.exec(ONE),
        lambda session: session.get(User, uuid4()),
        lambda session: session.merge(User(email="late@example.com")),
    ],
    ids=["add", "commit", "connection", "exec", "get", "merge"],
)
async def test_a_session_that_has_ended_rejects_every_use(
    real_database: Database, use: Callable[[AsyncSession], Awaitable[object]]
) -> None:
    async with real_database.session() as session:
        await session.exec(ONE)
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        await use(session)


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


async def test_sqlite_does_not_wait_for_the_disk_at_each_commit(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'app.db'}")
    assert await database.fetch_all(text("PRAGMA synchronous")) == [(1,)]  # NORMAL
    await database.dispose()


async def test_lookups_do_not_wait_for_connections_of_sessions(real_database: Database) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(SESSION_CONNECTIONS):
            session = await stack.enter_async_context(real_database.session(read_only=True))
            await session.exec(ONE)
        assert await asyncio.wait_for(real_database.fetch_all(ONE), 4) == [(1,)]


async def test_only_read_only_sessions_use_the_replica(database_url: str) -> None:
    database = Database(database_url, replica_url="postgresql+psycopg://127.0.0.1:1/nowhere")
    async with database.session(read_only=True) as session:
        with pytest.raises(OperationalError):
            await session.connection()
    async with database.session() as session:
        await session.connection()
    for is_check in (True, False):
        assert await database.fetch_all(ONE, is_check=is_check) == [(1,)]
    await database.dispose()


async def test_checks_do_not_wait_for_connections_of_lookups(real_database: Database) -> None:
    all_held = asyncio.Event()
    gate = asyncio.Event()
    held: list[object] = []

    def hold(*execution: object) -> None:
        if len(held) < LOOKUP_CONNECTIONS:
            held.append(execution)
            if len(held) == LOOKUP_CONNECTIONS:
                all_held.set()
            await_only(gate.wait())

    with listening(Engine, "before_cursor_execute", hold):
        lookups = [asyncio.create_task(real_database.fetch_all(ONE)) for _ in range(20)]
        async with asyncio.timeout(4):
            await all_held.wait()
            assert await real_database.fetch_all(ONE, is_check=True) == [(1,)]
        gate.set()
        assert await asyncio.gather(*lookups) == [[(1,)]] * 20


async def test_a_lookup_succeeds_after_a_restart_of_the_database(database_url: str) -> None:
    database = Database(database_url)
    connections: list[DBAPIConnection] = []

    def collect(connection: DBAPIConnection, *_: object) -> None:
        connections.append(connection)

    with listening(Pool, "checkout", collect):
        await database.fetch_all(ONE)
    [connection] = connections
    await connection.driver_connection.close()
    assert await database.fetch_all(ONE) == [(1,)]
    await database.dispose()


@pytest.mark.skipif(TEST_DATABASE_URL is None, reason="TEST_DATABASE_URL is not set")
async def test_a_session_succeeds_after_a_restart_of_the_database(database_url: str) -> None:
    database = Database(database_url)
    async with database.session() as session:
        connection = await (await session.connection()).get_raw_connection()
        driver_connection = connection.driver_connection
    assert driver_connection
    await driver_connection.close()
    async with database.session() as session:
        assert (await session.exec(ONE)).one() == 1
    await database.dispose()


async def test_a_lookup_that_fails_is_not_repeated(real_database: Database) -> None:
    statements: list[object] = []

    def count(*execution: object) -> None:
        statements.append(execution)

    with listening(Engine, "before_cursor_execute", count), pytest.raises(DBAPIError):
        await real_database.fetch_all(select(literal_column("nothing")))
    assert len(statements) == 1


class Connecting(Exception):
    """Has the arguments of a connection that is not made."""


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [({}, 5), ({"for_lookups": True}, 5), ({"for_migrations": True}, 60)],
)
async def test_sqlite_waits_for_other_writers_and_longer_in_migrations(
    tmp_path: Path, kind: dict[str, bool], seconds: int
) -> None:
    engine = create_engine(f"sqlite+aiosqlite:///{tmp_path}/app.db", **kind)

    @event.listens_for(engine.sync_engine, "do_connect")
    def stop(_: object, __: object, ___: object, arguments: dict[str, object]) -> None:
        raise Connecting(arguments["timeout"])

    with pytest.raises(Connecting, match=f"^{seconds}$"):
        await engine.connect()


def test_an_enum_is_text_that_the_database_checks() -> None:
    class Color(StrEnum):
        RED = "red"
        BLUE = "blue"

    table = Table("boxes", SQLModel.metadata, Column("color", Enum(Color)))
    SQLModel.metadata.remove(table)
    postgresql = make_url("postgresql+psycopg://").get_dialect()()
    created = str(CreateTable(table).compile(dialect=postgresql))
    assert "color VARCHAR(4)" in created
    assert "CONSTRAINT ck_boxes_color CHECK (color IN ('RED', 'BLUE'))" in created
