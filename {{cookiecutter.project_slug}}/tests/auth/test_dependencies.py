from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import pytest
from fastapi import APIRouter, Depends, FastAPI, Query, Security
from httpx import AsyncClient
from pydantic import BaseModel, Field

from app.auth.caller import Caller
from app.auth.dependencies import CurrentCaller, check_routes, get_caller, requires
from app.auth.scopes import Scope
from app.main import PUBLIC
from tests.conftest import AsUser
from tests.core.test_errors import IDS, operations

ME = "/v1/users/me"
KEYS = "/v1/api-keys"


async def test_a_test_can_replace_the_caller_of_every_route(
    app: FastAPI, client: AsyncClient, as_user: AsUser
) -> None:
    me, other = await as_user(), await as_user()
    caller = Caller(me.key.id, me.user.id, frozenset({Scope.API_KEYS_WRITE}))
    app.dependency_overrides[get_caller] = lambda: caller
    assert (await client.get(ME)).json()["id"] == f"{me.user.id}"
    assert (await client.get(f"{KEYS}/current")).json()["id"] == me.key.id
    assert (await client.patch(f"{KEYS}/{me.key.id}", json={"name": "new"})).status_code == 200
    assert (await client.delete(f"{KEYS}/{other.key.id}")).status_code == 404
    assert (await client.get(f"{KEYS}/{other.key.id}")).json()["code"] == "insufficient_scope"


async def test_a_user_who_was_deleted_after_the_key_was_verified_is_rejected(
    app: FastAPI, client: AsyncClient
) -> None:
    app.dependency_overrides[get_caller] = lambda: Caller("0" * 16, uuid4(), frozenset())
    response = await client.get(ME)
    assert (response.status_code, response.json()["code"]) == (401, "api_key_invalid")


REPLICA = {"database_url": "postgresql://one/db", "database_replica_url": "postgresql://two/db"}


@pytest.mark.parametrize("settings", [REPLICA], indirect=True)
async def test_a_user_who_is_not_on_the_replica_yet_is_told_to_retry(
    app: FastAPI, client: AsyncClient
) -> None:
    app.dependency_overrides[get_caller] = lambda: Caller("0" * 16, uuid4(), frozenset())
    response = await client.get(ME)
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert response.headers["Retry-After"]


@pytest.mark.parametrize("settings", [{"rate_limit": "2/minute"}], indirect=True)
async def test_a_route_that_needs_the_caller_twice_counts_once(
    app: FastAPI, as_user: AsUser
) -> None:
    @app.get("/v1/twice")
    async def twice(
        one: CurrentCaller, other: Annotated[Caller, requires(Scope.USERS_READ)]
    ) -> bool:
        return one is other

    me = await as_user()
    responses = [await me.get("/v1/twice") for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert responses[0].json() is True


async def test_an_unknown_query_parameter_is_rejected_on_every_route(
    openapi: dict[str, Any], client: AsyncClient, as_user: AsUser
) -> None:
    admin, weak = await as_user(admin=True), await as_user(scopes=[])
    for method, path, operation in operations(openapi):
        if operation["security"]:
            url = f"{path.format(**IDS)}?statuss=active"
            [error] = (await admin.request(method, url)).json()["errors"]
            assert error["pointer"] == "/query/statuss", url
            assert (await client.request(method, url)).status_code == 401
    assert (await weak.get(f"{KEYS}?statuss=active")).status_code == 403


async def test_known_query_parameters_of_a_route_and_its_dependencies_are_accepted(
    app: FastAPI, as_user: AsUser
) -> None:
    class Filter(BaseModel):
        since: str = Field(default="", alias="from")

    async def paging(offset: int = 0) -> int:
        return offset

    router = APIRouter()

    @router.get("/items")
    async def list_items(
        caller: CurrentCaller, query: Annotated[Filter, Query()], q: str = ""
    ) -> str:
        return f"{query.since} {q}"

    app.include_router(router, prefix="/v2", dependencies=[Depends(paging)])
    check_routes(app, PUBLIC)
    me = await as_user()
    assert (await me.get("/v2/items?from=x&q=y&offset=1")).json() == "x y"
    for name in ("since", "limit", "api_key"):
        [error] = (await me.get(f"/v2/items?{name}=1")).json()["errors"]
        assert error["pointer"] == f"/query/{name}"


async def test_protected_files_accept_any_query(
    app: FastAPI, client: AsyncClient, as_user: AsUser, tmp_path: Path
) -> None:
    (tmp_path / "app.js").write_text("1")
    router = APIRouter()
    router.frontend("/site", directory=tmp_path)
    app.include_router(router, prefix="/v2", dependencies=[Security(get_caller)])
    check_routes(app, PUBLIC)
    assert (await (await as_user()).get("/v2/site/app.js?version=2")).text == "1"
    assert (await client.get("/v2/site/app.js?version=2")).status_code == 401


NESTED = [Scope.API_KEYS_READ, Scope.USERS_READ, Scope.USERS_WRITE]


@pytest.mark.parametrize("missing", NESTED)
async def test_the_scopes_of_nested_dependencies_are_all_required(
    app: FastAPI, as_user: AsUser, missing: Scope
) -> None:
    async def inner(_: Annotated[Caller, requires(Scope.USERS_READ)]) -> None: ...

    async def outer(_: Annotated[None, Depends(inner)]) -> None: ...

    @app.get("/v1/nested")
    async def nested(
        _: Annotated[None, Security(outer, scopes=[Scope.API_KEYS_READ])],
        caller: Annotated[Caller, requires(Scope.USERS_WRITE)],
    ) -> None: ...

    operation = app.openapi()["paths"]["/v1/nested"]["get"]
    assert operation["security"] == [{"bearer": NESTED}]
    assert (await (await as_user(scopes=NESTED)).get("/v1/nested")).status_code == 200
    me = await as_user(scopes=[scope for scope in Scope if scope not in {missing, Scope.ADMIN}])
    response = await me.get("/v1/nested")
    assert response.status_code == 403
    challenge = f'error="insufficient_scope", scope="{missing}"'
    assert challenge in response.headers["www-authenticate"]
