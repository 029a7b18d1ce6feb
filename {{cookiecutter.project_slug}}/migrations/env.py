import asyncio
import logging
from contextlib import suppress
from importlib import import_module
from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import DATETIME, Connection, text
from sqlalchemy.exc import OperationalError
from sqlmodel import AutoString, SQLModel, UTCDateTime

from app.core.database import create_engine
from app.settings import ROOT, get_settings

for file in sorted(ROOT.glob("app/*/models.py")):
    import_module(f"app.{file.parent.name}.models")

logging.basicConfig(format="%(message)s")  # no effect where the app has configured logging
logging.getLogger("alembic.runtime.migration").setLevel(logging.INFO)

LOCK = 7266130457  # any constant: migrations of one PostgreSQL database wait for each other


def render_item(kind: str, item: object, _: AutogenContext) -> str | Literal[False]:
    """Write SQLModel's types as those of the database, so that migrations outlive the code."""
    if isinstance(item, AutoString):
        return f"sa.String(length={item.length})"
    # DATETIME is SQLite's name. PostgreSQL has no such type.
    return "sa.DateTime(timezone=True)" if isinstance(item, UTCDateTime | DATETIME) else False


def migrate(connection: Connection) -> None:
    on_sqlite = connection.dialect.name == "sqlite"
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        render_item=render_item,
        render_as_batch=on_sqlite,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        # Several instances may migrate at the same time. On SQLite, BEGIN IMMEDIATE is the lock.
        if not on_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.run_migrations()
        if on_sqlite and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise RuntimeError("The migration was undone: rows would refer to missing rows.")


async def migrate_database() -> None:
    url = context.config.attributes.get("database_url") or get_settings().database_url
    await use_write_ahead_log(url)
    engine = create_engine(url, for_migrations=True)
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
        if engine.dialect.name == "sqlite":
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


asyncio.run(migrate_database())
