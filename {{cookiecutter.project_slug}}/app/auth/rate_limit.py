import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_network
from math import ceil
from typing import Any

from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage

from app.core.errors import RateLimited
from app.core.middleware import Address
from app.settings import Settings

REDIS_TIMEOUT_SECONDS = 0.2  # per attempt; a request makes at most four
MAX_WINDOWS = 100_000  # of each kind, about 25 MB


@dataclass(slots=True)
class Window:
    ends_at: float
    hits: int = 0


class MemoryWindows:
    """Fixed windows in this process.

    The memory storage of `limits` starts a task per hit that walks through all counters.
    """

    def __init__(self) -> None:
        # By kind, so that failures never evict the windows of keys.
        self._windows: dict[str, dict[tuple[int, str], Window]] = defaultdict(dict)

    async def hit(self, limit: RateLimitItem, kind: str, name: str) -> float:
        """The seconds until the window ends if the limit is exceeded, otherwise 0."""
        now = time.monotonic()
        windows = self._windows[kind]
        key = (limit.get_expiry(), name)  # without the amount: a change must not reset the window
        window = windows.get(key)
        if window is None or window.ends_at <= now:
            windows.pop(key, None)
            if len(windows) >= MAX_WINDOWS:
                running = [one for one in windows.items() if one[1].ends_at > now]
                # Drop those with the fewest hits, so that others cannot reset an exceeded limit.
                running.sort(key=lambda one: one[1].hits)
                windows = self._windows[kind] = dict(running[-MAX_WINDOWS // 2 :])
            window = windows[key] = Window(now + limit.get_expiry())
        window.hits += 1
        return window.ends_at - now if window.hits > limit.amount else 0


class RedisWindows:
    """Fixed windows that all processes share."""

    def __init__(self, redis_url: str) -> None:
        from redis.asyncio import ConnectionPool  # slow to import, and only needed here
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self.pool = ConnectionPool.from_url(
            redis_url,
            socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
            socket_timeout=REDIS_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),  # after a restart of Redis, each connection fails once
        )
        # limits passes the pool on to redis-py, although its annotation does not allow that.
        options: dict[str, Any] = {"implementation": "redispy", "connection_pool": self.pool}
        self._storage = RedisStorage("async+redis://", wrap_exceptions=True, **options)

    async def hit(self, limit: RateLimitItem, kind: str, name: str) -> float:
        """As in MemoryWindows. Raises StorageError if Redis is down."""
        seconds = limit.get_expiry()
        key = f"LIMITER/{kind}/{name}/{seconds}"  # as in MemoryWindows
        if await self._storage.incr(key, seconds) <= limit.amount:
            return 0
        wait = await self._storage.get_expiry(key) - time.time() + 0.5  # Redis rounds it
        return min(max(1, wait), seconds)  # the wall clock may have been set back


class RateLimiter:
    """Limits requests per key, and rejected keys per client address."""

    def __init__(self, settings: Settings) -> None:
        self._default = _parse(settings.rate_limit)
        self._failures = _parse(settings.failed_auth_limit)
        self._windows: MemoryWindows | RedisWindows = MemoryWindows()
        if settings.redis_url:
            self._windows = RedisWindows(settings.redis_url)

    async def count_request(self, original_id: str, own_limit: str | None) -> None:
        """Raises RateLimited. The key's own limit replaces the default."""
        limit = _parse(own_limit) or self._default
        if limit and (wait := await self._windows.hit(limit, "key", original_id)):
            raise RateLimited("key", limit.amount, limit.get_expiry(), ceil(wait))

    async def count_failure(self, address: Address | None) -> None:
        """Raises RateLimited. Valid keys from the same address are not affected.

        Clients without an address are not limited: they would all share one limit.
        """
        limit = self._failures
        if address is None or limit is None:
            return
        if wait := await self._windows.hit(limit, "failures", _network(address)):
            raise RateLimited("failures", limit.amount, limit.get_expiry(), ceil(wait))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            if isinstance(self._windows, RedisWindows):
                await self._windows.pool.aclose()


@lru_cache(1024)
def _parse(limit: str | None) -> RateLimitItem | None:
    return parse(limit) if limit else None


def _network(address: Address) -> str:
    """The address. For IPv6 its /64, which one client usually has."""
    if isinstance(address, IPv6Address):
        return str(ip_network(f"{address}/64", strict=False))
    return str(address)
