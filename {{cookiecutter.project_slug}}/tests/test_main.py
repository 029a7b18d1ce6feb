import json
import re
import runpy
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest
from fastapi import APIRouter, Depends, FastAPI, Security, WebSocket
from fastapi.routing import iter_route_contexts
from httpx import AsyncClient
from sqlalchemy import literal
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlmodel import select
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Scope

from app import main
from app.auth import key_format
from app.auth.dependencies import CurrentCaller, get_caller, requires
from app.core.database import Database, SessionDep, utc_now
from app.main import PUBLIC, create_app, lifespan
from app.settings import ROOT, Settings
from tests.conftest import AsUser, ChangeKey, MakeDatabase, make_settings


def operations(openapi: dict[str, Any]) -> list[tuple[str, str]]:
    """Method and path of every operation that needs a key."""
    paths = openapi["paths"]
    return [(method, path) for path in paths if path not in PUBLIC for method in paths[path]]


def test_the_app_connects_as_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = Mock()
    monkeypatch.setattr(main, "Database", connect)
    primary, replica = "postgresql+psycopg://one/db", "postgresql+psycopg://two/db"
    create_app(
        make_settings(database_url=primary, database_replica_url=replica, database_pooler=True)
    )
    connect.assert_called_once_with(primary, pooler=True, replica_url=replica)


@pytest.mark.parametrize("settings", [{"failed_auth_limit": None}], indirect=True)
async def test_every_route_rejects_a_request_without_a_key_and_every_kind_of_bad_key(
    openapi: dict[str, Any],
    client: AsyncClient,
    as_user: AsUser,
    change_key: ChangeKey,
    database: Database,
) -> None:
    revoked, expired, disabled, ownerless = [await as_user(admin=True) for _ in range(4)]
    await change_key(revoked.key, revoked_at=utc_now())
    await change_key(expired.key, expires_at=utc_now())
    await change_key(disabled.key, enabled=False)
    async with database.session() as session:
        (await session.merge(ownerless.user)).is_active = False
    attempts = {
        "": "not_authenticated",
        f"Basic {revoked.api_key}": "not_authenticated",
        "Bearer acme_test_malformed": "api_key_invalid",
        f"Bearer {key_format.generate('acme', 'test').text}": "api_key_invalid",
        f"Bearer {key_format.generate('acme', 'live').text}": "api_key_invalid",
        f"Bearer {revoked.api_key}": "api_key_revoked",
        f"Bearer {expired.api_key}": "api_key_expired",
        f"Bearer {disabled.api_key}": "api_key_disabled",
        f"Bearer {ownerless.api_key}": "user_inactive",
    }
    assert len(operations(openapi)) >= 15
    for method, path in operations(openapi):
        for authorization, code in attempts.items():
            headers = {"Authorization": authorization} if authorization else {}
            response = await client.request(method, path, headers=headers)
            assert (response.status_code, response.json()["code"]) == (401, code), (method, path)


async def endpoint() -> None: ...


def test_a_router_that_needed_a_key_in_one_app_stops_the_start_of_another(
    settings: Settings, database: Database
) -> None:
    """The apps of the tests share routes, but not these."""
    router = APIRouter()
    router.add_api_route("/v2/open", endpoint)
    apps = [create_app(settings, database) for _ in range(2)]
    apps[0].include_router(router, dependencies=[requires()])
    apps[1].include_router(router)
    check_routes = vars(main)["check_routes"]  # which the tests replace
    check_routes(apps[0], PUBLIC)
    with pytest.raises(SystemExit):
        check_routes(apps[1], PUBLIC)


async def accept(websocket: WebSocket) -> None: ...


async def unrelated(session: SessionDep) -> None: ...


def include_router(app: FastAPI) -> None:
    router = APIRouter(prefix="/v2")
    router.add_api_route("/open", endpoint, dependencies=[Depends(unrelated)])
    app.include_router(router)


def include_frontend(app: FastAPI) -> None:
    router = APIRouter()
    router.frontend("/site", directory=ROOT)
    app.include_router(router, prefix="/v2")


def mount_app(app: FastAPI) -> None:
    other = FastAPI()
    other.add_api_route("/v1/open", endpoint)
    app.mount("/other", other)


@pytest.mark.parametrize(
    ("add_route", "name"),
    [
        (include_router, "/v2/open"),
        (mount_app, "/other"),
        (lambda app: app.add_api_route("/{rest:path}", endpoint), "/{rest:path}"),
        (lambda app: app.router.routes.append(Route("/raw", endpoint)), "/raw"),
        (lambda app: app.add_api_websocket_route("/ws", accept), "/ws"),
        (lambda app: app.mount("/static", StaticFiles(directory=ROOT)), "/static"),
        (lambda app: app.mount("/", StaticFiles(directory=ROOT)), "Mount"),
        (lambda app: app.frontend("/site", directory=ROOT), "/site"),
        (include_frontend, "/v2/site"),
    ],
)
async def test_a_route_that_needs_no_key_stops_the_start(
    app: FastAPI,
    settings: Settings,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    add_route: Callable[[FastAPI], None],
    name: str,
) -> None:
    feature = SimpleNamespace(install=lambda app, _: add_route(app))
    monkeypatch.setattr(main, "FEATURES", [feature])
    message = re.escape(
        f"{name} needs no API key: add `caller: CurrentCaller` or `requires(Scope.…)` to its "
        f"signature, or add the path to PUBLIC in app/main.py."
    )
    with pytest.raises(SystemExit, match=message):
        create_app(settings, database)
    add_route(app)  # to the finished app
    with pytest.raises(SystemExit, match=message):
        async with lifespan(app):
            pass


