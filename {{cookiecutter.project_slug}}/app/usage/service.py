from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, or_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys.models import UserApiKey
from app.errors import InvalidInput
from app.usage.models import ApiKeyUsage
from app.usage.schemas import Bucket, UsageQuery, UsageRead

if TYPE_CHECKING:
    from app.usage.recorder import Counter

MOST_BUCKETS = 1000
CHUNK = 1000  # rows in one statement; SQLite takes 32 766 parameters, PostgreSQL 65 535


async def add(session: AsyncSession, counters: Mapping[tuple[str, int], "Counter"]) -> None:
    """Add to the hours, and move last_used_at forward; counts of keys that were deleted meanwhile are dropped."""
    # In one order everywhere, or two instances would wait for each other's rows for ever.
    key_ids = sorted({key_id for key_id, _ in counters})
    for first in range(0, len(key_ids), CHUNK):
        chunk = key_ids[first : first + CHUNK]
        locked = select(UserApiKey.id).where(col(UserApiKey.id).in_(chunk)).order_by(col(UserApiKey.id))
        known = {*(await session.exec(locked.with_for_update(key_share=True, read=True))).all()}
        rows = [(key_id, hour, counters[key_id, hour]) for key_id, hour in sorted(counters) if key_id in known]
        if rows:
            hours = [(key_id, _moment(hour * 3600), False, one.requests, one.errors) for key_id, hour, one in rows]
            await _add_rows(session, hours)
            connection = await session.connection()
            await connection.execute(USED, [{"key": key_id, "used": _moment(one.last_used)} for key_id, _, one in rows])


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


# Only this column, and only forward: a late write must undo nothing that was done to the key since.
USED = (
    update(UserApiKey)
    .where(col(UserApiKey.id) == bindparam("key"))
    .where(or_(col(UserApiKey.last_used_at).is_(None), col(UserApiKey.last_used_at) < bindparam("used")))
    .values(last_used_at=bindparam("used"), updated_at=col(UserApiKey.updated_at))
)


async def _add_rows(session: AsyncSession, rows: Iterable[tuple[str, datetime, bool, int, int]]) -> None:
    connection = await session.connection()
    insert = (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(ApiKeyUsage)
    upsert = insert.on_conflict_do_update(
        index_elements=["key_id", "start", "is_day"],
        set_={
            "requests": col(ApiKeyUsage.requests) + insert.excluded.requests,
            "errors": col(ApiKeyUsage.errors) + insert.excluded.errors,
        },
    )
    names = ("key_id", "start", "is_day", "requests", "errors")
    await connection.execute(upsert, [dict(zip(names, row, strict=True)) for row in rows])


async def fold(session: AsyncSession, before: datetime) -> None:
    """Replace the hours before a moment by days. DELETE … RETURNING gives each row to one instance only."""
    old = (
        delete(ApiKeyUsage)
        .where(~col(ApiKeyUsage.is_day), col(ApiKeyUsage.start) < before)
        .returning(col(ApiKeyUsage.key_id), col(ApiKeyUsage.start), col(ApiKeyUsage.requests), col(ApiKeyUsage.errors))
    )
    days: dict[tuple[str, datetime], tuple[int, int]] = {}
    for key_id, start, requests, errors in (await (await session.connection()).execute(old)).all():
        day = key_id, start.replace(hour=0)
        before_it = days.get(day, (0, 0))
        days[day] = before_it[0] + requests, before_it[1] + errors
    if days:
        await _add_rows(session, [(key_id, day, True, *sums) for (key_id, day), sums in sorted(days.items())])


async def read(session: AsyncSession, key_id: str, query: UsageQuery) -> UsageRead:
    step = timedelta(hours=1) if query.granularity == "hour" else timedelta(days=1)
    start, end = query.period()
    if start >= end:
        raise InvalidInput(("/query/from", "This is not before `to`."))
    if (end - start) / step > MOST_BUCKETS:
        raise InvalidInput(("/query/from", f"This would be more than {MOST_BUCKETS} buckets."))
    buckets = {start + number * step: Bucket(start=start + number * step) for number in range(-((start - end) // step))}
    statement = select(ApiKeyUsage).where(
        ApiKeyUsage.key_id == key_id, col(ApiKeyUsage.start) >= start, col(ApiKeyUsage.start) < end
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
