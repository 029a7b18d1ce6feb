import asyncio
import os
from ipaddress import ip_address
from uuid import uuid4

import pytest
import time_machine
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response
from limits import parse

from app import rate_limit
from app.api_keys import format as key_format
from app.errors import RateLimited
from app.rate_limit import RateLimiter
from tests.conftest import AsUser, ChangeKey, make_settings

ME = "/v1/users/me"
TEST_REDIS_URL = os.environ.get("TEST_REDIS_URL")


async def ask(app: FastAPI, text: str, address: str) -> Response:
    transport = ASGITransport(app, client=(address, 1))
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(ME, headers={"Authorization": f"Bearer {text}"})


@pytest.mark.parametrize("settings", [{"rate_limit": "3/minute"}], indirect=True)
async def test_a_key_over_its_limit_is_told_when_to_go_on(as_user: AsUser) -> None:
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
async def test_a_keys_own_limit_goes_before_the_default(as_user: AsUser, change_key: ChangeKey) -> None:
    more, less = await as_user(), await as_user()
    await change_key(more.key, rate_limit="5/minute")
    await change_key(less.key, rate_limit="1/hour")
    assert [(await more.get(ME)).status_code for _ in range(6)] == [200] * 5 + [429]
    assert [(await less.get(ME)).status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("settings", [{"rate_limit": ""}], indirect=True)
async def test_without_a_limit_nothing_is_limited(as_user: AsUser) -> None:
    me = await as_user()
    assert {(await me.get(ME)).status_code for _ in range(20)} == {200}


@pytest.mark.parametrize("settings", [{"rate_limit": "2/minute"}], indirect=True)
async def test_a_route_that_needs_the_caller_twice_counts_once(as_user: AsUser) -> None:
    me = await as_user()
    assert [(await me.patch("/v1/api-keys/current", json={})).status_code for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("settings", [{"failed_auth_limit": "3/minute"}], indirect=True)
async def test_guessing_is_slow_and_locks_nobodys_key(app: FastAPI, as_user: AsUser) -> None:
    used, unused = await as_user(), await as_user()
    assert (await ask(app, used.api_key, "192.0.2.1")).status_code == 200
    body = used.api_key[:-7] + ("a" if used.api_key[-7] != "a" else "b")
    wrong = body + key_format.checksum(body)  # well formed, so that only its digest is wrong
    answers = [await ask(app, wrong, "192.0.2.1") for _ in range(5)]
    assert [response.status_code for response in answers] == [401, 401, 401, 429, 429]
    assert answers[-1].headers["ratelimit-policy"] == '"failures";q=3;w=60'
    # The key that was guessed at, and used here before, works on, from the guesser's address too;
    assert (await ask(app, used.api_key, "192.0.2.1")).status_code == 200
    # a right guess does not, and everybody elsewhere notices nothing.
    assert (await ask(app, unused.api_key, "192.0.2.1")).status_code == 429
    assert (await ask(app, unused.api_key, "192.0.2.2")).status_code == 200


@pytest.mark.parametrize("settings", [{"failed_auth_limit": ""}], indirect=True)
async def test_without_a_limit_of_failures_everybody_may_guess(app: FastAPI) -> None:
    assert {(await ask(app, "wrong", "192.0.2.1")).status_code for _ in range(80)} == {401}


async def test_an_ipv6_client_has_one_limit_for_its_whole_network() -> None:
    limiter = RateLimiter(make_settings(failed_auth_limit="1/minute"))
    await limiter.count_failure(ip_address("2001:db8::1"))
    for address in ("2001:db8::2", "2001:db8::ffff:1"):
        with pytest.raises(RateLimited):
            await limiter.refuse_guesser(ip_address(address))
    await limiter.refuse_guesser(ip_address("2001:db8:0:1::1"))
    await limiter.refuse_guesser(None)


@pytest.mark.parametrize("settings", [{"redis_url": "redis://127.0.0.1:1/0"}], indirect=True)
async def test_a_limiter_that_is_away_is_a_503(app: FastAPI, as_user: AsUser) -> None:
    response = await (await as_user()).get(ME)
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    await app.state.rate_limiter.close()


@pytest.mark.parametrize(
    "settings", [{"redis_url": "redis://127.0.0.1:1/0", "rate_limit_fail_open": True}], indirect=True
)
async def test_a_limiter_that_is_away_can_let_everything_pass(
    app: FastAPI, as_user: AsUser, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await (await as_user()).get(ME)).status_code == 200
    assert "Redis does not answer" in caplog.text
    await app.state.rate_limiter.close()


@pytest.mark.skipif(TEST_REDIS_URL is None, reason="TEST_REDIS_URL names no Redis")
async def test_in_redis_a_limit_is_shared() -> None:
    key_id = uuid4().hex
    limiters = [RateLimiter(make_settings(redis_url=TEST_REDIS_URL)) for _ in range(2)]
    for limiter in limiters:
        await limiter.hit(key_id, "2/minute")
    for limiter in limiters:
        with pytest.raises(RateLimited):
            await limiter.hit(key_id, "2/minute")
        await limiter.close()


async def test_of_what_comes_at_once_exactly_the_limit_passes() -> None:
    limiter = RateLimiter(make_settings())

    async def hit() -> bool:
        try:
            await limiter.hit("key", "10/minute")
        except RateLimited:
            return False
        return True

    assert sum(await asyncio.gather(*(hit() for _ in range(50)))) == 10


async def test_another_limit_starts_anew() -> None:
    limiter = RateLimiter(make_settings())
    await limiter.hit("key", "1/day")
    with pytest.raises(RateLimited):
        await limiter.hit("key", "1/day")
    await limiter.hit("key", "1/minute")  # not for the rest of the day
    with pytest.raises(RateLimited):
        await limiter.hit("key", "1/minute")


async def test_windows_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MOST_WINDOWS", 6)
    windows, minute, day = rate_limit.MemoryWindows(), parse("9/minute"), parse("9/day")

    async def hits() -> dict[str, int]:
        windows_of = {who: await windows.get_window_stats(day, "key", who) for who in "abcdefghijk"}
        return {who: window.hits for who, window in windows_of.items() if window.hits}

    with time_machine.travel(0, tick=False) as clock:
        for who in "abcd":
            await windows.hit(minute, "key", who)
        for who in "eef":
            await windows.hit(day, "key", who)
        clock.shift(60)
        await windows.hit(day, "key", "g")  # there was no room: what has ended is gone
        assert await hits() == {"e": 2, "f": 1, "g": 1}
        for who in "hijk":
            await windows.hit(day, "key", who)  # nor for the last of these: the oldest half is gone
        assert await hits() == {"h": 1, "i": 1, "j": 1, "k": 1}
