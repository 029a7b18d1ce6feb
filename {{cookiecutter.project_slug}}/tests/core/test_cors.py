import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from tests.core.test_errors import is_problem

ORIGIN = "https://app.example.com"
EXPOSED = "Location, X-Request-ID, Retry-After, RateLimit, RateLimit-Policy, WWW-Authenticate"
PREFLIGHT = {"Access-Control-Request-Method": "GET"}

pytestmark = pytest.mark.parametrize("settings", [{"cors_origins": [ORIGIN]}], indirect=True)


async def test_only_pages_of_the_configured_origins_may_call(client: AsyncClient) -> None:
    allowed = await client.options("/v1/users/me", headers={"Origin": ORIGIN, **PREFLIGHT})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, ORIGIN)
    other = {"Origin": "https://evil.example", **PREFLIGHT}
    rejected = await client.options("/v1/users/me", headers=other)
    assert is_problem(rejected, 400, "invalid_request")
    assert "access-control-allow-origin" not in rejected.headers
    trace = {"Origin": ORIGIN, "Access-Control-Request-Method": "TRACE"}
    rejected_method = await client.options("/v1/users/me", headers=trace)
    assert is_problem(rejected_method, 400, "invalid_request")
    assert rejected_method.headers["access-control-allow-origin"] == ORIGIN
    for response in (allowed, rejected):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-request-id"]
        assert response.headers["vary"].startswith("Origin")


async def test_pages_can_read_every_error_and_the_headers_of_responses(
    app: FastAPI, client: AsyncClient
) -> None:
    @app.get("/broken")
    async def broken() -> None:
        raise LookupError

    for path, status in (("/broken", 500), ("/v1/users/me", 401), ("/unknown", 404)):
        response = await client.get(path, headers={"Origin": ORIGIN})
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["access-control-expose-headers"] == EXPOSED
