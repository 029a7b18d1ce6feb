from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime
from sqlite3 import OperationalError
from typing import Annotated, Any, cast

from fastapi import Depends, Request
from sqlalchemy import Connection, DateTime, Dialect, MetaData, Row, Select, TypeDecorator, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import DBAPIError
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
LOOK_UP_POOL_SIZE = 5  # of them, on PostgreSQL: see Database.look_up
WRITE_AHEAD = "PRAGMA journal_mode = WAL"

AnyColumns = tuple[Any, ...]  # those of a query, whatever their types


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


def create_engine(url: str, *, for_migrations: bool = False, **options: object) -> AsyncEngine:
    """An engine for PostgreSQL or SQLite that behaves the same on both. `options` are SQLAlchemy's.

    Migrations may take their time. On SQLite they run without foreign keys: changing a table copies and drops it,
    and the drop would cascade to the rows that point at it.
    """
    on_postgresql = make_url(url).get_backend_name() == "postgresql"
    engine = create_async_engine(
        url,
        hide_parameters=True,
        poolclass=AsyncAdaptedQueuePool,
        max_overflow=0,
        pool_timeout=5,
        **{"pool_size": POOL_SIZE, "pool_pre_ping": on_postgresql, **options},
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
        _write_ahead(cursor)
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute(f"PRAGMA foreign_keys = {not for_migrations:d}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        # Two writers that both begin as readers lose each other's updates; BEGIN IMMEDIATE makes the second one wait.
        if statement := connection.get_execution_options().get("sqlite_begin", "BEGIN IMMEDIATE"):
            connection.exec_driver_sql(statement)

    return engine


def _write_ahead(cursor: DBAPICursor) -> None:
    """Switch a SQLite file to a write-ahead log, which it keeps.

    While another connection writes, that fails at once, whatever the time-out. BEGIN IMMEDIATE waits for it; but one
    more may have come until the next try.
    """
    for _ in range(10):
        with suppress(OperationalError):
            cursor.execute(WRITE_AHEAD)
            return
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute("ROLLBACK")
    cursor.execute(WRITE_AHEAD)


class Database:
    """The database of one app: `session()` for work that belongs together, `connection()` for statements that each
    stand alone, `look_up()` for what is asked on every request.
    """

    def __init__(self, url: str) -> None:
        if make_url(url).get_backend_name() == "postgresql":
            self.engine = create_engine(url, pool_size=POOL_SIZE - LOOK_UP_POOL_SIZE)
            self._autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT")
            self._look_ups = create_engine(
                url,
                isolation_level="AUTOCOMMIT",
                pool_size=LOOK_UP_POOL_SIZE,
                pool_pre_ping=False,
                pool_reset_on_return=None,
            )
        else:
            self.engine = create_engine(url)
            self._autocommit = self._look_ups = self.engine.execution_options(sqlite_begin="")
        self._read_only = self.engine.execution_options(sqlite_begin="BEGIN")

    @asynccontextmanager
    async def session(self, *, read_only: bool = False) -> AsyncIterator[AsyncSession]:
        """A session that commits at the end, unless the block raised. `read_only` takes no write lock on SQLite."""
        async with AsyncSession(self._read_only if read_only else self.engine, expire_on_commit=False) as session:
            yield session
            await session.commit()

    def connection(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection on which each statement stands alone: no BEGIN, no COMMIT, no round trips for them."""
        return self._autocommit.connect()

    async def look_up(self, query: Select[*AnyColumns], parameters: Mapping[str, object]) -> Row[*AnyColumns] | None:
        """The first row. No connection is asked first whether it is still alive, which would take a third more; if it
        is not, as after a restart of PostgreSQL, the pool forgets all that it has, and a new one is asked.
        """
        try:
            return await self._first(query, parameters)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            return await self._first(query, parameters)

    async def _first(self, query: Select[*AnyColumns], parameters: Mapping[str, object]) -> Row[*AnyColumns] | None:
        async with self._look_ups.connect() as connection:
            return (await connection.execute(query, parameters)).first()

    @property
    def connections_in_use(self) -> int:
        pools = {self.engine.pool, self._look_ups.pool}
        return sum(cast(AsyncAdaptedQueuePool, pool).checkedout() for pool in pools)

    async def dispose(self) -> None:
        await self.engine.dispose()
        await self._look_ups.dispose()


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    database: Database = request.app.state.database
    async with database.session(read_only=request.method in {"GET", "HEAD"}) as session:
        yield session


# scope="function": the commit comes before the response is sent. By default it comes after, and a failed commit has
# already been answered with success.
SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]
