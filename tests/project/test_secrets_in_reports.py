"""Traces and the reports of error trackers contain neither keys nor peppers."""

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
import sentry_sdk
from fastapi import Depends, FastAPI, Request
from fastapi.responses import StreamingResponse
from httpx import AsyncClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport
from sqlalchemy.exc import OperationalError
from sqlmodel.ext.asyncio.session import AsyncSession

from app.auth import key_format
from app.auth.dependencies import CurrentCaller
from app.core.database import Database
from tests import PEPPER
from tests.conftest import AsUser

KEYS = "/v1/api-keys"
PATHS = ["/v1/users/me", KEYS, f"{KEYS}/current", "/unknown"]


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
