"""No key, pepper or database password is anywhere but in the one response that shows a key."""

import io
import logging
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import inspect, text
from sqlalchemy.exc import OperationalError

from app.api_keys import format as key_format
from app.api_keys import service
from app.database import Database
from app.logging import configure_logging
from tests.conftest import PEPPER, AsUser, make_settings

KEYS = "/v1/api-keys"


@pytest.fixture
def everything_logged() -> Iterator[io.StringIO]:
    """All that any logger says at level debug, those of libraries too, as it would be printed."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    loggers = [logging.getLogger(), *map(logging.getLogger, ("app", "uvicorn", "sqlalchemy", "aiosqlite", "asyncio"))]
    levels = [logger.level for logger in loggers]
    loggers[0].addHandler(handler)
    handler.addFilter(lambda record: record.name != "httpx")  # the client of these tests, which logs what it asks for
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield stream
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    loggers[0].removeHandler(handler)


async def dump(database: Database) -> str:
    async with database.connection() as connection:
        tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        rows = [(await connection.execute(text(f"SELECT * FROM {table}"))).all() for table in tables]  # noqa: S608
    return repr(rows)


async def test_no_key_is_in_logs_answers_the_description_or_the_database(
    app: FastAPI,
    client: AsyncClient,
    as_user: AsUser,
    database: Database,
    everything_logged: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure_logging(make_settings(log_level="debug"))
    logging.getLogger().setLevel(logging.DEBUG)
    me, admin = await as_user(), await as_user(admin=True)
    answers: list[Response] = []
    issued = [me.api_key, admin.api_key]

    created = (await me.post(KEYS, json={"name": "x", "scopes": ["users:read"]})).json()
    rotated = (await me.post(f"{KEYS}/{created['id']}/rotate", json={"overlap_seconds": 60})).json()
    elsewhere = key_format.generate("acme", "test").text  # a good key of another installation
    issued += [created["api_key"], rotated["api_key"], elsewhere]

    for api_key in issued:
        for headers in (
            {"Authorization": f"Bearer {api_key}"},
            {"Authorization": f"Bearer {api_key}x"},
            {"Authorization": f"Basic {api_key}"},
            {"X-API-Key": api_key},
        ):
            for path in ("/v1/users/me", KEYS, f"{KEYS}/current", f"{KEYS}/current/usage", "/nothing"):
                answers.append(await client.get(path, headers=headers, params={"api_key": api_key}))
                answers.append(await client.get(path, headers=headers))
        bodies: list[object] = [{"name": [api_key]}, {api_key: 1}, {"name": "x", "scopes": [api_key]}, [api_key]]
        answers += [await me.post(KEYS, json=body) for body in bodies]
        answers.append(await me.get(f"{KEYS}/current", params={"cursor": api_key, "status": api_key}))
        answers.append(await me.get(KEYS, params={"cursor": api_key, "status": api_key}))

    async def fail(*_: object) -> None:
        raise LookupError("on purpose")

    async def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("on purpose"))

    for failing in (fail, away):
        monkeypatch.setattr(service, "page", failing)
        answers.append(await me.get(KEYS))
    monkeypatch.undo()
    await app.state.usage.flush()
    answers.append(await me.delete(f"{KEYS}/{created['id']}"))
    answers.append(await me.get(f"{KEYS}/{created['id']}/events"))

    assert {200, 401, 404, 422, 500, 503} <= {answer.status_code for answer in answers}
    assert "unhandled error" in everything_logged.getvalue()
    found = {
        "logs": everything_logged.getvalue(),
        "answers": "".join(answer.text + repr(answer.headers) for answer in answers),
        "description": str(app.openapi()),
        "database": await dump(database),
    }
    for place, content in found.items():
        assert len(content) > 1000
        for api_key in issued:
            assert api_key.rpartition("_")[2] not in content, place
        assert PEPPER not in content, place


@pytest.mark.parametrize("settings", [{"api_key_locations": ["bearer", "header", "query"]}], indirect=True)
async def test_no_key_is_in_a_trace(as_user: AsUser, client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    me = await as_user()
    for path in ("/v1/users/me", "/nothing"):
        await me.get(path, params={"q": "x"})
        await client.get(path, headers={"X-API-Key": me.api_key})
        await client.get(path, params={"api_key": me.api_key})
        await client.get(f"{path}?api%5Fkey={me.api_key}")
    spans = exporter.get_finished_spans()
    assert "GET /v1/users/me" in {span.name for span in spans}
    assert me.api_key not in "".join(span.to_json() for span in spans)
