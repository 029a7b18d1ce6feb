"""How the app connects to PostgreSQL, with or without a connection pooler such as PgBouncer."""

import re

from sqlalchemy import Connection, Dialect, Engine, event, func, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

TIMEOUTS = {"statement_timeout": "10s", "lock_timeout": "5s"}
NEEDS_POOLER = "The database is behind a connection pooler: set DATABASE_POOLER=true."

# PostgreSQL accepts any name with a dot. A pooler that drops the options also drops this one.
MARKER = "app.is_direct"
REJECTED_OPTIONS = re.compile("startup parameter|command-line options")


def configure_postgresql(
    engine: Engine, pooler: bool, for_migrations: bool, for_lookups: bool
) -> None:
    settings = {"timezone": "UTC"} | ({} if for_migrations else TIMEOUTS)

    @event.listens_for(engine, "do_connect")
    def connect(
        dialect: Dialect,
        _: ConnectionPoolEntry,
        arguments: list[str],
        parameters: dict[str, object],
    ) -> DBAPIConnection:
        parameters.setdefault("connect_timeout", 5)
        parameters["client_encoding"] = "utf8"  # the default is the encoding of the database
        if pooler:
            return dialect.connect(*arguments, **parameters, prepare_threshold=None)
        ours = " ".join(f"-c {name}={value}" for name, value in settings.items())
        theirs = parameters.get("options", "")
        parameters["options"] = f"{ours} -c {MARKER}=true {theirs}".strip()
        return _connect_directly(dialect, arguments, parameters)

    if pooler and not for_lookups:

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            is_local = True
            values = (func.set_config(name, value, is_local) for name, value in settings.items())
            connection.execute(select(*values))


def _connect_directly(
    dialect: Dialect, arguments: list[str], parameters: dict[str, object]
) -> DBAPIConnection:
    """Fail behind a pooler. Requests would run the prepared statements of others."""
    error_class = dialect.loaded_dbapi.OperationalError
    try:
        connection = dialect.connect(*arguments, **parameters)
    except error_class as error:
        if REJECTED_OPTIONS.search(str(error)):
            raise error_class(NEEDS_POOLER) from error
        raise
    cursor = connection.cursor()
    cursor.execute(f"SELECT current_setting('{MARKER}', true)")
    [marker] = cursor.fetchone() or [None]
    cursor.close()
    connection.rollback()
    if not marker:
        connection.close()
        raise error_class(NEEDS_POOLER)
    return connection
