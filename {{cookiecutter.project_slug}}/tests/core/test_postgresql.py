"""What a connection to PostgreSQL gets, with and without a pooler."""

from collections.abc import AsyncIterator, Callable
from typing import Any
from unittest.mock import Mock

import psycopg
import pytest
from sqlalchemy import delete, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InternalError

from app.core.database import Database, create_engine
from app.users.models import User
from tests.conftest import TEST_DATABASE_URL

needs_postgresql = pytest.mark.skipif(
    TEST_DATABASE_URL is None, reason="TEST_DATABASE_URL is not set"
)


def connect(connect: Callable[..., Mock], **options: Any) -> dict[str, Any]:  # Any: of psycopg
    """Connect with another function than psycopg's, and return the arguments it was called with."""
    engine = create_engine("postgresql+psycopg://host/db", **options).sync_engine
    dialect = Mock(connect=Mock(side_effect=connect), loaded_dbapi=psycopg)
    for listener in engine.dialect.dispatch.do_connect:
        listener(dialect, None, [], {})
    return dict(dialect.connect.call_args.kwargs)


def server(marker: str | None) -> Callable[..., Mock]:
    connection = Mock()
    connection.cursor.return_value.fetchone.return_value = [marker]
    return lambda **_: connection


def test_without_a_pooler_a_connection_has_timeouts_and_the_time_zone() -> None:
    arguments = connect(server("true"))
    assert arguments["connect_timeout"] == 5
    assert "-c timezone=UTC -c statement_timeout=10s -c lock_timeout=5s" in arguments["options"]
    assert "timeout" not in connect(server("true"), for_migrations=True)["options"]


def test_with_a_pooler_a_connection_has_no_options_and_prepares_nothing() -> None:
    arguments = connect(server(None), pooler=True)
    expected = {"connect_timeout": 5, "prepare_threshold": None, "client_encoding": "utf8"}
    assert arguments == expected


def reject(reason: str) -> Callable[..., Mock]:
    return Mock(side_effect=psycopg.OperationalError(f"connection failed: FATAL:  {reason}"))


@pytest.mark.parametrize(
    "pooler",
    [
        reject("unsupported startup parameter: options"),  # PgBouncer 1.18
        reject("unsupported startup parameter in options: statement_timeout"),  # and 1.25
        reject("RDS Proxy currently doesn't support command-line options."),
        server(None),  # it drops the options
    ],
)
def test_a_pooler_without_its_setting_is_named(pooler: Callable[..., Mock]) -> None:
    with pytest.raises(psycopg.OperationalError, match="set DATABASE_POOLER=true"):
        connect(pooler)


def test_another_error_of_a_connection_is_kept() -> None:
    with pytest.raises(psycopg.OperationalError, match="too many clients"):
        connect(reject("sorry, too many clients already"))


@pytest.mark.parametrize(("for_migrations", "timeouts"), [(False, 2), (True, 0)])
def test_with_a_pooler_a_transaction_sets_timeouts_and_the_time_zone(
    for_migrations: bool, timeouts: int
) -> None:
    engine = create_engine(
        "postgresql+psycopg://host/db", pooler=True, for_migrations=for_migrations
    )
    connection = Mock()
    for listener in engine.sync_engine.dispatch.begin:
        listener(connection)
    [statement] = connection.execute.call_args.args
    values = statement.compile().params.values()
    assert {"timezone", "UTC", True} <= {*values}
    assert sum("timeout" in str(value) for value in values) == timeouts


SHOWN = ("timezone", "statement_timeout", "lock_timeout")


@pytest.fixture
async def with_pooler(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, pooler=True)
    yield database
    await database.dispose()


@needs_postgresql
async def test_with_a_pooler_nothing_outlives_a_transaction(with_pooler: Database) -> None:
    for read_only in (True, False):
        async with with_pooler.session(read_only=read_only) as session:
            connection = await session.connection()
            shown = [await connection.scalar(text(f"SHOW {name}")) for name in SHOWN]
            assert shown == ["UTC", "10s", "5s"]
    prepared = text("SELECT count(*) FROM pg_prepared_statements")
    for _ in range(10):
        assert await with_pooler.fetch_all(prepared) == [(0,)]
    assert await with_pooler.fetch_all(text("SHOW statement_timeout")) == [("0",)]


@needs_postgresql
async def test_a_session_on_the_replica_is_read_only(database_url: str) -> None:
    database = Database(database_url, replica_url=database_url)
    async with database.session(read_only=True) as session:
        connection = await session.connection()
        assert await connection.scalar(text("SHOW transaction_read_only")) == "on"
        with pytest.raises(InternalError, match="read-only transaction"):
            await session.exec(delete(User))
        await session.rollback()
    async with database.session() as session:
        connection = await session.connection()
        assert await connection.scalar(text("SHOW transaction_read_only")) == "off"
    await database.dispose()


@needs_postgresql
async def test_the_options_in_the_url_are_kept(database_url: str) -> None:
    url = make_url(database_url).update_query_dict({"options": "-c search_path=tenant"})
    database = Database(url.render_as_string(hide_password=False))
    for setting, value in (("search_path", "tenant"), ("timezone", "UTC")):
        assert (await database.fetch_all(text(f"SHOW {setting}")))[0][0] == value
    await database.dispose()
