import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy.exc import SQLAlchemyError

from app.core.database import Database
from app.core.middleware import FinishedRequest
from app.usage import service
from app.usage.service import Counter, KeyAndHour
from app.usage.settings import UsageSettings

logger = logging.getLogger(__name__)

MAX_COUNTERS = 100_000  # keys × hours, kept while the database is down: about 30 MB
# Counters per transaction. On SQLite, all other writers wait for it, and retry in between.
CHUNK = {"postgresql": 1000, "sqlite": 100}
PAUSE_SECONDS = {"postgresql": 0, "sqlite": 0.01}
SHUTDOWN_SECONDS = 5


class UsageRecorder:
    """Counts requests in memory, and adds the counts to the database every few seconds.

    A write per request would take ten times as long as the request. A crash loses the counts since
    the last flush. Nothing is counted twice.
    """

    def __init__(self, settings: UsageSettings, database: Database) -> None:
        self._database = database
        self._interval = settings.usage_flush_seconds
        self._counters: dict[KeyAndHour, Counter] = {}
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

    def _new_counter(self, key_and_hour: KeyAndHour) -> Counter:
        if len(self._counters) >= MAX_COUNTERS:
            return self._overflow
        return self._counters.setdefault(key_and_hour, Counter())

    async def flush(self) -> None:
        """Write the counts in short transactions. If one fails, keep what is not written."""
        counters, self._counters = self._counters, {}
        overflow, self._overflow = self._overflow, Counter()
        if overflow.requests:
            logger.error("usage: %s requests were not counted", overflow.requests)
        dialect = self._database.engine.dialect.name
        while counters:
            chunk = dict(counters.popitem() for _ in range(min(CHUNK[dialect], len(counters))))
            if not await self._write(chunk):
                self._keep(counters | chunk)
                return
            await asyncio.sleep(PAUSE_SECONDS[dialect])

    async def _write(self, chunk: dict[KeyAndHour, Counter]) -> bool:
        """Whether the chunk was written. It is emptied if it may have been."""
        committing = False
        try:
            async with self._database.session() as session:
                await service.add(session, chunk)
                committing = True
        except Exception as error:
            is_bug = not isinstance(error, SQLAlchemyError | OSError)
            logger.warning("usage: the counts were not written: %s", error, exc_info=is_bug)
            if committing:  # another attempt could count them twice
                requests = sum(counter.requests for counter in chunk.values())
                logger.error("usage: %s requests may not be counted", requests)
                chunk.clear()
            return False
        return True

    def _keep(self, counters: dict[KeyAndHour, Counter]) -> None:
        newer, self._counters = self._counters, counters
        for key_and_hour, counter in newer.items():
            kept = self._counters.get(key_and_hour) or self._new_counter(key_and_hour)
            kept.add(counter)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Flush every few seconds, and once more at the end."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._stopping.set()
            try:
                await asyncio.wait_for(task, SHUTDOWN_SECONDS)
            except TimeoutError:
                logger.error("usage: the last counts are lost: the database did not respond")

    async def _run(self) -> None:
        is_last = False
        while not is_last:
            with suppress(TimeoutError):
                is_last = await asyncio.wait_for(self._stopping.wait(), self._interval)
            await self.flush()
