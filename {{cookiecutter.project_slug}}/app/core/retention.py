"""Old rows are deleted once a day, in short transactions, so that other writers hardly wait.

`app.state.retention` lists the kinds of rows. A feature that keeps rows for a limited time appends
to it.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, time, timedelta
from typing import NamedTuple

from sqlalchemy import delete, select, tuple_
from sqlalchemy.orm import class_mapper
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from app.core.database import Database, utc_now
from app.core.errors import Conflict

logger = logging.getLogger(__name__)

# One process deletes at a time. The number is any constant. SQLite has one writer anyway.
TRY_LOCK = {"postgresql": "SELECT pg_try_advisory_xact_lock(7266130458)", "sqlite": "SELECT true"}
PAUSE_SECONDS = 0.02  # between two transactions
SHUTDOWN_SECONDS = 5


class Retention(NamedTuple):
    """Rows are deleted when their column `moment`, which has an index, is older than `days`."""

    name: str
    model: type[SQLModel]
    moment: str
    days: int | None  # None: they are kept
    chunk: int = 1000  # rows per transaction


async def purge(
    database: Database, retentions: Sequence[Retention]
) -> AsyncIterator[tuple[str, int]]:
    """Delete all old rows. Yields a name and a number of rows after each transaction.

    Raises Conflict while another process does the same.
    """
    for retention in retentions:
        since = datetime.min.replace(tzinfo=UTC)
        until = utc_now() - timedelta(days=retention.days) if retention.days else since
        while since < until:
            async with database.session() as session:
                moments = await _delete_chunk(session, retention, since, until)
            yield retention.name, len(moments)
            since = max(moments) if len(moments) == retention.chunk else until
            await asyncio.sleep(PAUSE_SECONDS)


async def _delete_chunk(
    session: AsyncSession, retention: Retention, since: datetime, until: datetime
) -> Sequence[datetime]:
    """Delete the oldest rows, and return their moments.

    `since` skips the rows that PostgreSQL has deleted, but not yet removed from the index. Rows
    that others have locked stay until the next day, so this cannot cause a deadlock.
    """
    connection = await session.connection()
    lock = TRY_LOCK[connection.dialect.name]
    if not (await connection.exec_driver_sql(lock)).scalar_one():
        raise Conflict("Another process is deleting old data.")
    table = class_mapper(retention.model).local_table
    moment = table.c[retention.moment]
    oldest = select(*table.primary_key).where(moment >= since, moment < until)
    oldest = oldest.order_by(moment).limit(retention.chunk).with_for_update(skip_locked=True)
    # In a CTE, because PostgreSQL may run a subquery more than once, and delete too many rows.
    chunk = oldest.cte()
    is_in_chunk = tuple_(*table.primary_key).in_(select(chunk))
    statement = delete(retention.model).where(is_in_chunk).returning(moment)
    return (await connection.execute(statement)).scalars().all()


@asynccontextmanager
async def purge_daily(database: Database, retentions: Sequence[Retention]) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    task = asyncio.create_task(_purge_daily(database, retentions, stopping))
    try:
        yield
    finally:
        stopping.set()
        await asyncio.wait({task}, timeout=SHUTDOWN_SECONDS)


async def _purge_daily(
    database: Database, retentions: Sequence[Retention], stopping: asyncio.Event
) -> None:
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), seconds_until_midnight())
            return
        deleted: Counter[str] = Counter()
        try:
            async for name, number in purge(database, retentions):
                deleted[name] += number
                if stopping.is_set():
                    return
        except Conflict:
            continue
        except Exception as error:
            logger.warning("old rows were not deleted: %s", error, exc_info=True)
        logger.info("old rows were deleted: %s", dict(deleted))


def seconds_until_midnight() -> float:
    """In UTC. All processes wake at the same time, and one of them gets the lock."""
    now = utc_now()
    midnight = datetime.combine(now + timedelta(days=1), time.min, UTC)
    return (midnight - now).total_seconds()
