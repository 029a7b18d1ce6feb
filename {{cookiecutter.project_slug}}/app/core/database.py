from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, cast

from fastapi import Depends
from sqlalchemy import Connection, Dialect, Engine, Executable, MetaData, Row, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util import greenlet_spawn
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

# Migrations need to know the names of constraints. By default, each database chooses its own.
SQLModel.metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Connections per process. Pools have no overflow, which would constantly open and close some.
SESSION_CONNECTIONS = 10
LOOKUP_CONNECTIONS = 5
TIMEOUTS = "-c statement_timeout=10s -c lock_timeout=5s"

Rows = Sequence[Row[*tuple[Any, ...]]]  # Any: of any query


def utc_now() -> datetime:
    return datetime.now(UTC)


def create_engine(
    url: str, *, for_migrations: bool = False, for_lookups: bool = False
) -> AsyncEngine:
    """An engine for PostgreSQL or SQLite.

    `for_migrations`: no timeouts. On SQLite also no foreign keys: altering a table drops and
    recreates it, which would delete the rows that refer to it.
    `for_lookups`: no transactions, and no checks that a connection is still alive.
    """
    connect_args: dict[str, object]
    on_postgresql = make_url(url).get_backend_name() == "postgresql"
    if on_postgresql:
        query = make_url(url).query
        options = f"-c timezone=UTC {'' if for_migrations else TIMEOUTS} {query.get('options', '')}"
        connect_args = {
            "connect_timeout": query.get("connect_timeout", 5),
            "options": options,
        }
    else:
        connect_args = {"timeout": 60 if for_migrations else 5, "isolation_level": None}
    engine = create_async_engine(
        url,
        connect_args=connect_args,
        hide_parameters=True,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=LOOKUP_CONNECTIONS if for_lookups else SESSION_CONNECTIONS,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=on_postgresql and not for_lookups,
        pool_reset_on_return=None if for_lookups else "rollback",
        isolation_level="AUTOCOMMIT" if for_lookups else None,
    )
    if not on_postgresql:
        _configure_sqlite(engine.sync_engine, for_migrations, for_lookups)
    return engine


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


def _configure_sqlite(engine: Engine, for_migrations: bool, for_lookups: bool) -> None:
    @event.listens_for(engine, "do_connect")
    def create_private_file(_: Dialect, __: object, arguments: list[str], ___: object) -> None:
        # SQLite would create a file that everybody can read. The journal gets the same mode.
        # An existing file is not opened: closing it would release the locks of this process.
        file = Path(arguments[0])
        if file.is_absolute():  # neither :memory: nor a URI
            with suppress(OSError):
                file.touch(0o600, exist_ok=False)

    @event.listens_for(engine, "connect")
    def connect(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        connection.create_function("lower", 1, _lower, deterministic=True)
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute(f"PRAGMA foreign_keys = {not for_migrations:d}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # With a plain BEGIN, two writers that start as readers lose each other's updates.
        if not for_lookups:
            read_only = connection.get_execution_options().get("read_only")
            connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


class Database:
    """The connections of one app."""

    def __init__(self, url: str) -> None:
        self.engine = create_engine(url)
        self._read_only_engine = self.engine.execution_options(read_only=True)
        self._lookups = create_engine(url, for_lookups=True)

    @asynccontextmanager
    async def session(self, *, read_only: bool = False) -> AsyncIterator[AsyncSession]:
        """A session that commits at the end, unless the block raised.

        On SQLite, `read_only` takes no write lock.
        """
        engine = self._read_only_engine if read_only else self.engine
        async with AsyncSession(engine, expire_on_commit=False, close_resets_only=False) as session:
            yield session
            await session.commit()

    async def fetch_all(
        self, query: Executable, parameters: Mapping[str, object] | None = None
    ) -> Rows:
        """Run one statement outside of any transaction, on a connection kept for lookups.

        So key lookups and health checks never wait for connections that requests hold.
        """
        # AsyncConnection starts a greenlet per call, which takes a fifth more CPU than one for all.
        return await greenlet_spawn(self._fetch_all, query, parameters)

    def _fetch_all(self, query: Executable, parameters: Mapping[str, object] | None) -> Rows:
        try:
            with self._lookups.sync_engine.connect() as connection:
                return connection.execute(query, parameters).all()
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        # After a restart of PostgreSQL, the first attempt has emptied the pool.
        with self._lookups.sync_engine.connect() as connection:
            return connection.execute(query, parameters).all()

    @property
    def connections_in_use(self) -> int:
        pools = (self.engine.pool, self._lookups.pool)
        return sum(cast(AsyncAdaptedQueuePool, pool).checkedout() for pool in pools)

    async def dispose(self) -> None:
        await self.engine.dispose()
        await self._lookups.dispose()


async def get_session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    """One session per request. It commits when the route has returned, and not if it raised."""
    state = connection.app.state
    read_only = connection.scope.get("method", "GET") in {"GET", "HEAD"}
    async with state.database.session(read_only=read_only) as session:
        yield session
    if changed_ids := session.info.get("changed_ids"):
        for hook in state.after_commit:
            hook(changed_ids)


# The default scope commits after the response, so a failed commit would look like a success.
SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]
