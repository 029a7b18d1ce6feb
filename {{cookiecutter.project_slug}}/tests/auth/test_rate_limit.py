import asyncio
import os
import socket
import time
from contextlib import ExitStack
from datetime import timedelta
from ipaddress import ip_address
from unittest.mock import AsyncMock, Mock
from uuid import uuid4

import pytest
import time_machine
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response
from limits.aio.storage import RedisStorage
from limits.errors import StorageError

from app.auth import key_format, rate_limit
from app.auth.rate_limit import RateLimiter
from app.core.database import utc_now
from app.core.errors import RateLimited
from tests.conftest import AsUser, ChangeKey, make_settings

ME = "/v1/users/me"
TEST_REDIS_URL = os.environ.get("TEST_REDIS_URL")
UNAVAILABLE = "redis://127.0.0.1:1/0"


async def get_me(app: FastAPI, text: str, address: str) -> Response:
    transport = ASGITransport(app, client=(address, 1))
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(ME, headers={"Authorization": f"Bearer {text}"})


@pytest.mark.parametrize("settings", [{"rate_limit": "3/minute"}], indirect=True)
async def test_the_response_over_the_limit_says_when_to_retry(as_user: AsUser) -> None:
    me, other = await as_user(), await as_user()
    assert [(await me.get(ME)).status_code for _ in range(3)] == [200] * 3
    response = await me.get(ME)
    assert (response.status_code, response.json()["code"]) == (429, "rate_limited")
    wait = int(response.headers["retry-after"])
    assert 0 < wait <= 60
    assert response.headers["ratelimit-policy"] == '"key";q=3;w=60'
    assert response.headers["ratelimit"] == f'"key";r=0;t={wait}'
    assert (await other.get(ME)).status_code == 200


@pytest.mark.parametrize("settings", [{"rate_limit": "3/minute"}], indirect=True)
async def test_the_limit_of_a_key_replaces_the_default(
    as_user: AsUser, change_key: ChangeKey
) -> None:
    higher, lower = await as_user(), await as_user()
    await change_key(higher.key, rate_limit="5/minute")
    await change_key(lower.key, rate_limit="1/hour")
    assert [(await higher.get(ME)).status_code for _ in range(6)] == [200] * 5 + [429]
    assert [(await lower.get(ME)).status_code for _ in range(2)] == [200, 429]


async def test_both_limits_can_be_turned_off() -> None:
    limiter = RateLimiter(make_settings(rate_limit="", failed_auth_limit=""))
    for _ in range(1000):
        await limiter.count_request("key", None)
        await limiter.count_failure(ip_address("192.0.2.1"))


@pytest.mark.parametrize("settings", [{"failed_auth_limit": "3/minute"}], indirect=True)
@pytest.mark.parametrize("well_formed", [False, True])
async def test_invalid_keys_are_limited_per_address_and_valid_keys_always_pass(
    app: FastAPI, as_user: AsUser, *, well_formed: bool
) -> None:
    me = await as_user()
    invalid = key_format.generate("acme", "test").text if well_formed else "malformed"
    responses = [await get_me(app, invalid, "192.0.2.1") for _ in range(5)]
    assert [response.status_code for response in responses] == [401, 401, 401, 429, 429]
    assert responses[-1].headers["ratelimit-policy"] == '"failures";q=3;w=60'
    assert int(responses[-1].headers["retry-after"]) in range(1, 61)
    assert (await get_me(app, me.api_key, "192.0.2.1")).status_code == 200
    assert (await get_me(app, invalid, "192.0.2.2")).status_code == 401


@pytest.mark.parametrize("settings", [{"failed_auth_limit": "3/minute"}], indirect=True)
@pytest.mark.parametrize(
    "changes", [{"revoked_at": utc_now()}, {"enabled": False}, {"expires_at": utc_now()}]
)
async def test_a_key_that_cannot_be_used_counts_as_invalid(
    app: FastAPI, as_user: AsUser, change_key: ChangeKey, changes: dict[str, object]
) -> None:
    me, other = await as_user(), await as_user()
    await change_key(me.key, **changes)
    responses = [await get_me(app, me.api_key, "192.0.2.1") for _ in range(4)]
    assert [response.status_code for response in responses] == [401, 401, 401, 429]
    assert (await get_me(app, "malformed", "192.0.2.1")).status_code == 429
    assert (await get_me(app, other.api_key, "192.0.2.1")).status_code == 200


async def test_an_ipv6_client_has_one_limit_for_its_network() -> None:
    limiter = RateLimiter(make_settings(failed_auth_limit="1/minute"))
    for address in ("2001:db8::1", "2001:db8:0:1::1", "192.0.2.1"):
        await limiter.count_failure(ip_address(address))
    for address in ("2001:db8::2", "2001:db8::ffff:1"):
        with pytest.raises(RateLimited):
            await limiter.count_failure(ip_address(address))


async def retry_after(limiter: RateLimiter, key_id: str, limit: str) -> int | None:
    """None if the request passes."""
    try:
        await limiter.count_request(key_id, limit)
    except RateLimited as error:
        return int(error.headers["Retry-After"])
    return None


@pytest.fixture
def limiter() -> RateLimiter:
    return RateLimiter(make_settings())


async def test_exactly_as_many_concurrent_requests_pass_as_the_limit_allows(
    limiter: RateLimiter,
) -> None:
    requests = (retry_after(limiter, "key", "10/minute") for _ in range(50))
    assert (await asyncio.gather(*requests)).count(None) == 10


