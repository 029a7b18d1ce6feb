import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from app.core.database import Database, utc_now
from app.core.middleware import FinishedRequest
from app.usage import service
from app.usage.service import Counter
from app.usage.settings import UsageSettings

logger = logging.getLogger(__name__)

MAX_COUNTERS = 100_000  # keys × hours, kept while the database is down: about 30 MB
SHUTDOWN_SECONDS = 5


class UsageRecorder:
    """Counts requests in memory, and adds the counts to the database every few seconds.

    A write per request would take ten times as long as the request. A crash loses the counts since
    the last flush. Nothing is counted twice.
    """

    def __init__(self, settings: UsageSettings, database: Database) -> None:
        self._database = database
        self._interval = settings.usage_flush_seconds
        self._retention = timedelta(days=settings.usage_retention_days)
        self._counters: dict[tuple[str, int], Counter] = {}  # by key and hour since 1970
        self._overflow = Counter()  # of requests that are not counted
        self._stopping = asyncio.Event()

    def record(self, finished: FinishedRequest) -> None:
        if not finished.is_authenticated or finished.key_id is None:
            return
        now = time.time()
        key_and_hour = (finished.key_id, int(now // 3600))
        counter = self._counters.get(key_and_hour) or self._new_counter(key_and_hour)
        counter.requests += 1
        counter.errors += finished.status >= 400
        counter.last_used = now

    def _new_counter(self, key_and_hour: tuple[str, int]) -> Counter:
        if len(self._counters) >= MAX_COUNTERS:
            return self._overflow
        return self._counters.setdefault(key_and_hour, Counter())

    async def flush(self) -> None:
        """Write the counts. Keep them for the next time if the database rejects them."""
        counters, self._counters = self._counters, {}
        overflow, self._overflow = self._overflow, Counter()
        if overflow.requests:
            logger.error("usage: %s requests were not counted", overflow.requests)
        committing = False
        try:
            async with self._database.session() as session:
                await service.add(session, counters)
                committing = True
        except (SQLAlchemyError, OSError) as error:
            logger.warning("usage: the counts were not written: %s", error)
            if committing:  # they may have been written, so another attempt could count them twice
                requests = sum(counter.requests for counter in counters.values())
                logger.error("usage: %s requests may not be counted", requests)
                return
            for key_and_hour, kept in counters.items():
                counter = self._counters.get(key_and_hour) or self._new_counter(key_and_hour)
                counter.requests += kept.requests
                counter.errors += kept.errors
                counter.last_used = max(counter.last_used, kept.last_used)

    async def delete_old(self) -> None:
        try:
            async with self._database.session() as session:
                await service.delete_before(session, utc_now() - self._retention)
        except (SQLAlchemyError, OSError) as error:
            logger.warning("usage: old hours were not deleted: %s", error)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Flush every few seconds, and once more at the end."""
        task = asyncio.create_task(self._run())
        yield
        self._stopping.set()
        try:
            await asyncio.wait_for(task, SHUTDOWN_SECONDS)
        except TimeoutError:
            logger.error("usage: the last counts are lost: the database did not respond in time")

    async def _run(self) -> None:
        cleaned_on = None
        is_last = False
        while not is_last:
            with suppress(TimeoutError):
                is_last = await asyncio.wait_for(self._stopping.wait(), self._interval)
            if self._counters:
                await self.flush()
            today = utc_now().date()
            if cleaned_on != today and not is_last:
                await self.delete_old()
                cleaned_on = today
