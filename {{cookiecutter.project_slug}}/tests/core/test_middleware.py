import asyncio
import json
from collections.abc import AsyncIterator
from unittest.mock import AsyncMock

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from httpx import AsyncClient
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.types import Message, Scope

from app.auth.dependencies import CurrentCaller
from app.core.middleware import FinishedRequest
from tests.conftest import AsUser
from tests.core.test_errors import is_problem

KEYS = "/v1/api-keys"
JSON = {"Content-Type": "application/json"}


async def test_every_response_has_another_request_id(client: AsyncClient) -> None:
    ids = {(await client.get("/health/live")).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("request_id", "is_kept"),
    [("abc-123_X.y", True), ("a b", False), ("a" * 65, False), ("", False), ("{}", False)],
)
async def test_a_request_id_of_the_caller_is_kept_if_it_is_safe_to_log(
    client: AsyncClient, request_id: str, is_kept: bool
) -> None:
    response = await client.get("/health/live", headers={"X-Request-ID": request_id})
    assert (response.headers["x-request-id"] == request_id) is is_kept


@pytest.mark.parametrize("path", ["/health/live", "/docs", "/nothing", "/v1/users/me", "/broken"])
async def test_browsers_never_guess_the_type_of_a_response(
    app: FastAPI, client: AsyncClient, path: str
) -> None:
    @app.get("/broken")
    async def broken() -> None:
        raise LookupError

    assert (await client.get(path)).headers["x-content-type-options"] == "nosniff"


HOST = (b"host", b"test")
FORWARDED = (b"x-forwarded-for", b"192.0.2.1")
BEHIND_PROXY = {"trusted_proxies": "127.0.0.1"}


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("settings", "version", "headers", "is_rejected"),
    [
        ({}, "1.1", [HOST], False),
        ({}, "1.1", [], True),
        ({}, "1.0", [], False),
        ({}, "1.0", [HOST, HOST], True),
        ({}, "1.1", [HOST, FORWARDED, FORWARDED], False),
        (BEHIND_PROXY, "1.1", [HOST, FORWARDED], False),
        (BEHIND_PROXY, "1.1", [HOST, FORWARDED, FORWARDED], True),
    ],
    indirect=["settings"],
)
async def test_a_request_has_one_host_and_behind_a_proxy_one_forwarded_address(
    app: FastAPI, kind: str, version: str, headers: list[tuple[bytes, bytes]], is_rejected: bool
) -> None:
    send = AsyncMock()
    scope = {**scope_of("/nothing"), "type": kind, "http_version": version, "headers": headers}
    await app(scope, AsyncMock(), send)
    first, *others = [call.args[0] for call in send.await_args_list]
    assert (first.get("status") == 400) is is_rejected
    if is_rejected:
        problem = json.loads(others[0]["body"])
        assert problem["code"] == "invalid_request"
        assert (b"x-request-id", problem["request_id"].encode()) in first["headers"]


async def test_after_request_hooks_get_the_finished_request(
    app: FastAPI, as_user: AsUser, client: AsyncClient
) -> None:
    finished: list[FinishedRequest] = []
    app.state.after_request.append(finished.append)

    @app.get("/broken")
    async def broken() -> None:
        raise LookupError

    me = await as_user()
    await me.get(f"{KEYS}/current")
    await client.get(f"{KEYS}/current")
    await client.get("/broken")
    assert [one[1:2] + one[3:] for one in finished] == [
        (200, me.key.id, me.user.id, True, None),
        (401, None, None, False, "not_authenticated"),
        (500, None, None, False, "internal_error"),
    ]
    assert finished[0].scope["route"].path == f"{KEYS}/{{key_id}}"
    assert 0 < finished[0].seconds < 60


