import re
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

from fastapi import Depends
from sqlalchemy import (
    CheckConstraint,
    Connection,
    Dialect,
    Engine,
    Enum,
    Executable,
    MetaData,
    Row,
    String,
    Table,
    event,
    type_coerce,
)
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util import greenlet_spawn
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from app.core.postgresql import configure_postgresql

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


@event.listens_for(Table, "after_parent_attach")
def store_enums_as_text(table: Table, metadata: MetaData) -> None:
    """With a check constraint: an enum type of PostgreSQL cannot lose a member."""
    if metadata is SQLModel.metadata:
        for column in table.columns:
            if type(column.type) is Enum:  # not postgresql.ENUM
                column.type.native_enum = False
                is_member = type_coerce(column, String).in_(column.type.enums)
                table.append_constraint(CheckConstraint(is_member, name=column.name))


# Connections per process: of sessions, of key lookups, and of readiness and the key cache. Pools
# have no overflow, which would constantly open and close some.
SESSION_CONNECTIONS = 9
LOOKUP_CONNECTIONS = 3
CHECK_CONNECTIONS = 3

# Any encoding of SQLite holds every character.
ENCODING = {"postgresql": "SHOW server_encoding", "sqlite": "SELECT 'UTF8'"}

Rows = Sequence[Row[*tuple[Any, ...]]]  # Any: of any query


def utc_now() -> datetime:
    return datetime.now(UTC)


def create_engine(
    url: str,
    connections: int = SESSION_CONNECTIONS,
    *,
    pooler: bool = False,
    for_migrations: bool = False,
    for_lookups: bool = False,
) -> AsyncEngine:
    """An engine for PostgreSQL or SQLite.

    `pooler`: no prepared statements, and no settings that outlive a transaction.
    `for_migrations`: no timeouts. On SQLite also no foreign keys: altering a table drops and
    recreates it, which would delete the rows that refer to it.
    `for_lookups`: no transactions, and no checks that a connection is still alive.
    """
    on_postgresql = make_url(url).get_backend_name() == "postgresql"
    on_sqlite = {"timeout": 60 if for_migrations else 5, "isolation_level": None}
    engine = create_async_engine(
        url,
        connect_args={} if on_postgresql else on_sqlite,
        hide_parameters=True,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=on_postgresql and not for_lookups,
        pool_reset_on_return=None if for_lookups else "rollback",
        isolation_level="AUTOCOMMIT" if for_lookups else None,
    )
    event.listen(engine.sync_engine, "handle_error", _report_data_error)
    if on_postgresql:
        configure_postgresql(engine.sync_engine, pooler, for_migrations, for_lookups)
    else:
        _configure_sqlite(engine.sync_engine, for_migrations, for_lookups)
    return engine


def _report_data_error(context: ExceptionContext) -> DataError | None:
    """The drivers do not report numbers and text that they cannot encode as errors of their own."""
    error = context.original_exception
    if isinstance(error, OverflowError | UnicodeEncodeError):
        return DataError(context.statement, None, error, hide_parameters=True)
    return None


def reason(error: Exception) -> str:
    """The driver's message, without the lines that follow the first: they are hints."""
    first_line = str(getattr(error, "orig", error)).partition("\n")[0]
    return re.sub("^connection (failed|is bad): ", "", first_line).replace("  ", " ").rstrip(".")


def find_wrong_encoding(connection: Connection) -> str | None:
    """A sentence, if the database cannot hold every character."""
    encoding = connection.exec_driver_sql(ENCODING[connection.dialect.name]).scalar_one()
    message = (
        f"The encoding of the database is {encoding}, but must be UTF8: "
        "create it with `createdb --encoding=UTF8 --template=template0`."
    )
    return None if encoding == "UTF8" else message


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


def _configure_sqlite(engine: Engine, for_migrations: bool, for_lookups: bool) -> None:
    @event.listens_for(engine, "do_connect")
    def create_private_file(_: Dialect, __: object, arguments: list[str], ___: object) -> None:
        # SQLite would create a file that everybody can read. The journal gets the same mode.
        # An existing file is not opened: closing it would release the locks of this process.
        file = Path(arguments[0])
        if file.is_absolute():  # neither :memory: nor a URI
            try:
                file.touch(0o600, exist_ok=False)
            except FileExistsError:
                pass
            except OSError as error:
                raise sqlite3.OperationalError(f"{error.strerror}: {file}") from error

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

    def __init__(self, url: str, *, pooler: bool = False, replica_url: str | None = None) -> None:
        create = partial(create_engine, pooler=pooler)
        self.engine = create(url)
        self._reads = self.engine.execution_options(read_only=True)
        if replica_url:
            self._reads = create(replica_url).execution_options(postgresql_readonly=True)
        self._lookups = create(url, LOOKUP_CONNECTIONS, for_lookups=True)
        self._checks = create(url, CHECK_CONNECTIONS, for_lookups=True)

    @asynccontextmanager
    async def session(self, *, read_only: bool = False) -> AsyncIterator[AsyncSession]:
        """A session that commits at the end, unless the block raised.

        `read_only` reads from the replica, if there is one. On SQLite, it takes no write lock.
        """
        engine = self._reads if read_only else self.engine
        async with AsyncSession(engine, expire_on_commit=False, close_resets_only=False) as session:
            yield session
            await session.commit()

    async def fetch_all(
        self,
        query: Executable,
        parameters: Mapping[str, object] | None = None,
        *,
        is_check: bool = False,
    ) -> Rows:
        """Run one statement outside of any transaction, on a connection kept for lookups.

        So key lookups never wait for connections that sessions hold. A check never waits for key
        lookups either. No statement here reads from the replica.
        """
        engine = self._checks if is_check else self._lookups
        # AsyncConnection starts a greenlet per call, which takes a fifth more CPU than one for all.
        return await greenlet_spawn(_fetch_all, engine.sync_engine, query, parameters)

    @property
    def connections_in_use(self) -> int:
        """Of sessions. With a replica, of the pool that has more in use."""
        pools = (self.engine.pool, self._reads.pool)
        return max(cast(AsyncAdaptedQueuePool, pool).checkedout() for pool in pools)

    async def dispose(self) -> None:
        for engine in (self.engine, self._reads, self._lookups, self._checks):
            await engine.dispose()


def _fetch_all(engine: Engine, query: Executable, parameters: Mapping[str, object] | None) -> Rows:
    try:
        with engine.connect() as connection:
            return connection.execute(query, parameters).all()
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    # After a restart of PostgreSQL, the first attempt has emptied the pool.
    with engine.connect() as connection:
        return connection.execute(query, parameters).all()


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
