import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from unittest.mock import AsyncMock

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from httpx import ASGITransport, AsyncClient
from starlette.types import Message

from app.logging import configure_logging
from tests.conftest import AsUser, make_settings


@pytest.fixture
def log_lines(capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    yield capsys
    configure_logging(make_settings())


async def test_every_response_has_a_request_id(client: AsyncClient) -> None:
    ids = {(await client.get("/health/live")).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-123_X.y", True), ("a b", False), ("a" * 65, False), ("", False), ("{}", False)]
)
async def test_a_sane_request_id_of_the_caller_is_kept(client: AsyncClient, given: str, kept: bool) -> None:
    response = await client.get("/health/live", headers={"X-Request-ID": given})
    assert (response.headers["x-request-id"] == given) is kept


async def test_each_request_is_one_json_line_without_query_or_headers(
    as_user: AsUser, log_lines: pytest.CaptureFixture[str]
) -> None:
    me = await as_user()
    configure_logging(make_settings(log_format="json"))
    log_lines.readouterr()
    response = await me.get("/v1/api-keys/current?api_key=query-secret", headers={"X-Other": "header-secret"})
    out = log_lines.readouterr().err
    line = json.loads(out)
    assert line["time"].endswith("+00:00")
    assert line["duration_ms"] > 0
    assert (
        line
        | {
            "level": "info",
            "logger": "app.access",
            "message": "request",
            "method": "GET",
            "path": "/v1/api-keys/{key_id}",
            "status": 200,
            "request_id": response.headers["x-request-id"],
            "key_id": me.key.id,
            "user_id": str(me.user.id),
            "client": "127.0.0.1",
        }
        == line
    )
    for secret in (me.api_key, "query-secret", "header-secret"):
        assert secret not in out


async def test_the_console_shows_the_same_for_people(
    client: AsyncClient, log_lines: pytest.CaptureFixture[str]
) -> None:
    configure_logging(make_settings())
    await client.get("/nothing")
    line = log_lines.readouterr().err
    assert "INFO    request method=GET path=None status=404" in line


def test_an_exception_is_in_the_json_line(log_lines: pytest.CaptureFixture[str]) -> None:
    configure_logging(make_settings(log_format="json"))
    try:
        raise LookupError("gone")
    except LookupError:
        logging.getLogger("app").exception("it failed")
    line = json.loads(log_lines.readouterr().err)
    assert line["message"] == "it failed"
    assert "LookupError: gone" in line["exception"]


async def test_a_response_that_breaks_off_is_logged_and_cut(
    app: FastAPI, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Its head is sent already, so there can be no problem; the server must not make it look whole."""

    @app.get("/broken")
    async def broken() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"half"
            raise LookupError("gone")

        return StreamingResponse(body())

    with pytest.raises(LookupError):
        await client.get("/broken")
    assert "unhandled error" in caplog.text


@pytest.mark.parametrize("settings", [{"trusted_proxies": "10.0.0.1/32, 198.51.100.0/24"}], indirect=True)
async def test_the_forwarded_address_counts_only_from_a_trusted_proxy(
    app: FastAPI, log_lines: pytest.CaptureFixture[str]
) -> None:
    configure_logging(make_settings(log_format="json"))
    for proxy, client_address in (("10.0.0.1", "192.0.2.1"), ("10.0.0.2", "10.0.0.2")):
        async with AsyncClient(transport=ASGITransport(app, client=(proxy, 1)), base_url="http://test") as client:
            await client.get("/health/live", headers={"X-Forwarded-For": "203.0.113.9, 192.0.2.1"})
        assert json.loads(log_lines.readouterr().err)["client"] == client_address


def get(path: str) -> dict[str, object]:
    """The ASGI scope of a request, for what httpx would not show."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": [],
        "client": None,
        "server": None,
    }


@pytest.mark.parametrize("settings", [{"request_timeout_seconds": 0.05}], indirect=True)
@pytest.mark.parametrize("answers_late", [False, True])
async def test_what_takes_too_long_is_answered_at_once_even_if_it_cannot_be_cancelled(
    app: FastAPI, answers_late: bool
) -> None:
    let_go = asyncio.Event()

    @app.get("/stubborn")
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await let_go.wait()  # as a driver does that waits for a frozen server
            if not answers_late:
                raise

    answer: list[Message] = []
    answered = asyncio.Event()

    async def send(message: Message) -> None:
        answer.append(message)
        if message["type"] == "http.response.body":
            answered.set()

    request = asyncio.create_task(app(get("/stubborn"), AsyncMock(), send))
    await answered.wait()
    assert not request.done()
    let_go.set()
    await request
    assert [answer[0]["status"], len(answer)] == [503, 2]


@pytest.mark.parametrize("settings", [{"request_timeout_seconds": 0.05}], indirect=True)
async def test_an_answer_that_has_begun_may_take_its_time(app: FastAPI, client: AsyncClient) -> None:
    @app.get("/slow")
    async def slow() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"first "
            await asyncio.sleep(0.1)
            yield b"second"

        return StreamingResponse(body())

    assert (await client.get("/slow")).text == "first second"


async def test_a_request_that_is_cancelled_by_the_server_stays_cancelled(app: FastAPI) -> None:
    @app.get("/waits")
    async def waits() -> None:
        await asyncio.Event().wait()

    request = asyncio.create_task(app(get("/waits"), AsyncMock(), AsyncMock()))
    await asyncio.sleep(0.01)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request


async def test_nobody_is_trusted_to_forward_an_address_by_default(
    client: AsyncClient, log_lines: pytest.CaptureFixture[str]
) -> None:
    configure_logging(make_settings(log_format="json"))
    await client.get("/health/live", headers={"X-Forwarded-For": "203.0.113.9"})
    assert json.loads(log_lines.readouterr().err)["client"] == "127.0.0.1"
