import json
import logging
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import redirect_stderr
from datetime import UTC, datetime
from io import StringIO
from unittest.mock import Mock
from uuid import UUID

import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse
from httpx import ASGITransport, AsyncClient
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send
from uvicorn.logging import AccessFormatter

from app.auth.key_format import redact
from app.core import middleware
from app.core.logging import JsonFormatter, configure_logging
from tests.conftest import AsUser, ChangeKey

SECRET = "7" * 49
KEY = f"acme_live_4k1z9q0v7m2c8x5b_{SECRET}"
REDACTED = "acme_live_4k1z9q0v7m2c8x5b_***"

as_json = pytest.mark.parametrize("settings", [{"log_format": "json"}], indirect=True)
in_both_formats = pytest.mark.parametrize(
    "settings", [{"log_format": "console"}, {"log_format": "json"}], indirect=True
)


@pytest.fixture
def log(app: FastAPI) -> StringIO:
    with redirect_stderr(StringIO()) as stream:
        configure_logging(app.state.settings, redact)
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


@as_json
async def test_the_line_of_a_rejected_request_has_a_code_and_the_key_if_its_secret_was_correct(
    as_user: AsUser, client: AsyncClient, change_key: ChangeKey, log: StringIO
) -> None:
    await client.get("/v1/users/me")
    await client.get("/v1/users/me", headers={"Authorization": f"Bearer {KEY}"})
    codes: dict[str, dict[str, object]] = {
        "api_key_revoked": {"revoked_at": datetime.now(UTC)},
        "api_key_disabled": {"enabled": False},
        "api_key_expired": {"expires_at": datetime.now(UTC)},
        "address_not_allowed": {"allowed_cidrs": ["192.0.2.0/24"]},
        "insufficient_scope": {},
    }
    expected: list[tuple[object, ...]] = [
        ("not_authenticated", None, None),
        ("api_key_invalid", None, None),
    ]
    for code, changes in codes.items():
        me = await as_user(scopes=[])
        await change_key(me.key, **changes)
        await me.get("/v1/api-keys")
        expected.append((code, me.key.id, str(me.user.id)))
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(line["code"], line["key_id"], line["user_id"]) for line in lines] == expected


async def test_each_request_is_one_line_on_the_console(client: AsyncClient, log: StringIO) -> None:
    response = await client.get("/nothing")
    [line] = log.getvalue().splitlines()
    assert "INFO    GET None 404 " in line
    assert f"request_id={response.headers['x-request-id']}" in line


@pytest.mark.parametrize("settings", [{"log_level": "warning"}], indirect=True)
async def test_requests_are_not_logged_above_level_info(client: AsyncClient, log: StringIO) -> None:
    await client.get("/nothing")
    assert log.getvalue() == ""


@in_both_formats
async def test_each_line_of_a_request_has_its_id(
    app: FastAPI, client: AsyncClient, log: StringIO
) -> None:
    @app.get("/broken")
    async def broken() -> None:
        logging.getLogger("app.items").warning("about to fail")
        raise LookupError

    response = await client.get("/broken")
    lines = [line for line in log.getvalue().splitlines() if "request_id" in line]
    assert len(lines) == 3  # of the route, the exception and the request
    assert all(response.headers["x-request-id"] in line for line in lines)


def test_a_value_cannot_forge_a_line_on_the_console(log: StringIO) -> None:
    logging.getLogger("app.items").info("named %s", "x\n12:00:00 INFO \x1b[2J\u202e")
    [line] = log.getvalue().splitlines()
    assert line.endswith(r"named x\n12:00:00 INFO \x1b[2J\u202e")


@in_both_formats
@pytest.mark.parametrize(
    "arguments",
    [
        (KEY,),
        ("%s, %d", KEY, 1),
        ("%s", [KEY]),
        ("%s", Headers({"X-API-Key": KEY})),
        ("%(key)s", {"key": KEY}),
        ("%r", KEY.encode()),
        (f"of another project: my{KEY}".replace("live", "test"),),
    ],
)
def test_a_key_in_a_message_is_redacted(log: StringIO, arguments: tuple[str, ...]) -> None:
    logging.getLogger("app.items").info(*arguments)
    assert REDACTED in log.getvalue().replace("test", "live")
    assert SECRET not in log.getvalue()


