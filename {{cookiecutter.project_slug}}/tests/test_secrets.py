"""A key is only in the response that creates it. Peppers are nowhere."""

import io
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
import sentry_sdk
from fastapi import Depends, FastAPI, Request
from fastapi.responses import StreamingResponse
from httpx import AsyncClient, Response
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys import service
from app.auth import key_format
from app.auth.dependencies import CurrentCaller
from app.core.database import Database
from tests import PEPPER
from tests.conftest import AsUser

KEYS = "/v1/api-keys"
PATHS = ["/v1/users/me", KEYS, f"{KEYS}/current", "/unknown"]


@pytest.fixture
def logs() -> Iterator[io.StringIO]:
    """What all loggers print at the level debug, except for the client of the tests."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(lambda record: not record.name.startswith("http"))
    names = ("", "app", "uvicorn", "sqlalchemy", "aiosqlite", "asyncio")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    loggers[0].addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield stream
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    loggers[0].removeHandler(handler)


async def dump(database: Database) -> str:
    async with database.session(read_only=True) as session:
        connection = await session.connection()
        tables = SQLModel.metadata.sorted_tables
        return repr([(await connection.execute(table.select())).all() for table in tables])


async def test_no_key_is_in_logs_responses_openapi_or_the_database(
    app: FastAPI,
    client: AsyncClient,
    as_user: AsUser,
    database: Database,
    logs: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    me, admin = await as_user(), await as_user(admin=True)
    created = (await me.post(KEYS, json={"name": "x", "scopes": ["users:read"]})).json()
    rotated = (await me.post(f"{KEYS}/{created['id']}/rotate", json={"overlap_seconds": 60})).json()
    unknown = key_format.generate("acme", "test").text
    issued = [me.api_key, admin.api_key, created["api_key"], rotated["api_key"], unknown]
    responses: list[Response] = []

    for api_key in issued:
        for headers in (
            {"Authorization": f"Bearer {api_key}"},
            {"Authorization": f"Bearer {api_key}x"},
            {"Authorization": f"Basic {api_key}"},
            {"X-API-Key": api_key},
        ):
            for path in PATHS:
                responses.append(await client.get(path, headers=headers))
                query = {"api_key": api_key}
                responses.append(await client.get(path, headers=headers, params=query))
        bodies: list[object] = [
            {"name": [api_key]},
            {api_key: 1},
            {"name": "x", "scopes": [api_key]},
            [api_key],
        ]
        responses += [await me.post(KEYS, json=body) for body in bodies]
        for path in (KEYS, f"{KEYS}/current"):
            query = {"cursor": api_key, "status": api_key}
            responses.append(await me.get(path, params=query))

    async def fail(*_: object) -> None:
        raise LookupError("on purpose")

    async def be_unavailable(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("on purpose"))

    for failing in (fail, be_unavailable):
        monkeypatch.setattr(service, "list_page", failing)
        responses.append(await me.get(KEYS))
    responses.append(await me.get(f"{KEYS}/{created['id']}/events"))
    responses.append(await me.delete(f"{KEYS}/{created['id']}"))

    assert {200, 204, 401, 404, 422, 500, 503} <= {one.status_code for one in responses}
    assert "unhandled error" in logs.getvalue()
    texts = {
        "logs": logs.getvalue(),
        "responses": "".join(one.text + repr(one.headers) for one in responses),
        "openapi": repr(app.openapi()),
        "database": await dump(database),
    }
    for place, text in texts.items():
        assert len(text) > 1000
        for api_key in issued:
            assert api_key.rpartition("_")[2] not in text, place
        assert PEPPER not in text, place


@pytest.mark.parametrize(
    "settings", [{"api_key_locations": ["bearer", "header", "query"]}], indirect=True
)
async def test_no_key_is_in_a_trace(
    as_user: AsUser, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    me = await as_user()
    for path in PATHS:
        await me.get(path, params={"q": "x"})
        await client.get(path, headers={"X-API-Key": me.api_key})
        await client.get(path, params={"api_key": me.api_key})
        await client.get(f"{path}?api%5Fkey={me.api_key}")
    spans = exporter.get_finished_spans()
    assert "GET /v1/users/me" in {span.name for span in spans}
    assert me.api_key not in "".join(span.to_json() for span in spans)


class Collector(Transport):
    def __init__(self, options: dict[str, Any] | None = None) -> None:  # Any: as in Transport
        super().__init__(options)
        self.events: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        if event := envelope.get_event():
            self.events.append(dict(event))


@pytest.fixture
def sentry() -> Iterator[Collector]:
    """What Sentry sends with its default options, which include the local variables."""
    collector = Collector()
    sentry_sdk.init("https://key@sentry.example/1", transport=collector)
    yield collector
    sentry_sdk.init()


async def fails(request: Request, caller: CurrentCaller) -> None:
    raise LookupError(f"{caller.key_id} {request.headers} {request.url}")


async def fails_late(_: CurrentCaller) -> StreamingResponse:
    async def body() -> AsyncIterator[bytes]:
        yield b"half"
        raise LookupError

    return StreamingResponse(body())


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
@pytest.mark.parametrize("error", [None, LookupError, OperationalError("SELECT", {}, Exception())])
async def test_no_key_is_in_an_event_of_sentry(
    app: FastAPI,
    as_user: AsUser,
    client: AsyncClient,
    database: Database,
    sentry: Collector,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception | None,
) -> None:
    app.add_api_route("/route", fails)
    app.add_api_route("/dependency", lambda: None, dependencies=[Depends(fails)])
    app.add_api_route("/late", fails_late)
    me = await as_user()
    if error:
        monkeypatch.setattr(database, "fetch_all", Mock(side_effect=error))
    query = {"api_key": me.api_key}
    for headers, params in (
        ({"Authorization": f"Bearer {me.api_key}"}, {}),
        ({"X-API-Key": me.api_key}, {}),
        ({}, query),
        ({"X-API-Key": f"{me.api_key}x"}, query),
    ):
        for path in ("/route", "/dependency", "/late"):
            with suppress(LookupError):  # the server closes the connection
                await client.get(path, headers=headers, params=params)
    assert len(sentry.events) >= 9
    assert me.key.id in repr(sentry.events)
    is_leaked = me.api_key.rpartition("_")[2] in repr(sentry.events)  # pytest would show the text
    assert not is_leaked


async def test_neither_a_new_key_nor_a_pepper_is_in_an_event_of_sentry(
    as_user: AsUser, sentry: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = await as_user()
    new_keys = []
    generate = key_format.generate

    def remembering(*arguments: str) -> key_format.NewKey:
        new_keys.append(generate(*arguments))
        return new_keys[-1]

    monkeypatch.setattr(key_format, "generate", remembering)
    monkeypatch.setattr(AsyncSession, "flush", AsyncMock(side_effect=LookupError))
    await me.post("/v1/api-keys", json={"name": "ci", "scopes": []})
    [new_key] = new_keys
    assert new_key.id in repr(sentry.events)
    is_leaked = new_key.text.rpartition("_")[2] in repr(sentry.events)
    assert not is_leaked
    is_leaked = PEPPER in repr(sentry.events)
    assert not is_leaked
