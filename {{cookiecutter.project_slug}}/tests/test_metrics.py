import pytest
from httpx import AsyncClient

from app.database import Database
from app.scopes import Scope
from tests.conftest import AsUser

ON = pytest.mark.parametrize("settings", [{"metrics_enabled": True}], indirect=True)


async def test_metrics_are_off_unless_asked_for(no_auth: AsyncClient) -> None:
    assert (await no_auth.get("/metrics")).status_code == 404


@ON
async def test_metrics_are_never_public(client: AsyncClient, as_user: AsUser) -> None:
    assert (await client.get("/metrics")).json()["code"] == "not_authenticated"
    assert (await (await as_user(scopes=[Scope.USERS_READ])).get("/metrics")).json()["code"] == "insufficient_scope"


@ON
async def test_requests_refusals_and_the_backlog_are_counted(client: AsyncClient, as_user: AsUser) -> None:
    me = await as_user(scopes=[Scope.METRICS_READ])
    await me.get("/v1/api-keys/current")
    await me.get(f"/v1/api-keys/{me.key.id}")
    await client.get("/v1/users/me")
    await client.get("/nothing")
    await client.request("BREW", "/nothing")
    lines = (await me.get("/metrics")).text.splitlines()
    for expected in (
        'http_requests_total{method="GET",path="/v1/api-keys/{key_id}",status="200"} 2.0',
        'http_requests_total{method="GET",path="none",status="404"} 1.0',
        'http_requests_total{method="other",path="none",status="404"} 1.0',
        'http_request_duration_seconds_count{method="GET",path="/v1/users/me"} 1.0',
        'api_refusals_total{code="not_authenticated"} 1.0',
        "usage_backlog 1.0",
        "database_pool_in_use 1.0",
    ):
        assert expected in lines


async def test_connections_in_use_are_those_that_are_at_work(database_url: str) -> None:
    database = Database(database_url)
    async with database.connection():
        assert database.connections_in_use == 1
    assert database.connections_in_use == 0
    await database.dispose()
