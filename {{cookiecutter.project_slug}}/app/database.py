from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy import Connection, DateTime, Dialect, MetaData, TypeDecorator, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

# Named constraints can be changed and dropped by a migration; the names that databases make up differ between them.
SQLModel.metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

TIME_OUTS = " -c statement_timeout=10s -c lock_timeout=5s"
POOL_SIZE = 15  # connections per process; with an overflow, the ones beyond would be opened and closed all the time


def utc_now() -> datetime:
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC: refuses naive ones, and gives aware ones back also from SQLite, which stores no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("a moment without a time zone")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC))


def create_engine(url: str, *, for_migrations: bool = False) -> AsyncEngine:
    """An engine for PostgreSQL or SQLite that behaves the same on both.

    Migrations may take their time. On SQLite they run without foreign keys: changing a table copies and drops it,
    and the drop would cascade to the rows that point at it.
    """
    on_postgresql = make_url(url).get_backend_name() == "postgresql"
    engine = create_async_engine(
        url,
        hide_parameters=True,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=on_postgresql,
        connect_args=(
            {"connect_timeout": 5, "options": "-c timezone=UTC" + ("" if for_migrations else TIME_OUTS)}
            if on_postgresql
            else {"timeout": 60 if for_migrations else 5, "isolation_level": None}
        ),
    )
    if on_postgresql:
        return engine

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute(f"PRAGMA foreign_keys = {not for_migrations:d}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        # Two writers that both begin as readers lose each other's updates; BEGIN IMMEDIATE makes the second one wait.
        if statement := connection.get_execution_options().get("sqlite_begin", "BEGIN IMMEDIATE"):
            connection.exec_driver_sql(statement)

    return engine


class Database:
    """The database of one app: `session()` for work that belongs together, `connection()` for a single look-up."""

    def __init__(self, url: str) -> None:
        self.engine = create_engine(url)
        on_sqlite = self.engine.dialect.name == "sqlite"
        self._read_only = self.engine.execution_options(sqlite_begin="BEGIN")
        self._autocommit = self.engine.execution_options(
            **{"sqlite_begin": ""} if on_sqlite else {"isolation_level": "AUTOCOMMIT"}
        )

    @asynccontextmanager
    async def session(self, *, read_only: bool = False) -> AsyncIterator[AsyncSession]:
        """A session that commits at the end, unless the block raised. `read_only` takes no write lock on SQLite."""
        async with AsyncSession(self._read_only if read_only else self.engine, expire_on_commit=False) as session:
            yield session
            await session.commit()

    def connection(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection on which each statement stands alone: no BEGIN, no COMMIT, no round trips for them."""
        return self._autocommit.connect()

    @property
    def connections_in_use(self) -> int:
        return cast(AsyncAdaptedQueuePool, self.engine.pool).checkedout()

    async def dispose(self) -> None:
        await self.engine.dispose()


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    database: Database = request.app.state.database
    async with database.session(read_only=request.method in {"GET", "HEAD"}) as session:
        yield session


# scope="function": the commit comes before the response is sent. By default it comes after, and a failed commit has
# already been answered with success.
SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]
