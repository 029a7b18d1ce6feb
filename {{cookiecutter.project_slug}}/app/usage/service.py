from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import bindparam, text
from sqlmodel import UTCDateTime, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.core.errors import InvalidInput
from app.usage.models import ApiKeyUsage
from app.usage.schemas import UsageBucket, UsageQuery, UsageRead

MAX_BUCKETS = 1000

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
