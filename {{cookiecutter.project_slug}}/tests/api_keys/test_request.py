from collections.abc import Mapping

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from app.api_keys.dependencies import CurrentCaller
from tests.conftest import AsUser

ME = "/v1/users/me"
RUBBISH = {"Authorization": "Bearer rubbish"}

EVERYWHERE = pytest.mark.parametrize("settings", [{"api_key_locations": ["bearer", "header", "query"]}], indirect=True)


async def test_a_request_without_a_key_is_refused(client: AsyncClient) -> None:
    response = await client.get(ME)
    assert (response.status_code, response.json()["code"]) == (401, "not_authenticated")
    assert response.headers["www-authenticate"].startswith('Bearer realm="')
    assert "error" not in response.headers["www-authenticate"]


@pytest.mark.parametrize("value", ["Basic bWU6c2VjcmV0", "Bearer", "Bearer ", "Token abc", ""])
async def test_another_scheme_is_no_key(client: AsyncClient, value: str) -> None:
    response = await client.get(ME, headers={"Authorization": value})
    assert (response.status_code, response.json()["code"]) == (401, "not_authenticated")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_read_in_any_case(client: AsyncClient, as_user: AsUser, scheme: str) -> None:
    me = await as_user()
    response = await client.get(ME, headers={"Authorization": f"{scheme} {me.api_key}"})
    assert response.status_code == 200


@EVERYWHERE
async def test_a_key_is_taken_from_the_header_and_the_query(client: AsyncClient, as_user: AsUser) -> None:
    me = await as_user()
    assert (await client.get(ME, headers={"X-API-Key": me.api_key})).status_code == 200
    assert (await client.get(ME, params={"api_key": me.api_key})).status_code == 200


async def test_a_place_that_is_off_is_not_read(client: AsyncClient, as_user: AsUser) -> None:
    me = await as_user()
    assert (await client.get(ME, headers={"X-API-Key": me.api_key})).json()["code"] == "not_authenticated"
    assert (await client.get(ME, params={"api_key": me.api_key})).json()["code"] == "not_authenticated"


@pytest.mark.parametrize("settings", [{"api_key_locations": ["header"]}], indirect=True)
async def test_bearer_can_be_off(client: AsyncClient, as_user: AsUser) -> None:
    me = await as_user()
    assert (await me.get(ME)).json()["code"] == "not_authenticated"


async def test_two_authorization_headers_are_refused_even_with_one_good_key(
    client: AsyncClient, as_user: AsUser
) -> None:
    me = await as_user()
    headers = [("Authorization", f"Bearer {me.api_key}"), ("Authorization", "Basic bWU6c2VjcmV0")]
    for both in (headers, headers[::-1]):
        response = await client.get(ME, headers=both)
        assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
        assert 'error="invalid_request"' in response.headers["www-authenticate"]


@EVERYWHERE
async def test_two_keys_are_refused_wherever_they_are(client: AsyncClient, as_user: AsUser) -> None:
    me = await as_user()
    bearer = ("Authorization", f"Bearer {me.api_key}")
    header = ("X-API-Key", me.api_key)
    for headers, query in (([bearer, header], {}), ([header, header], {}), ([bearer], {"api_key": me.api_key})):
        response = await client.get(ME, headers=headers, params=query)
        assert (response.status_code, response.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "raw", [b"Bearer \xff\xfe", b"Bearer a b", b"Bearer  x", b"Bearer " + b"a" * 9000, b"Bearer x\x00"]
)
async def test_odd_bytes_are_an_invalid_key(client: AsyncClient, raw: bytes) -> None:
    response = await client.get(ME, headers={b"Authorization": raw})
    assert (response.status_code, response.json()["code"]) == (401, "api_key_invalid")


async def test_what_cannot_be_a_key_is_refused_before_it_is_routed(client: AsyncClient, as_user: AsUser) -> None:
    good = (await as_user()).api_key
    mistyped = good[:-1] + ("a" if good[-1] != "a" else "b")
    for path, key, expected in (
        ("/v1/nowhere", mistyped, 401),
        ("/v1/nowhere", good, 404),
        ("/health/live", mistyped, 200),  # asks for no key
    ):
        assert (await client.get(path, headers={"Authorization": f"Bearer {key}"})).status_code == expected


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


async def test_routed_or_not_the_refusal_is_the_same(app: FastAPI, client: AsyncClient) -> None:
    @app.get("/guarded")
    async def guarded(_: CurrentCaller) -> None: ...

    routed, not_routed = [await client.get(path, headers=RUBBISH) for path in ("/guarded", "/v1/guarded")]
    assert routed.status_code == not_routed.status_code == 401
    assert differing(routed.headers, not_routed.headers) == {"content-length", "x-request-id"}
    assert differing(routed.json(), not_routed.json()) == {"instance", "request_id"}


@pytest.mark.parametrize("settings", [{"failed_auth_limit": "1/minute"}], indirect=True)
async def test_what_cannot_be_a_key_counts_as_a_guess(client: AsyncClient) -> None:
    assert [(await client.get(ME, headers=RUBBISH)).status_code for _ in range(3)] == [401, 429, 429]


@pytest.mark.parametrize("settings", [{"redis_url": "redis://127.0.0.1:1"}], indirect=True)
async def test_while_guesses_cannot_be_counted_it_is_unavailable(client: AsyncClient) -> None:
    response = await client.get(ME, headers=RUBBISH)
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")


async def test_without_authentication_it_passes(no_auth: AsyncClient) -> None:
    assert (await no_auth.get(ME, headers=RUBBISH)).status_code == 200


@pytest.mark.parametrize("settings", [{"cors_origins": ["https://example.com"]}], indirect=True)
async def test_a_browser_may_read_the_refusal(client: AsyncClient) -> None:
    response = await client.get(ME, headers={**RUBBISH, "Origin": "https://example.com"})
    assert response.status_code == 401
    assert response.headers["access-control-allow-origin"] == "https://example.com"
