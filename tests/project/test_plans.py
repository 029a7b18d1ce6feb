"""Which indexes the database uses for large tables, according to EXPLAIN."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event, insert, text

from app.api_keys import service as api_keys
from app.api_keys.models import UserApiKey
from app.api_keys.schemas import ApiKeyQuery
from app.auth.caller import Caller
from app.auth.confirmation import confirm_caller
from app.auth.scopes import Scope
from app.core.database import Database
from app.users import service as users
from app.users.models import User
from tests.conftest import MakeDatabase

USERS = [uuid4() for _ in range(2000)]
OWNERS = USERS[:10]
KEYS = 10_000
START = datetime(2030, 1, 1, tzinfo=UTC)
MAX_BUFFERS = 200  # pages of 8 KiB that PostgreSQL reads; the tables have hundreds


@pytest.fixture(scope="module")
def url(make_database: MakeDatabase) -> str:
    return make_database()


@pytest.fixture(scope="module")
async def large(url: str) -> AsyncIterator[Database]:
    """Ten of the users own all keys. The first one owns the oldest tenth."""
    database = Database(url)
    async with database.session() as session:
        connection = await session.connection()
        people = [
            User(id=one, email=f"{one}@example.com", is_admin=one is USERS[0]) for one in USERS
        ]
        await connection.execute(insert(User), [user.model_dump() for user in people])
        keys = [
            UserApiKey(
                id=f"{number:016}",
                user_id=OWNERS[0] if number < KEYS // 10 else OWNERS[1 + number % 9],
                name="a key",
                hint="",
                digest=b"",
                pepper_id=1,
                created_at=START + timedelta(seconds=number),
            )
            for number in range(KEYS)
        ]
        await connection.execute(insert(UserApiKey), [key.model_dump() for key in keys])
    async with database.session() as session:
        await (await session.connection()).execute(text("ANALYZE"))
    yield database
    await database.dispose()


Executed = list[tuple[str, Any]]  # Any: parameters as the driver expects them


@contextmanager
def recorded(database: Database) -> Iterator[Executed]:
    """The queries of a block."""
    executed: Executed = []

    def record(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        if statement.startswith("SELECT"):
            executed.append((statement, parameters))

    event.listen(database.engine.sync_engine, "before_cursor_execute", record)
    try:
        yield executed
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", record)


async def indexes_used(database: Database, executed: Executed) -> set[str]:
    """Fails if a query reads a whole table, or more than MAX_BUFFERS."""
    is_sqlite = database.engine.dialect.name == "sqlite"
    explain = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN (ANALYZE, BUFFERS) "
    found: set[str] = set()
    async with database.session() as session:
        connection = await session.connection()
        for statement, parameters in executed:
            rows = await connection.exec_driver_sql(explain + statement, parameters)
            plan = "\n".join(str(row[-1]) for row in rows)
            buffers = [int(number) for number in re.findall(r"(?:hit|read)=(\d+)", plan)[:2]]
            assert "Seq Scan" not in plan, plan
            assert not re.search(r"^SCAN (?!anon_)\w+$", plan, re.MULTILINE), plan
            assert sum(buffers) < MAX_BUFFERS, plan
            found |= {*re.findall(r"\b(?:ix|pk)_\w+", plan)}
    return found


async def test_the_keys_of_an_owner_are_listed_from_their_index(large: Database) -> None:
    admin = Caller("0" * 16, OWNERS[1], frozenset(Scope))
    async with large.session(read_only=True) as session:
        with recorded(large) as executed:
            query = ApiKeyQuery(user_id=OWNERS[0])
            page = await api_keys.list_page(session, admin, query)
            query = ApiKeyQuery(user_id=OWNERS[0], cursor=page.next_cursor)
            next_page = await api_keys.list_page(session, admin, query)
    assert [key.id for key in (*page.items, *next_page.items)] == [
        f"{KEYS // 10 - 1 - number:016}" for number in range(100)
    ]
    assert await indexes_used(large, executed) == {"ix_user_api_keys_user_id_created_at"}


async def test_admins_are_counted_and_locked_from_their_index(large: Database) -> None:
    async with large.session() as session:
        with recorded(large) as executed:
            await confirm_caller(session, None, user_ids=[USERS[1]], lock_admins=True)
            await users.has_admin(session)
    assert len(executed) == 2
    assert "ix_users_active_admins" in await indexes_used(large, executed)