async def test_after_commit_hooks_get_the_ids_whose_rights_a_committed_request_changed(
    app: FastAPI, as_user: AsUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed: list[set[object]] = []
    app.state.after_commit.append(changed.append)
    admin, other = await as_user(admin=True), await as_user()
    path = f"{KEYS}/{other.key.id}"

    await admin.patch(path, json={"rate_limit": "1/day"})
    await admin.patch(f"/v1/users/{other.user.id}", json={"is_active": False})
    assert changed == [{other.key.id}, {other.user.id}]

    changed.clear()
    await admin.patch(path, json={"name": "no right"})
    assert (await admin.patch(path, json={"scopes": ["admin"]})).status_code == 422
    monkeypatch.setattr(AsyncSession, "commit", AsyncMock(side_effect=TimeoutError))
    assert (await admin.delete(path)).status_code == 503
    assert changed == []


@pytest.mark.parametrize("settings", [{"request_body_limit": 1000}], indirect=True)
async def test_caches_must_not_store_any_response_below_a_protected_route(
    app: FastAPI, client: AsyncClient, as_user: AsUser
) -> None:
    @app.get("/v1/cached")
    async def cached(_: CurrentCaller, response: Response) -> None:
        response.headers["Cache-Control"] = "public, max-age=60"

    @app.get("/v1/broken")
    async def broken() -> None:
        raise LookupError

    me = await as_user(scopes=[])
    responses = [
        await me.get("/v1/cached"),
        await client.get("/v1/cached"),
        await me.get("/v1/users"),
        await client.get("/v1/unknown"),
        await client.delete("/v1/users"),
        await me.post(KEYS, content=b"x" * 1001, headers=JSON),
        await me.post(KEYS, content=b"{", headers=JSON),
        await me.get("/v1/broken"),
    ]
    statuses = [response.status_code for response in responses]
    assert statuses == [200, 401, 403, 404, 405, 413, 422, 500]
    assert all("no-store" in response.headers["cache-control"] for response in responses)


async def test_caches_may_store_what_a_public_route_allows(
    app: FastAPI, client: AsyncClient
) -> None:
    @app.get("/public")
    async def public(response: Response) -> None:
        response.headers["Cache-Control"] = "public, max-age=60"

    assert (await client.get("/public")).headers["cache-control"] == "public, max-age=60"


@pytest.mark.parametrize("settings", [{"request_body_limit": 1000}], indirect=True)
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_may_have_as_many_bytes_as_the_limit_and_no_more(
    as_user: AsUser, is_chunked: bool
) -> None:
    me = await as_user()

    async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
        yield body[:600]
        yield body[600:]

    for size, status in ((1000, 201), (1001, 413)):
        body = b'{"name": "ci", "scopes": []}'.ljust(size)
        content = in_chunks(body) if is_chunked else body
        response = await me.post(KEYS, content=content, headers=JSON)
        assert response.status_code == status
    assert is_problem(response, 413, "content_too_large")


async def test_a_truncated_response_is_logged_and_does_not_look_complete(
    app: FastAPI, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/broken")
    async def broken() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"half"
            raise LookupError

        return StreamingResponse(body())

    with pytest.raises(LookupError):  # the server then closes the connection
        await client.get("/broken")
    assert "unhandled error" in caplog.text


def scope_of(path: str) -> Scope:
    """A GET request without httpx, which would wait for the whole response."""
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"test")],
        "client": None,
    }


@pytest.mark.parametrize("settings", [{"request_timeout_seconds": 0.05}], indirect=True)
@pytest.mark.parametrize("responds_late", [False, True])
async def test_a_request_that_cannot_be_cancelled_gets_a_503_in_time(
    app: FastAPI, responds_late: bool
) -> None:
    release = asyncio.Event()

    @app.get("/stuck")
    async def stuck() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await release.wait()  # as a database driver whose server is frozen
            if not responds_late:
                raise

    sent: list[Message] = []
    is_complete = asyncio.Event()

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            is_complete.set()

    request = asyncio.create_task(app(scope_of("/stuck"), AsyncMock(), send))
    await asyncio.wait_for(is_complete.wait(), 10)
    assert not request.done()
    release.set()
    await asyncio.wait_for(request, 10)
    assert [message.get("status") for message in sent] == [503, None]


@pytest.mark.parametrize("settings", [{"request_timeout_seconds": 0.05}], indirect=True)
async def test_a_request_that_timed_out_ends_after_its_response(app: FastAPI) -> None:
    @app.get("/stuck")
    async def stuck() -> None:
        await asyncio.Event().wait()

    sent: list[Message] = []

    async def send(message: Message) -> None:
        await asyncio.sleep(0.01)
        sent.append(message)

    await asyncio.wait_for(app(scope_of("/stuck"), AsyncMock(), send), 10)
    assert [message.get("status") for message in sent] == [503, None]


@pytest.mark.parametrize("settings", [{"request_timeout_seconds": 0.05}], indirect=True)
async def test_a_body_that_does_not_arrive_in_time_gets_a_408_and_is_no_error(
    app: FastAPI, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    @app.post("/things")
    async def create_thing(thing: dict[str, int]) -> None: ...

    async def slow_body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    response = await client.post("/things", content=slow_body(), headers=JSON)
    assert is_problem(response, 408, "request_timeout")
    assert response.headers["connection"] == "close"
    [record] = [one for one in caplog.records if "timed out" in one.message]
    assert record.levelname == "INFO"


@pytest.mark.parametrize("settings", [{"request_timeout_seconds": 0.3}], indirect=True)
async def test_a_response_that_takes_too_long_after_the_body_gets_a_503(
    app: FastAPI, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    @app.post("/things")
    async def create_thing(thing: dict[str, int], request: Request) -> None:
        assert not await request.is_disconnected()  # cancels its call of receive
        await asyncio.Event().wait()

    assert is_problem(await client.post("/things", json={}), 503, "unavailable")
    [record] = [one for one in caplog.records if "timed out" in one.message]
    assert record.levelname == "ERROR"


@pytest.mark.parametrize("settings", [{"request_timeout_seconds": 0.2}], indirect=True)
async def test_a_response_that_has_started_may_take_longer(
    app: FastAPI, client: AsyncClient
) -> None:
    @app.get("/slow")
    async def slow() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"first "
            await asyncio.sleep(0.25)
            yield b"second"

        return StreamingResponse(body())

    assert (await client.get("/slow")).text == "first second"


@pytest.mark.parametrize("settings", [{"request_timeout_seconds": 0.2}], indirect=True)
async def test_a_request_that_the_server_cancels_stays_cancelled(app: FastAPI) -> None:
    send = AsyncMock()
    has_started = asyncio.Event()

    @app.get("/waits")
    async def waits() -> None:
        has_started.set()
        await asyncio.Event().wait()

    request = asyncio.create_task(app(scope_of("/waits"), AsyncMock(), send))
    await asyncio.wait_for(has_started.wait(), 10)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(request, 10)
    await asyncio.sleep(0.25)
    send.assert_not_awaited()  # it does not time out either
