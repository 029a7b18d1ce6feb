from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, bindparam, text
from sqlmodel import UTCDateTime, col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys import service as api_keys
from app.api_keys.models import UserApiKey
from app.auth.caller import Caller
from app.core.errors import InvalidInput
from app.usage.models import ApiKeyUsage, ApiKeyUsageDay, Counts
from app.usage.schemas import (
    TotalUsageQuery,
    TotalUsageRead,
    UsageBucket,
    UsageQuery,
    UsageRead,
)

MAX_BUCKETS = 1000
MAX_TOTAL_BUCKETS = 100  # of all keys: more hours would read millions of rows

KeyAndHour = tuple[str, int]  # since 1970


@dataclass(slots=True)
class Counter:
    requests: int = 0
    errors: int = 0
    last_used: float = 0  # seconds since 1970, cheaper than a datetime

    def add(self, later: "Counter") -> None:
        self.requests += later.requests
        self.errors += later.errors
        self.last_used = later.last_used


# One statement for a thousand keys takes PostgreSQL half as long as one for each key. The first
# statement locks the keys in order, so that two instances do not deadlock.
ON_POSTGRESQL = (
    text("SELECT FROM user_api_keys WHERE id = ANY(:key_id) ORDER BY id FOR NO KEY UPDATE"),
    text(
        """
        INSERT INTO api_key_usage (key_id, start, requests, errors)
        SELECT counted.*
        FROM unnest(
            CAST(:key_id AS varchar[]), CAST(:start AS timestamptz[]),
            CAST(:requests AS bigint[]), CAST(:errors AS bigint[])
        ) AS counted (id, start, requests, errors)
        JOIN user_api_keys USING (id)
        ON CONFLICT (key_id, start) DO UPDATE SET
            requests = api_key_usage.requests + excluded.requests,
            errors = api_key_usage.errors + excluded.errors
        """
    ),
    text(
        """
        INSERT INTO api_key_usage_days (key_id, start, requests, errors)
        SELECT counted.id, counted.day, sum(counted.requests), sum(counted.errors)
        FROM unnest(
            CAST(:key_id AS varchar[]), CAST(:day AS timestamptz[]),
            CAST(:requests AS bigint[]), CAST(:errors AS bigint[])
        ) AS counted (id, day, requests, errors)
        JOIN user_api_keys USING (id)
        GROUP BY counted.id, counted.day
        ON CONFLICT (key_id, start) DO UPDATE SET
            requests = api_key_usage_days.requests + excluded.requests,
            errors = api_key_usage_days.errors + excluded.errors
        """
    ),
    text(
        """
        UPDATE user_api_keys SET last_used_at = greatest(last_used_at, used.at)
        FROM (
            SELECT id, max(at)
            FROM unnest(CAST(:key_id AS varchar[]), CAST(:used_at AS timestamptz[])) AS one (id, at)
            GROUP BY id
        ) AS used (id, at)
        WHERE user_api_keys.id = used.id
        """
    ),
)
ON_SQLITE = (
    text(
        """
        INSERT INTO api_key_usage (key_id, start, requests, errors)
        SELECT id, :start, :requests, :errors FROM user_api_keys WHERE id = :key_id
        ON CONFLICT (key_id, start) DO UPDATE SET
            requests = requests + excluded.requests,
            errors = errors + excluded.errors
        """
    ).bindparams(bindparam("start", type_=UTCDateTime)),
    text(
        """
        INSERT INTO api_key_usage_days (key_id, start, requests, errors)
        SELECT id, :day, :requests, :errors FROM user_api_keys WHERE id = :key_id
        ON CONFLICT (key_id, start) DO UPDATE SET
            requests = requests + excluded.requests,
            errors = errors + excluded.errors
        """
    ).bindparams(bindparam("day", type_=UTCDateTime)),
    text(
        """
        UPDATE user_api_keys SET last_used_at = max(coalesce(last_used_at, :used_at), :used_at)
        WHERE id = :key_id
        """
    ).bindparams(bindparam("used_at", type_=UTCDateTime)),
)


async def add(session: AsyncSession, counters: Mapping[KeyAndHour, Counter]) -> None:
    """Add the counts. Those of deleted keys are dropped."""
    rows = [
        {
            "key_id": key_id,
            "start": datetime.fromtimestamp(hour * 3600, UTC),
            "day": datetime.fromtimestamp(hour // 24 * 86_400, UTC),
            "requests": counter.requests,
            "errors": counter.errors,
            "used_at": datetime.fromtimestamp(counter.last_used, UTC),
        }
        for (key_id, hour), counter in counters.items()
    ]
    connection = await session.connection()
    on_postgresql = connection.dialect.name == "postgresql"
    arrays = {name: [row[name] for row in rows] for name in rows[0]}
    for statement in ON_POSTGRESQL if on_postgresql else ON_SQLITE:
        await connection.execute(statement, arrays if on_postgresql else rows)


async def read(session: AsyncSession, key_id: str, query: UsageQuery) -> UsageRead:
    buckets = _empty_buckets(query, MAX_BUCKETS)
    statement = select(ApiKeyUsage).where(
        ApiKeyUsage.key_id == key_id, *_in_period(ApiKeyUsage, query)
    )
    for row in (await session.exec(statement)).all():
        bucket = buckets[query.floor(row.start)]
        bucket.requests += row.requests
        bucket.errors += row.errors
    return UsageRead.of(buckets.values())


async def read_total(
    session: AsyncSession, caller: Caller, query: TotalUsageQuery
) -> TotalUsageRead:
    """Of all keys that the caller can see. The last bucket counts entirely."""
    buckets = _empty_buckets(query, MAX_TOTAL_BUCKETS)
    model = ApiKeyUsage if query.granularity == "hour" else ApiKeyUsageDay
    counted = _in_period(model, query)
    if visible := api_keys.visible_to(caller):
        counted.append(col(model.key_id).in_(select(UserApiKey.id).where(*visible)))
    requests = func.sum(model.requests).label("requests")
    errors = func.sum(model.errors).label("errors")

    by_start = select(model.start, requests, errors).where(*counted).group_by(col(model.start))
    for start, *sums in await session.exec(by_start):
        buckets[start].requests, buckets[start].errors = map(int, sums)

    by_key = select(model.key_id, requests, errors).where(*counted).group_by(col(model.key_id))
    busiest = by_key.order_by(requests.desc(), col(model.key_id)).limit(query.top).subquery()
    keys = select(UserApiKey, busiest.c.requests, busiest.c.errors)
    keys = keys.join(busiest, busiest.c.key_id == UserApiKey.id)
    rows = await session.exec(keys.order_by(busiest.c.requests.desc(), UserApiKey.id))
    top = [{**key.model_dump(), "requests": sums[0], "errors": sums[1]} for key, *sums in rows]
    return TotalUsageRead.of(buckets.values(), top=top)


def _empty_buckets(query: UsageQuery, maximum: int) -> dict[datetime, UsageBucket]:
    start, end = query.period()
    if start >= end:
        raise InvalidInput(("/query/from", "Input should be before `to`."))
    number = -((start - end) // query.step)  # rounded up
    if number > maximum:
        raise InvalidInput(("/query/from", f"The period has more than {maximum} buckets."))
    moments = (start + index * query.step for index in range(number))
    return {moment: UsageBucket(start=moment) for moment in moments}


def _in_period(model: type[Counts], query: UsageQuery) -> list[ColumnElement[bool]]:
    start, end = query.period()
    return [col(model.start) >= start, col(model.start) < end]
