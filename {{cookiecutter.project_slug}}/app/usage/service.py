from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import bindparam, delete, or_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys.models import UserApiKey
from app.core.errors import InvalidInput
from app.usage.models import ApiKeyUsage
from app.usage.schemas import UsageBucket, UsageQuery, UsageRead

MAX_BUCKETS = 1000
CHUNK = 1000  # rows per statement


@dataclass(slots=True)
class Counter:
    requests: int = 0
    errors: int = 0
    last_used: float = 0  # seconds since 1970, cheaper than a datetime


# Only forward, and only this column, so that a late write does not undo other changes of the key.
SET_LAST_USED = (
    update(UserApiKey)
    .where(col(UserApiKey.id) == bindparam("key"))
    .where(
        or_(
            col(UserApiKey.last_used_at).is_(None),
            col(UserApiKey.last_used_at) < bindparam("used"),
        )
    )
    .values(last_used_at=bindparam("used"), updated_at=col(UserApiKey.updated_at))
)


async def add(session: AsyncSession, counters: Mapping[tuple[str, int], Counter]) -> None:
    """Add the counts, by key and hour since 1970. Those of deleted keys are dropped."""
    # Always in the same order, so that two instances do not deadlock.
    ordered = sorted(counters.items())
    for first in range(0, len(ordered), CHUNK):
        chunk = ordered[first : first + CHUNK]
        key_ids = {key_id for (key_id, _), _ in chunk}
        locked = select(UserApiKey.id).where(col(UserApiKey.id).in_(key_ids))
        locked = locked.order_by(col(UserApiKey.id)).with_for_update(key_share=True, read=True)
        known = {*(await session.exec(locked)).all()}
        rows = [row for row in chunk if row[0][0] in known]
        if rows:
            await _add_rows(session, rows)


async def _add_rows(session: AsyncSession, rows: list[tuple[tuple[str, int], Counter]]) -> None:
    connection = await session.connection()
    on_postgresql = connection.dialect.name == "postgresql"
    insert = postgresql.insert(ApiKeyUsage) if on_postgresql else sqlite.insert(ApiKeyUsage)
    upsert = insert.on_conflict_do_update(
        index_elements=["key_id", "start"],
        set_={
            "requests": col(ApiKeyUsage.requests) + insert.excluded.requests,
            "errors": col(ApiKeyUsage.errors) + insert.excluded.errors,
        },
    )
    hours = [
        {
            "key_id": key_id,
            "start": datetime.fromtimestamp(hour * 3600, UTC),
            "requests": counter.requests,
            "errors": counter.errors,
        }
        for (key_id, hour), counter in rows
    ]
    await connection.execute(upsert, hours)
    used = [
        {"key": key_id, "used": datetime.fromtimestamp(counter.last_used, UTC)}
        for (key_id, _), counter in rows
    ]
    await connection.execute(SET_LAST_USED, used)


async def delete_before(session: AsyncSession, moment: datetime) -> None:
    await session.exec(delete(ApiKeyUsage).where(col(ApiKeyUsage.start) < moment))


async def read(session: AsyncSession, key_id: str, query: UsageQuery) -> UsageRead:
    step = timedelta(hours=1) if query.granularity == "hour" else timedelta(days=1)
    start, end = query.period()
    if start >= end:
        raise InvalidInput(("/query/from", "Input should be before `to`."))
    number = -((start - end) // step)  # rounded up
    if number > MAX_BUCKETS:
        raise InvalidInput(("/query/from", f"The period has more than {MAX_BUCKETS} buckets."))
    moments = (start + index * step for index in range(number))
    buckets = {moment: UsageBucket(start=moment) for moment in moments}
    statement = select(ApiKeyUsage).where(
        ApiKeyUsage.key_id == key_id,
        col(ApiKeyUsage.start) >= start,
        col(ApiKeyUsage.start) < end,
    )
    for row in (await session.exec(statement)).all():
        bucket = buckets[query.floor(row.start)]
        bucket.requests += row.requests
        bucket.errors += row.errors
    return UsageRead(
        total=sum(bucket.requests for bucket in buckets.values()),
        errors=sum(bucket.errors for bucket in buckets.values()),
        buckets=[*buckets.values()],
    )
