import asyncio
import logging
from contextlib import suppress
from importlib import import_module

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import SQLModel

from app.core.database import create_engine, find_wrong_encoding, reason
from app.settings import ROOT, get_settings
from migrations import autogenerate

for file in sorted(ROOT.glob("app/*/models.py")):
    import_module(f"app.{file.parent.name}.models")

logging.basicConfig(format="%(message)s")  # no effect where the app has configured logging
logger = logging.getLogger("alembic.runtime.migration")
logger.setLevel(logging.INFO)

LOCK = 7266130457  # any constant: migrations of one PostgreSQL database wait for each other


def database_url() -> str:
    url: str = context.config.attributes.get("database_url") or get_settings().database_url
    return url


def uses_pooler() -> bool:
    return "database_url" not in context.config.attributes and get_settings().database_pooler


def print_sql() -> None:
    """For `alembic upgrade head --sql`, which needs no database."""
    context.configure(url=database_url(), literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def migrate(connection: Connection) -> None:
    on_sqlite = connection.dialect.name == "sqlite"
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        render_as_batch=on_sqlite,
        render_item=autogenerate.render_item,
        compare_server_default=autogenerate.compare_server_default,
        autogenerate_plugins=autogenerate.PLUGINS,
        process_revision_directives=autogenerate.finish,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        if problem := find_wrong_encoding(connection):
            raise CommandError(problem)
        # Several instances may migrate at the same time. On SQLite, BEGIN IMMEDIATE is the lock.
        if not on_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.run_migrations()
        if on_sqlite and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise RuntimeError("The migration was undone: rows would refer to missing rows.")


async def migrate_database() -> None:
    url = database_url()
    if make_url(url).get_backend_name() == "sqlite":
        await use_write_ahead_log(url)
    engine = create_engine(url, pooler=uses_pooler(), for_migrations=True)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


async def use_write_ahead_log(url: str) -> None:
    """Switch a SQLite file to a write-ahead log, permanently: readers then never wait for writers.

    While another connection writes, that fails at once, whatever the timeout. BEGIN IMMEDIATE
    waits for it.
    """
    engine = create_engine(url, for_lookups=True)
    try:
        async with engine.connect() as connection:
            for _ in range(10):
                with suppress(OperationalError):
                    await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                    return
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
                await connection.exec_driver_sql("ROLLBACK")
            await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    finally:
        await engine.dispose()


if context.is_offline_mode():
    print_sql()
else:
    try:
        asyncio.run(migrate_database())
    except DBAPIError as error:
        if error.statement:
            raise
        raise CommandError(f"The database does not respond: {reason(error)}.") from error
