from typing import Annotated
from unittest.mock import AsyncMock
from uuid import uuid4

import pytest
from fastapi import FastAPI, Request
from httpx import AsyncClient

from app.api_keys.dependencies import CurrentCaller, requires
from app.api_keys.verifier import Caller
from app.scopes import Scope
from tests.conftest import AsUser

ME = "/v1/users/me"


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


async def test_a_user_who_was_deleted_in_the_middle_of_a_request_is_refused(app: FastAPI, as_user: AsUser) -> None:
    me = await as_user()

    async def authenticate(_: Request) -> Caller:
        return Caller(me.key.id, uuid4(), frozenset())

    app.state.authenticate = authenticate
    assert (await me.get(ME)).json()["code"] == "api_key_invalid"


async def test_the_second_to_ask_gets_what_the_first_was_told(
    app: FastAPI, as_user: AsUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that needs the caller in two places looks the key up, and counts it, once."""

    @app.get("/v1/twice")
    async def twice(one: CurrentCaller, other: Annotated[Caller, requires(Scope.USERS_READ)]) -> bool:
        return one is other

    verify = AsyncMock(wraps=app.state.verifier.verify)
    monkeypatch.setattr(app.state.verifier, "verify", verify)
    assert (await (await as_user()).get("/v1/twice")).json() is True
    assert verify.await_count == 1
