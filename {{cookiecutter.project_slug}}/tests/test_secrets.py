"""A key is only in the response that creates it. Peppers are nowhere."""

import io
import logging
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel

from app.api_keys import service
from app.auth import key_format
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
