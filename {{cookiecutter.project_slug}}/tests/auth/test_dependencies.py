from typing import Annotated
from uuid import uuid4

import pytest
from fastapi import Depends, FastAPI, Security
from httpx import AsyncClient

from app.auth.caller import Caller
from app.auth.dependencies import CurrentCaller, get_caller, requires
from app.auth.scopes import Scope
from tests.conftest import AsUser

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
    assert response.json()["detail"] == f"This API key lacks the scope {missing}."
    assert f'scope="{missing}"' in response.headers["www-authenticate"]
