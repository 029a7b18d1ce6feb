from urllib.parse import quote

import pytest
from fastapi import FastAPI, Request
from httpx import AsyncClient, Response

from app.auth.credentials import contains_key, take_credentials
from app.auth.dependencies import CurrentCaller
from tests.conftest import AsUser

ME = "/v1/users/me"


def error(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


@pytest.mark.parametrize(
    "value", [None, "Basic bWU6c2VjcmV0", "Bearer", "Bearer ", "Bearer\t", "Token abc", ""]
)
async def test_a_request_without_a_key_is_rejected(client: AsyncClient, value: str | None) -> None:
    headers = {} if value is None else {"Authorization": value}
    response = await client.get(ME, headers=headers)
    assert error(response) == (401, "not_authenticated")
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith('Bearer realm="')
    assert "error" not in challenge


@pytest.mark.parametrize(
    "value", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer  {} ", " Bearer \t {}\t"]
)
async def test_the_case_of_the_scheme_and_whitespace_do_not_matter(
    client: AsyncClient, as_user: AsUser, value: str
) -> None:
    me = await as_user()
    response = await client.get(ME, headers={"Authorization": value.format(me.api_key)})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("settings", "statuses"),
    [
        ({}, [200, 401, 401]),
        ({"api_key_locations": ["header"]}, [401, 200, 401]),
        ({"api_key_locations": ["query"]}, [401, 401, 200]),
        ({"api_key_locations": ["bearer", "header", "query"]}, [200, 200, 200]),
    ],
    indirect=["settings"],
)
async def test_only_the_enabled_locations_are_read(
    client: AsyncClient, as_user: AsUser, statuses: list[int]
) -> None:
    me = await as_user()
    responses = [
        await me.get(ME),
        await client.get(ME, headers={"X-API-Key": me.api_key}),
        await client.get(ME, params={"api_key": me.api_key}),
    ]
    assert [response.status_code for response in responses] == statuses


def test_a_key_is_redacted_in_both_forms_of_the_path() -> None:
    path = f"/é/acme_live_{'a' * 16}_{'b' * 49}"
    scope = {"headers": [], "path": path, "raw_path": quote(path).encode(), "query_string": b""}
    take_credentials(scope, [])
    assert scope["path"] == f"/é/acme_live_{'a' * 16}_***"
    assert scope["raw_path"] == b"/%C3%A9/acme_live_" + b"a" * 16 + b"_%2A%2A%2A"


async def test_two_authorization_headers_are_rejected_even_if_one_is_valid(
    client: AsyncClient, as_user: AsUser
) -> None:
    me = await as_user()
    headers = [("Authorization", f"Bearer {me.api_key}"), ("Authorization", "Basic bWU6c2VjcmV0")]
    for both in (headers, headers[::-1]):
        response = await client.get(ME, headers=both)
        assert error(response) == (400, "invalid_request")
        assert 'error="invalid_request"' in response.headers["www-authenticate"]


@pytest.mark.parametrize(
    "settings", [{"api_key_locations": ["bearer", "header", "query"]}], indirect=True
)
async def test_an_empty_key_is_no_key(client: AsyncClient, as_user: AsUser) -> None:
    me = await as_user()
    for headers, params in (({"X-API-Key": " "}, {}), ({}, {"api_key": " "})):
        without_key = await client.get(ME, headers=headers, params=params)
        assert error(without_key) == (401, "not_authenticated")
        assert (await me.get(ME, headers=headers, params=params)).status_code == 200


@pytest.mark.parametrize(
    "settings", [{"api_key_locations": ["bearer", "header", "query"]}], indirect=True
)
async def test_two_keys_are_rejected_wherever_they_are(
    client: AsyncClient, as_user: AsUser
) -> None:
    me = await as_user()
    bearer = ("Authorization", f"Bearer {me.api_key}")
    header = ("X-API-Key", me.api_key)
    for headers, params in (
        ([bearer, header], {}),
        ([header, header], {}),
        ([bearer], {"api_key": me.api_key}),
        ([], {"api_key": [me.api_key, me.api_key]}),
    ):
        response = await client.get(ME, headers=headers, params=params)
        assert error(response) == (400, "invalid_request")


@pytest.mark.parametrize("key", [b"\xff\xfe", b"a b", b"x", b"a" * 9000, b"x\x00"])
async def test_any_other_bytes_are_an_invalid_key(client: AsyncClient, key: bytes) -> None:
    response = await client.get(ME, headers={b"Authorization": b"Bearer " + key})
    assert error(response) == (401, "api_key_invalid")


async def test_public_and_unknown_paths_ignore_an_invalid_key(client: AsyncClient) -> None:
    headers = {"Authorization": "Bearer invalid"}
    assert (await client.get("/health/live", headers=headers)).status_code == 200
    assert (await client.get("/v1/unknown", headers=headers)).status_code == 404


@pytest.mark.parametrize(
    "settings",
    [
        {
            "api_key_locations": ["bearer", "header", "query"],
            "cors_origins": ["https://example.com"],
            "trusted_proxies": "127.0.0.1",
        }
    ],
    indirect=True,
)
async def test_no_key_is_in_the_request_that_a_route_gets(
    app: FastAPI, client: AsyncClient, as_user: AsUser
) -> None:
    requests: list[str] = []

    @app.get("/report")
    async def report(request: Request, _: CurrentCaller) -> None:
        requests.append(repr((request.scope, request.headers, request.url)))

    me = await as_user()
    await me.get("/report")
    await client.get("/report", headers={"X-API-Key": me.api_key})
    await client.get("/report", params={"api_key": me.api_key})
    assert [request.count(f"{me.key.id}_***") > 0 for request in requests] == [True] * 3
    assert me.api_key.rpartition("_")[2] not in "".join(requests)


KEY = f"acme_test_4k1z9q0v7m2c8x5b_{'Example' * 7}"


@pytest.mark.parametrize(
    ("path", "query", "is_found"),
    [
        ("/", "api_key=x", True),
        ("/", "a=1&api%5Fkey=x", True),
        ("/", f"token={KEY}", True),
        ("/", f"{KEY}=1", True),
        ("/", f"token={KEY.replace('_', '%5F')}", True),
        (f"/v1/api-keys/{KEY}", "", True),
        ("/v1/api-keys", "key=x", False),
    ],
)
def test_a_key_is_found_anywhere_in_a_url(path: str, query: str, is_found: bool) -> None:
    assert contains_key({"path": path, "query_string": query.encode()}) is is_found