@as_json
def test_a_key_in_an_extra_field_is_redacted(log: StringIO) -> None:
    logging.getLogger("app.items").info("x", extra={"headers": Headers({"X-API-Key": KEY})})
    assert f"'x-api-key': '{REDACTED}'" in json.loads(log.getvalue())["headers"]


def test_the_json_formatter_needs_no_other_formatter_for_the_traceback() -> None:
    try:
        raise LookupError("on purpose")
    except LookupError:
        record = logging.LogRecord("app", logging.ERROR, "", 1, "failed", None, sys.exc_info())
    line = json.loads(JsonFormatter(redact).format(record))
    assert line["exception"].startswith("Traceback (most recent call last):")


@in_both_formats
def test_a_key_in_a_traceback_is_redacted(log: StringIO) -> None:
    try:
        raise LookupError(KEY)
    except LookupError:
        logging.getLogger("app.items").exception("it failed")
    assert "Traceback" in log.getvalue()
    assert f"LookupError: {REDACTED}" in log.getvalue()
    assert SECRET not in log.getvalue()


@pytest.fixture
def other_log() -> Iterator[StringIO]:
    """Of a handler that was added to uvicorn's access log later, as by a server or a library."""
    handler = logging.StreamHandler(StringIO())
    handler.setFormatter(AccessFormatter("%(client_addr)s %(request_line)s %(status_code)s"))
    logger = logging.getLogger("uvicorn.access")
    logger.addHandler(handler)
    yield handler.stream
    logger.removeHandler(handler)


def test_a_key_is_redacted_for_handlers_that_are_added_later(other_log: StringIO) -> None:
    arguments = ("127.0.0.1:1", "GET", f"/v1/users/me?api_key={KEY}", "1.1", 200)
    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *arguments)
    line = f"127.0.0.1:1 GET /v1/users/me?api_key={REDACTED} HTTP/1.1 200 OK\n"
    assert other_log.getvalue() == line


@pytest.mark.parametrize("arguments", [("%d", KEY), ("%s %s", KEY), ("%(a)s", {"b": KEY})])
def test_wrong_arguments_of_a_log_call_are_logged_redacted(
    log: StringIO, arguments: tuple[str, ...]
) -> None:
    logging.getLogger("app.items").info(*arguments)
    assert arguments[0] in log.getvalue()
    assert REDACTED in log.getvalue()


@as_json
def test_an_extra_field_replaces_no_field_of_the_line(log: StringIO) -> None:
    logging.getLogger("app.items").info("x", extra={"level": 8, "time": 9, "exception": 10})
    line = json.loads(log.getvalue())
    assert (line["level"], line["extra_level"], line["extra_time"]) == ("info", 8, 9)
    assert line["time"].endswith("+00:00")
    assert line["exception"] == 10


LOOP: list[object] = []
LOOP.append(LOOP)


class NoText:
    def __str__(self) -> str:
        raise LookupError(KEY)


@as_json
@pytest.mark.parametrize(
    ("value", "logged"),
    [
        ({"ids": [8]}, {"ids": [8]}),
        (None, None),
        (datetime(2030, 1, 31, tzinfo=UTC), "2030-01-31 00:00:00+00:00"),
        (UUID(int=8), "00000000-0000-0000-0000-000000000008"),
        (b"x", "b'x'"),
        (float("nan"), "nan"),
        ({(1, 2): "x"}, "{(1, 2): 'x'}"),
        (LOOP, "[[...]]"),
        (NoText(), "<NoText: LookupError>"),
        ({KEY: [KEY]}, {REDACTED: [REDACTED]}),
        ({(KEY,): "x"}, f"{{('{REDACTED}',): 'x'}}"),
    ],
)
def test_any_value_can_be_an_extra_field(log: StringIO, value: object, logged: object) -> None:
    logging.getLogger("app.items").info("x", extra={"item": value})
    line = json.loads(log.getvalue(), parse_constant=pytest.fail)
    assert (line["message"], line["item"]) == ("x", logged)


@in_both_formats
async def test_a_line_of_a_traced_request_has_the_ids_of_its_trace_and_span(
    app: FastAPI, client: AsyncClient, log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", TracerProvider)

    @app.get("/items")
    async def items() -> None:
        logging.getLogger("app.items").info("reading")

    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    await client.get("/items", headers=headers)
    lines = log.getvalue().splitlines()
    assert len(lines) == 2
    for line in lines:
        assert re.search(rf'trace_id(=|": "){trace_id}\b', line)
        assert ('"span_id": ' in line) == line.startswith("{")
        assert "b7ad6b7169203331" not in line  # the span of the caller


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryLogRecordExporter]:
    provider = LoggerProvider()
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # not typed there
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    monkeypatch.setattr("opentelemetry._logs.get_logger_provider", lambda: provider)
    handlers = logging.getLogger().handlers
    yield exporter
    logging.getLogger().handlers = handlers


