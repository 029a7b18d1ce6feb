import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_network
from math import ceil
from typing import TYPE_CHECKING

from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError

from app.errors import RateLimited
from app.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool

logger = logging.getLogger(__name__)

Address = IPv4Address | IPv6Address
REDIS_SECONDS = 0.2  # a request asks twice at most, and tries each twice: under a second in all

MOST_WINDOWS = 200_000  # some 50 MB; beyond, those that ended go, and the oldest half


@dataclass(slots=True)
class Window:
    reset_time: float  # when it ends, in seconds since 1970
    hits: int = 0


class MemoryWindows:
    """Counts in this process, as the strategy of `limits` does in Redis.

    The memory storage of `limits` starts a task on each hit, which walks through all counters.
    """

    def __init__(self) -> None:
        self._windows: dict[tuple[RateLimitItem, str, str], Window] = {}  # oldest first; another limit, another window

    async def hit(self, limit: RateLimitItem, name: str, who: str) -> bool:
        now = time.time()
        window = self._windows.get((limit, name, who))
        if window is None or window.reset_time <= now:
            self._windows.pop((limit, name, who), None)
            self._make_room(now)
            window = self._windows[limit, name, who] = Window(now + limit.get_expiry())
        window.hits += 1
        return window.hits <= limit.amount

    async def test(self, limit: RateLimitItem, name: str, who: str) -> bool:
        return (await self.get_window_stats(limit, name, who)).hits < limit.amount

    async def get_window_stats(self, limit: RateLimitItem, name: str, who: str) -> Window:
        now = time.time()
        window = self._windows.get((limit, name, who))
        return window if window and window.reset_time > now else Window(now + limit.get_expiry())

    def _make_room(self, now: float) -> None:
        if len(self._windows) >= MOST_WINDOWS:
            self._windows = {who: window for who, window in self._windows.items() if window.reset_time > now}
            for who in [*self._windows][: max(0, len(self._windows) - MOST_WINDOWS // 2)]:
                del self._windows[who]


class RateLimiter:
    """So many requests a key, and so many wrong keys a client address, in every window of time.

    Counts are in this process, or with REDIS_URL in Redis, for all processes. A window starts with its first request.
    """

    def __init__(self, settings: Settings) -> None:
        self._default = _parse(settings.rate_limit)
        self._failures = _parse(settings.failed_auth_limit)
        self._fail_open = settings.rate_limit_fail_open
        self._pool = _connect(settings.redis_url) if settings.redis_url else None
        self._windows = FixedWindowRateLimiter(_in_redis(self._pool)) if self._pool else MemoryWindows()

    async def close(self) -> None:
        if self._pool:
            await self._pool.aclose()

    async def hit(self, key_id: str, own_limit: str | None) -> None:
        """Count a request of a key, whose own limit goes before the default. Raises RateLimited."""
        limit = _parse(own_limit) or self._default
        if limit and not await self._ask(self._windows.hit(limit, "key", key_id)):
            raise await self._refusal("key", limit, key_id)

    async def count_failure(self, address: Address | None) -> None:
        """Count a wrong key, for `refuse_guesser`."""
        if self._failures:
            await self._ask(self._windows.hit(self._failures, "failures", _network(address)))

    async def refuse_guesser(self, address: Address | None) -> None:
        """Raises RateLimited for an address that has presented too many wrong keys, and counts nothing."""
        network = _network(address)
        if self._failures and not await self._ask(self._windows.test(self._failures, "failures", network)):
            raise await self._refusal("failures", self._failures, network)

    async def _ask(self, passes: Awaitable[bool]) -> bool:
        """Whether it passes; while Redis is away, as RATE_LIMIT_FAIL_OPEN says, which is not, for the safe side."""
        try:
            return await passes
        except StorageError as error:
            logger.error("rate limits: Redis does not answer: %s", error)
            if not self._fail_open:
                raise
            return True

    async def _refusal(self, name: str, limit: RateLimitItem, who: str) -> RateLimited:
        reset_time = (await self._windows.get_window_stats(limit, name, who)).reset_time
        return RateLimited(name, limit.amount, limit.get_expiry(), max(1, ceil(reset_time - time.time())))


def _connect(redis_url: str) -> "ConnectionPool":
    from redis.asyncio import ConnectionPool  # here: without REDIS_URL, nobody should wait for it
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return ConnectionPool.from_url(
        redis_url,
        socket_connect_timeout=REDIS_SECONDS,
        socket_timeout=REDIS_SECONDS,
        retry=Retry(NoBackoff(), 1),  # a connection from before a restart of Redis fails once
    )


def _in_redis(pool: "ConnectionPool") -> RedisStorage:
    options = {"connection_pool": pool}
    return RedisStorage(
        "async+redis://",
        implementation="redispy",
        wrap_exceptions=True,
        **options,  # type: ignore[arg-type] # passed on to redis-py, which takes more than the annotation says
    )


@lru_cache(1024)
def _parse(limit: str | None) -> RateLimitItem | None:
    return parse(limit) if limit else None


def _network(address: Address | None) -> str:
    """The address; of IPv6 the /64, which is what one client has."""
    return str(ip_network(f"{address}/64", strict=False) if isinstance(address, IPv6Address) else address)