async def test_a_route_that_depends_on_the_caller_or_is_public_does_not_stop_the_start(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def indirect(caller: CurrentCaller) -> None: ...

    router = APIRouter()
    router.add_api_route("/router", endpoint)
    router.frontend("/site", directory=ROOT)
    app.include_router(router, prefix="/v2", dependencies=[Security(get_caller)])
    app.add_api_route("/v2/indirect", endpoint, dependencies=[Depends(indirect)])
    app.add_api_route("/open", endpoint)
    app.mount("/static", StaticFiles(directory=ROOT))
    app.frontend("/site", directory=ROOT)
    monkeypatch.setattr(main, "PUBLIC", PUBLIC | {"/open", "/static", "/site"})
    async with lifespan(app):
        pass


def test_every_public_path_exists(app: FastAPI) -> None:
    assert {route.path for route in iter_route_contexts(app.routes)} >= PUBLIC


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/docs", "/openapi.json"])
async def test_head_works_like_get(client: AsyncClient, path: str) -> None:
    head, get = await client.head(path), await client.get(path)
    assert head.status_code == 200
    assert head.headers["content-type"] == get.headers["content-type"]


async def connect(app: FastAPI, path: str, *headers: tuple[bytes, bytes]) -> list[Message]:
    """What the app sends over a WebSocket on which it receives `hello`."""
    scope: Scope = {
        "type": "websocket",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"test"), *headers],
        "client": None,
        "extensions": {"websocket.http.response": {}},
    }
    received = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}]
    send = AsyncMock()
    await app(scope, AsyncMock(side_effect=received), send)
    return [call.args[0] for call in send.await_args_list]


async def test_a_websocket_route_can_depend_on_the_caller(app: FastAPI, as_user: AsUser) -> None:
    @app.websocket("/v1/echo")
    async def echo(websocket: WebSocket, caller: CurrentCaller) -> None:
        await websocket.accept()
        await websocket.send_text(f"{caller.key_id} {await websocket.receive_text()}")

    me = await as_user()
    authorization = (b"authorization", f"Bearer {me.api_key}".encode())
    accepted, message = await connect(app, "/v1/echo", authorization)
    assert accepted["type"] == "websocket.accept"
    assert message["text"] == f"{me.key.id} hello"

    for headers in ([], [(b"authorization", b"Bearer acme_test_malformed")]):
        rejected, _ = await connect(app, "/v1/echo", *headers)
        assert (rejected["type"], rejected["status"]) == ("websocket.http.response.start", 401)


async def test_a_websocket_route_rejects_invalid_parameters_with_a_problem(
    app: FastAPI, as_user: AsUser
) -> None:
    @app.websocket("/v1/echo/{number}")
    async def echo(number: int, caller: CurrentCaller) -> None: ...

    authorization = (b"authorization", f"Bearer {(await as_user()).api_key}".encode())
    rejected, body = await connect(app, "/v1/echo/one", authorization)
    assert rejected["status"] == 422
    assert json.loads(body["body"])["errors"][0]["pointer"] == "/path/number"


async def test_a_start_without_migrations_is_logged(
    make_database: MakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(make_settings(database_url=make_database(migrated=False)))
    async with lifespan(app):
        assert "not ready: The database is not migrated. Run `alembic upgrade head`." in caplog.text


async def test_lifespan_hooks_surround_the_process_and_its_end_closes_connections(
    database_url: str,
) -> None:
    app = create_app(make_settings(database_url=database_url))
    database: Database = app.state.database
    events: list[str] = []

    def idle_connections() -> int:
        return cast(AsyncAdaptedQueuePool, database.engine.pool).checkedin()

    @asynccontextmanager
    async def hook() -> AsyncIterator[None]:
        events.append("entered")
        yield
        async with database.session() as session:
            await session.exec(select(literal(1)))
        assert idle_connections() == 1
        events.append("exited")

    async def receive() -> Message:
        return {"type": "lifespan.shutdown" if events else "lifespan.startup"}

    async def send(message: Message) -> None:
        events.append(message["type"])

    app.state.lifespan.append(hook)
    await app({"type": "lifespan"}, receive, send)
    complete = ("lifespan.startup.complete", "lifespan.shutdown.complete")
    assert events == ["entered", complete[0], "exited", complete[1]]
    assert idle_connections() == 0


def test_the_default_app_reads_the_environment() -> None:
    assert main.app.state.settings.database_url.endswith("never-opened.db")


def test_running_main_py_as_a_file_says_what_to_run_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "app", None)  # a file in app/ cannot import it
    with pytest.raises(SystemExit, match="Start the app with `fastapi dev`"):
        runpy.run_path(str(ROOT / "app" / "main.py"), run_name="__main__")