async def test_with_opentelemetry_each_line_is_exported_once_and_redacted(
    app: FastAPI, exporter: InMemoryLogRecordExporter
) -> None:
    for _ in range(2):
        async with app.router.lifespan_context(app):
            pass
    logging.getLogger("app.items").log(60, "named %s", KEY, extra={"item": [KEY]})
    *_, record = [one.log_record for one in exporter.get_finished_logs()]
    assert (record.body, record.severity_number) == (f"named {REDACTED}", SeverityNumber.FATAL)
    assert record.attributes
    assert (record.attributes["logger"], record.attributes["item"]) == ("app.items", (REDACTED,))
    bodies = [one.log_record.body for one in exporter.get_finished_logs()]
    assert bodies.count(record.body) == 1


async def test_without_opentelemetry_nothing_is_exported(app: FastAPI) -> None:
    before = logging.getLogger().handlers
    async with app.router.lifespan_context(app):
        assert logging.getLogger().handlers == before


@as_json
async def test_the_duration_is_that_of_the_response_without_background_tasks(
    app: FastAPI, client: AsyncClient, log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Mock(return_value=0.0)
    monkeypatch.setattr(middleware, "time", Mock(perf_counter=clock))

    def wait_until(seconds: float) -> None:
        clock.return_value = seconds

    @app.get("/items")
    async def items(tasks: BackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "first"
            wait_until(0.1)
            yield "last"

        tasks.add_task(wait_until, 0.6)
        return StreamingResponse(body())

    await client.get("/items")
    assert json.loads(log.getvalue())["duration_ms"] == 100


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
    [
        {
            "log_format": "json",
            "trusted_proxies": "10.0.0.1/32, ::ffff:198.51.100.0/120, 2001:db8::/32",
        }
    ],
    indirect=True,
)
@pytest.mark.parametrize(
    ("proxy", "client_address"),
    [
        ("10.0.0.1", "192.0.2.1"),
        ("::ffff:10.0.0.1", "192.0.2.1"),
        ("2001:db8::1", "192.0.2.1"),
        ("198.51.100.7", "192.0.2.1"),
        ("10.0.0.2", "10.0.0.2"),
        ("::ffff:10.0.0.2", "10.0.0.2"),
    ],
)
async def test_the_forwarded_address_counts_only_from_a_trusted_proxy(
    app: FastAPI, log: StringIO, proxy: str, client_address: str
) -> None:
    transport = ASGITransport(app, client=(proxy, 1))
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        await client.get("/health/live", headers={"X-Forwarded-For": "203.0.113.9, 192.0.2.1"})
    assert json.loads(log.getvalue())["client"] == client_address


@pytest.mark.parametrize(
    "settings", [{"log_format": "json", "trusted_proxies": "10.0.0.1, unix"}], indirect=True
)
@pytest.mark.parametrize(("port", "client_address"), [(None, "192.0.2.1"), (8000, None)])
async def test_a_client_without_an_address_is_a_unix_socket_only_without_a_port(
    app: FastAPI, log: StringIO, port: int | None, client_address: str | None
) -> None:
    async def server(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "client": None, "server": ("server", port)}, receive, send)

    transport = ASGITransport(server)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        await client.get("/health/live", headers={"X-Forwarded-For": "192.0.2.1"})
    assert json.loads(log.getvalue())["client"] == client_address


@pytest.mark.parametrize(
    "settings", [{"log_format": "json", "trusted_proxies": "127.0.0.1"}], indirect=True
)
@pytest.mark.parametrize(
    ("forwarded", "logged"),
    [("192.0.2.1 status=200", None), ("fe80::1%x status=200", "fe80::1"), ("unknown", None)],
)
async def test_only_an_address_is_logged_as_the_client(
    client: AsyncClient, log: StringIO, forwarded: str, logged: str | None
) -> None:
    await client.get("/health/live", headers={"X-Forwarded-For": forwarded})
    assert json.loads(log.getvalue())["client"] == logged
