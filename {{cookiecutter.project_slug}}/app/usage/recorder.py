import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from app.database import Database, utc_now
from app.settings import Settings
from app.usage import service

logger = logging.getLogger(__name__)

MOST_COUNTERS = 100_000  # keys times hours that are held while the database is away: some 30 MB
SHUTDOWN_SECONDS = 5


@dataclass(slots=True)
class Counter:
    requests: int = 0
    errors: int = 0
    last_used: float = 0  # in seconds since 1970: a datetime takes longer, and this is counted on every request


Counters = dict[tuple[str, int], Counter]  # by key and hour since 1970


class UsageRecorder:
    """Counts requests in memory, and adds the counts to the database every few seconds in a session of its own.

    A write per request would cost ten times the request. A crash loses what was counted since the last flush; nothing
    is counted twice.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._interval = settings.usage_flush_seconds
        self._retention = timedelta(days=settings.usage_retention_days)
        self._counters: Counters = {}
        self._dropped = 0
        self._stopping = asyncio.Event()

    @property
    def backlog(self) -> int:
        return len(self._counters)

    def record(self, key_id: str, *, error: bool) -> None:
        now = time.time()
        self._add((key_id, int(now // 3600)), 1, int(error), now)

    def _add(self, key_and_hour: tuple[str, int], requests: int, errors: int, last_used: float) -> None:
        counter = self._counters.get(key_and_hour)
        if counter is None:
            if len(self._counters) >= MOST_COUNTERS:
                self._dropped += requests
                return
            counter = self._counters[key_and_hour] = Counter()
        counter.requests += requests
        counter.errors += errors
        counter.last_used = max(counter.last_used, last_used)

    async def flush(self) -> None:
        """Write what was counted. What the database does not take is kept, as far as it fits, for the next time."""
        counters, self._counters = self._counters, {}
        dropped, self._dropped = self._dropped, 0
        if dropped:
            logger.error("usage: %s requests were not counted: the counters are full", dropped)
        committing = False
        try:
            async with self._database.session() as session:
                await service.add(session, counters)
                committing = True
        except (SQLAlchemyError, OSError) as error:
            logger.warning("usage: the database took no counts: %s", error)
            if committing:  # it may have them; to try again could count twice
                logger.error("usage: %s requests may not be counted", sum(one.requests for one in counters.values()))
                return
            for key_and_hour, counter in counters.items():
                self._add(key_and_hour, counter.requests, counter.errors, counter.last_used)

    async def fold(self) -> None:
        """Fold the hours that are too old to be kept into days."""
        midnight = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
        try:
            async with self._database.session() as session:
                await service.fold(session, before=midnight - self._retention)
        except (SQLAlchemyError, OSError) as error:
            logger.warning("usage: old hours could not be folded: %s", error)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Flush every few seconds inside the block, and once more after it."""
        task = asyncio.create_task(self._run())
        yield
        self._stopping.set()
        try:
            await asyncio.wait_for(task, SHUTDOWN_SECONDS)
        except TimeoutError:
            logger.error("usage: what was counted last is lost: the database did not take it before the end")

    async def _run(self) -> None:
        folded_on, is_last = None, False
        while not is_last:
            with suppress(TimeoutError):
                is_last = await asyncio.wait_for(self._stopping.wait(), self._interval)
            if self._counters:
                await self.flush()
            if folded_on != (today := utc_now().date()) and not is_last:
                await self.fold()
                folded_on = today
