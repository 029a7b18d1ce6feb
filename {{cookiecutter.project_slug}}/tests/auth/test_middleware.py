from collections.abc import Iterator
from typing import Any
from unittest.mock import AsyncMock

import pytest
from fastapi import APIRouter, FastAPI, Security
from httpx import AsyncClient, Response

from app.auth import key_format
from app.auth.dependencies import CurrentCaller, check_routes, get_caller
from app.core.database import utc_now
from app.main import PUBLIC
from tests.conftest import AsUser, ChangeKey
from tests.core.test_errors import IDS, JSON, is_problem, operations
from tests.core.test_middleware import scope_of

KEYS = "/v1/api-keys"
BROKEN = b'{"name": '


def with_body(openapi: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for method, path, operation in operations(openapi):
        if "requestBody" in operation:
            yield method, path.format(**IDS)


async def send_broken_json(
    client: AsyncClient, path: str, key: str, *, method: str = "POST"
) -> Response:
    headers = JSON | ({"Authorization": f"Bearer {key}"} if key else {})
    return await client.request(method, path, content=BROKEN, headers=headers)


@pytest.mark.parametrize("settings", [{"failed_auth_limit": None}], indirect=True)
async def test_a_body_that_cannot_be_read_is_only_reported_to_a_valid_key(
    openapi: dict[str, Any], client: AsyncClient, as_user: AsUser, change_key: ChangeKey
) -> None:
    admin, revoked = await as_user(admin=True), await as_user()
    await change_key(revoked.key, revoked_at=utc_now())
    for key, status, code in (
        ("", 401, "not_authenticated"),
        (key_format.generate("acme", "test").text, 401, "api_key_invalid"),
        (revoked.api_key, 401, "api_key_revoked"),
        (admin.api_key, 422, "invalid_input"),
    ):
        for method, path in with_body(openapi):
            response = await send_broken_json(client, path, key, method=method)
            assert is_problem(response, status, code), path
            assert response.headers["cache-control"] == "no-store"


async def test_without_a_valid_key_the_body_is_not_read(app: FastAPI) -> None:
    receive, send = AsyncMock(), AsyncMock()
    await app({**scope_of(KEYS), "method": "POST"}, receive, send)
    assert send.await_args_list[0].args[0]["status"] == 401
    receive.assert_not_awaited()


async def test_a_missing_scope_is_reported_before_invalid_fields(as_user: AsUser) -> None:
    me = await as_user(scopes=[])
    response = await me.post(KEYS, json={"unknown": 1})
    assert is_problem(response, 403, "insufficient_scope")
    assert is_problem(await send_broken_json(me, KEYS, me.api_key), 422, "invalid_input")


@pytest.mark.parametrize(
    "settings", [{"rate_limit": "2/minute", "failed_auth_limit": "2/minute"}], indirect=True
)
@pytest.mark.parametrize(("is_valid", "status"), [(True, 422), (False, 401)])
async def test_a_request_with_a_body_counts_once(
    client: AsyncClient, as_user: AsUser, *, is_valid: bool, status: int
) -> None:
    key = (await as_user()).api_key if is_valid else "invalid"
    responses = [await send_broken_json(client, KEYS, key) for _ in range(3)]
    assert [response.status_code for response in responses] == [status, status, 429]


async def test_every_protected_route_of_a_project_and_no_public_one_needs_a_key_before_its_body(
    app: FastAPI, client: AsyncClient
) -> None:
    router, inner = APIRouter(), APIRouter(dependencies=[Security(get_caller)])

    @router.post("/items")
    async def create_item(item: dict[str, int]) -> dict[str, int]:
        return item

    @inner.post("/inner")
    async def create_inner(item: dict[str, int]) -> None: ...

    @app.post("/things")
    async def create_thing(_: CurrentCaller, thing: dict[str, int]) -> None: ...

    @app.post("/open")
    async def create_open(item: dict[str, int]) -> dict[str, int]:
        return item

    router.include_router(inner)
    app.include_router(router, prefix="/v2", dependencies=[Security(get_caller)])
    app.include_router(router, prefix="/public")
    check_routes(app, PUBLIC | {"/open", "/public/items"})
    for path in ("/v2/inner", "/public/inner", "/things"):
        assert is_problem(await send_broken_json(client, path, ""), 401, "not_authenticated")
    for path in ("/open", "/public/items"):
        assert (await client.post(path, json={"a": 1})).json() == {"a": 1}
    # The endpoint is public elsewhere, so FastAPI reads the body before it calls get_caller.
    assert (await client.post("/v2/items", json={"a": 1})).status_code == 401


async def test_a_mounted_app_gets_its_body(app: FastAPI, client: AsyncClient) -> None:
    other = FastAPI()

    @other.post("/echo")
    async def echo(item: dict[str, int]) -> dict[str, int]:
        return item

    app.mount("/other", other)
    assert (await client.post("/other/echo", json={"a": 1})).json() == {"a": 1}
