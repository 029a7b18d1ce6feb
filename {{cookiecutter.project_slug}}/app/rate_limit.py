import logging
import time
from collections.abc import Awaitable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_network
from math import ceil

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.errors import RateLimited
from app.settings import Settings

logger = logging.getLogger(__name__)

Address = IPv4Address | IPv6Address
REDIS_SECONDS = 0.2  # a request asks twice at most, and tries each twice: under a second in all


class RateLimiter:
    """So many requests a key, and so many wrong keys a client address, in every window of time.

    Counts are in this process, or with REDIS_URL in Redis, for all processes. A window starts with its first request.
    """

    def __init__(self, settings: Settings) -> None:
        self._default = _parse(settings.rate_limit)
        self._failures = _parse(settings.failed_auth_limit)
        self._fail_open = settings.rate_limit_fail_open
        self._pool = settings.redis_url and ConnectionPool.from_url(
            settings.redis_url,
            socket_connect_timeout=REDIS_SECONDS,
            socket_timeout=REDIS_SECONDS,
            retry=Retry(NoBackoff(), 1),  # a connection from before a restart of Redis fails once
        )
        self._windows = FixedWindowRateLimiter(_in_redis(self._pool) if self._pool else MemoryStorage())

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


def _in_redis(pool: ConnectionPool) -> RedisStorage:
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
