import json
import logging
from contextlib import redirect_stderr
from io import StringIO

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from app.core.logging import configure_logging
from tests.conftest import AsUser

as_json = pytest.mark.parametrize("settings", [{"log_format": "json"}], indirect=True)


@pytest.fixture
def log(app: FastAPI) -> StringIO:
    with redirect_stderr(StringIO()) as stream:
        configure_logging(app.state.settings)
    return stream


@as_json
async def test_each_request_is_one_json_line_without_query_or_headers(
    as_user: AsUser, log: StringIO
) -> None:
    me = await as_user()
    headers = {"X-Other": "header-secret"}
    response = await me.get("/v1/api-keys?q=query-secret", headers=headers)
    line = json.loads(log.getvalue())
    assert line.pop("time").endswith("+00:00")
    assert line.pop("duration_ms") > 0
    assert line.pop("message").startswith("GET /v1/api-keys 200 ")
    assert line == {
        "level": "info",
        "logger": "app.access",
        "method": "GET",
        "path": "/v1/api-keys",
        "status": 200,
        "request_id": response.headers["x-request-id"],
        "key_id": me.key.id,
        "user_id": str(me.user.id),
        "client": "127.0.0.1",
        "code": None,
    }
    for secret in (me.api_key, "query-secret", "header-secret"):
        assert secret not in log.getvalue()


async def test_each_request_is_one_line_on_the_console(client: AsyncClient, log: StringIO) -> None:
    response = await client.get("/nothing")
    [line] = log.getvalue().splitlines()
    assert "INFO    GET None 404 not_found " in line
    assert f"request_id={response.headers['x-request-id']}" in line


@pytest.mark.parametrize("settings", [{"log_level": "warning"}], indirect=True)
async def test_requests_are_not_logged_above_level_info(client: AsyncClient, log: StringIO) -> None:
    await client.get("/nothing")
    assert log.getvalue() == ""


@as_json
def test_a_json_line_has_the_extra_fields_and_the_exception(log: StringIO) -> None:
    try:
        raise LookupError("gone")
    except LookupError:
        logging.getLogger("app.items").exception("it failed", extra={"item_id": 8})
    line = json.loads(log.getvalue())
    assert (line["level"], line["message"], line["item_id"]) == ("error", "it failed", 8)
    assert "LookupError: gone" in line["exception"]


@as_json
async def test_the_forwarded_address_is_ignored_by_default(
    client: AsyncClient, log: StringIO
) -> None:
    await client.get("/health/live", headers={"X-Forwarded-For": "203.0.113.9"})
    assert json.loads(log.getvalue())["client"] == "127.0.0.1"


@pytest.mark.parametrize(
    "settings",
    [{"log_format": "json", "trusted_proxies": "10.0.0.1/32, 198.51.100.0/24"}],
    indirect=True,
)
@pytest.mark.parametrize(
    ("proxy", "client_address"), [("10.0.0.1", "192.0.2.1"), ("10.0.0.2", "10.0.0.2")]
)
async def test_the_forwarded_address_counts_only_from_a_trusted_proxy(
    app: FastAPI, log: StringIO, proxy: str, client_address: str
) -> None:
    transport = ASGITransport(app, client=(proxy, 1))
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        await client.get("/health/live", headers={"X-Forwarded-For": "203.0.113.9, 192.0.2.1"})
    assert json.loads(log.getvalue())["client"] == client_address