async def test_a_changed_limit_applies_at_once_to_the_requests_so_far(limiter: RateLimiter) -> None:
    passed = [await retry_after(limiter, "key", f"{limit}/minute") for limit in (2, 3, 2, 1, 5)]
    assert [wait is None for wait in passed] == [True, True, False, False, True]
    assert await retry_after(limiter, "key", "1/hour") is None  # periods are counted separately


async def test_a_rotation_does_not_reset_the_limit(
    app: FastAPI, as_user: AsUser, client: AsyncClient
) -> None:
    me = await as_user(scopes=[])
    api_key = me.api_key
    app.state.rate_limiter = RateLimiter(make_settings(rate_limit="3/minute"))
    statuses = []
    for _ in range(3):
        headers = {"Authorization": f"Bearer {api_key}"}
        rotated = await client.post("/v1/api-keys/current/rotate", headers=headers)
        statuses.append(rotated.status_code)
        api_key = rotated.json()["api_key"]
    headers = {"Authorization": f"Bearer {api_key}"}
    statuses.append((await client.get(ME, headers=headers)).status_code)
    assert statuses == [201, 201, 201, 429]


async def test_a_clock_that_is_set_back_does_not_lengthen_the_wait(limiter: RateLimiter) -> None:
    await retry_after(limiter, "key", "1/minute")
    with time_machine.travel(utc_now() - timedelta(hours=1)):
        assert await retry_after(limiter, "key", "1/minute") in range(1, 61)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Mock:
    clock = Mock(monotonic=Mock(return_value=0.0), time=Mock(wraps=time.time))
    monkeypatch.setattr(rate_limit, "time", clock)
    return clock


async def test_the_wait_is_at_least_a_second(limiter: RateLimiter, clock: Mock) -> None:
    await retry_after(limiter, "key", "1/second")
    clock.monotonic.return_value = 0.999
    assert await retry_after(limiter, "key", "1/second") == 1


async def test_invalid_keys_never_reset_the_limit_of_a_key(
    limiter: RateLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "MAX_WINDOWS", 2)
    await retry_after(limiter, "key", "1/day")
    for number in range(10):
        await limiter.count_failure(ip_address(f"192.0.2.{number}"))
    assert await retry_after(limiter, "key", "1/day")


async def test_the_number_and_the_size_of_windows_are_bounded(
    limiter: RateLimiter, clock: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not hasattr(rate_limit.Window(0), "__dict__")
    monkeypatch.setattr(rate_limit, "MAX_WINDOWS", 4)

    async def limited(names: str) -> str:
        """Those that have a window. The limit of capitals is per minute, that of others per day."""
        limits = {name: "1/minute" if name.isupper() else "1/day" for name in names}
        return "".join([name for name in names if await retry_after(limiter, name, limits[name])])

    await limited("AbdC")
    clock.monotonic.return_value = 60.0
    await limited("Ae")  # A gets another window. To make room for e, C and b are dropped
    assert await limited("dAeb") == "dAe"


async def test_many_clients_do_not_reset_the_limit_of_one_that_exceeds_it(
    limiter: RateLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "MAX_WINDOWS", 4)
    for _ in range(2):
        await retry_after(limiter, "key", "1/day")
    for number in range(100):
        await retry_after(limiter, f"{number}", "1/day")
    assert await retry_after(limiter, "key", "1/day")


@pytest.mark.parametrize("settings", [{"redis_url": UNAVAILABLE}], indirect=True)
async def test_the_response_is_503_while_redis_is_unavailable(
    app: FastAPI, as_user: AsUser
) -> None:
    for key in ((await as_user()).api_key, "invalid"):
        response = await get_me(app, key, "192.0.2.1")
        assert (response.status_code, response.json()["code"]) == (503, "unavailable")


async def test_no_request_waits_long_for_a_redis_that_accepts_no_connection() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):  # they wait to be accepted, and the system lets no others wait
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        redis_url = f"redis://127.0.0.1:{server.getsockname()[1]}"
        limiter = RateLimiter(make_settings(redis_url=redis_url))
        async with asyncio.timeout(4), limiter.running():
            with pytest.raises(StorageError):
                await limiter.count_request("a key", None)


@pytest.mark.skipif(TEST_REDIS_URL is None, reason="TEST_REDIS_URL is not set")
async def test_processes_share_their_limits_in_redis(clock: Mock) -> None:
    key_id = uuid4().hex
    one, other = [RateLimiter(make_settings(redis_url=TEST_REDIS_URL)) for _ in range(2)]
    async with one.running(), other.running():
        assert await retry_after(one, key_id, "1/minute") is None
        assert await retry_after(other, key_id, "1/minute") in range(1, 61)
        clock.time.return_value = time.time() + 120  # the window ends during the request
        assert await retry_after(other, key_id, "1/minute") == 1


@pytest.mark.parametrize(
    ("seconds", "wait"),
    [(17, 18), (3660, 60), (-5, 1)],
    ids=["usual", "clock set back", "window over"],
)
async def test_the_wait_comes_from_the_shared_window(
    clock: Mock, monkeypatch: pytest.MonkeyPatch, seconds: int, wait: int
) -> None:
    """The library's answers are replaced, so that no Redis is needed."""
    monkeypatch.setattr(RedisStorage, "incr", AsyncMock(side_effect=[1, 2]))
    clock.time.return_value = 1000.0
    expiry = AsyncMock(return_value=1000.0 + seconds)
    monkeypatch.setattr(RedisStorage, "get_expiry", expiry)
    limiter = RateLimiter(make_settings(redis_url=UNAVAILABLE))
    async with limiter.running():
        assert await retry_after(limiter, "a key", "1/minute") is None
        assert await retry_after(limiter, "a key", "1/minute") == wait
