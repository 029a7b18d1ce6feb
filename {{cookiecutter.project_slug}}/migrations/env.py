import asyncio
import logging
from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import DATETIME, Connection, text
from sqlmodel import AutoString, SQLModel

import app.main  # noqa: F401 - imports every model that the app has, so that none is missing from the metadata
from app.database import UtcDateTime, create_engine
from app.settings import get_settings

logging.basicConfig(format="%(message)s")  # does nothing where the app has set up logging already
logging.getLogger("alembic.runtime.migration").setLevel(logging.INFO)

LOCK = 7266130457  # any number, but the same for ever: migrations on one PostgreSQL server and database queue for it


def render_item(kind: str, item: object, _: AutogenContext) -> str | Literal[False]:
    """Write our own and SQLModel's types as what they are in the database, so that migrations outlive the code."""
    if isinstance(item, AutoString):
        return f"sa.String(length={item.length})"
    # DATETIME is what SQLite says of it; PostgreSQL knows no such type.
    return "sa.DateTime(timezone=True)" if isinstance(item, UtcDateTime | DATETIME) else False


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
        # Several instances may start, and migrate, at once. On SQLite, BEGIN IMMEDIATE is the lock.
        if not on_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.run_migrations()
        if on_sqlite and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise RuntimeError("The migration would leave rows that point nowhere, so it was undone.")


async def migrate_database() -> None:
    engine = create_engine(
        context.config.attributes.get("database_url") or get_settings().database_url, for_migrations=True
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


asyncio.run(migrate_database())
