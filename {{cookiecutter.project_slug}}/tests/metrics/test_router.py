import sys
from uuid import uuid4

import pytest
from httpx import ASGITransport, AsyncClient

from app.auth.caller import Caller
from app.auth.dependencies import get_caller
from app.auth.scopes import Scope
from app.core.database import Database
from app.main import create_app
from app.settings import Settings
from tests.conftest import AsUser


@pytest.fixture
def enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_ENABLED", "true")


async def test_metrics_are_off_by_default(no_auth: AsyncClient) -> None:
    assert (await no_auth.get("/metrics")).status_code == 404


@pytest.mark.usefixtures("enabled")
async def test_metrics_require_their_scope(client: AsyncClient, as_user: AsUser) -> None:
    assert (await client.get("/metrics")).json()["code"] == "not_authenticated"
    me = await as_user(scopes=[Scope.USERS_READ])
    assert (await me.get("/metrics")).json()["code"] == "insufficient_scope"


@pytest.mark.usefixtures("enabled")
async def test_requests_errors_and_connections_are_counted(
    settings: Settings, real_database: Database
) -> None:
    app = create_app(settings, real_database)
    caller = Caller("0" * 16, uuid4(), frozenset(Scope))
    app.dependency_overrides[get_caller] = lambda: caller
    async with (
        AsyncClient(transport=ASGITransport(app), base_url="http://test") as client,
        real_database.session(read_only=True) as session,
    ):
        await session.connection()
        for key_id in ("a" * 16, "b" * 16):
            await client.get(f"/v1/api-keys/{key_id}")
        await client.get("/v1/users")
        await client.get("/nothing")
        await client.request("BREW", "/nothing")
        lines = (await client.get("/metrics")).text.splitlines()
    for expected in (
        'http_requests_total{method="GET",path="/v1/api-keys/{key_id}",status="404"} 2.0',
        'http_requests_total{method="GET",path="/v1/users",status="200"} 1.0',
        'http_requests_total{method="GET",path="none",status="404"} 1.0',
        'http_requests_total{method="other",path="none",status="404"} 1.0',
        'http_request_duration_seconds_count{method="GET",path="/v1/users"} 1.0',
        'api_errors_total{code="not_found"} 4.0',
        "database_pool_in_use 1.0",
    ):
        assert expected in lines
    if sys.platform == "linux":
        assert "# TYPE process_cpu_seconds_total counter" in lines
