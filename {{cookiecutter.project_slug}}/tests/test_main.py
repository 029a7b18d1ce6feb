from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI
from httpx import AsyncClient
from starlette.types import Message

from app import main
from app.api_keys.dependencies import CurrentCaller
from app.database import Database, utc_now
from app.main import create_app, lifespan, refuse_unguarded_routes
from tests.conftest import AsUser, ChangeKey, MakeDatabase, make_settings
from tests.test_settings import GOOD


def v1_operations(app: FastAPI) -> list[tuple[str, str]]:
    document = app.openapi()
    return [(method, path) for path, item in document["paths"].items() for method in item if path.startswith("/v1/")]


async def test_every_v1_route_refuses_no_key_and_every_kind_of_bad_key(
    app: FastAPI, client: AsyncClient, as_user: AsUser, change_key: ChangeKey
) -> None:
    revoked, expired = await as_user(), await as_user()
    await change_key(revoked.key, revoked_at=utc_now())
    await change_key(expired.key, expires_at=utc_now())
    attempts = {
        "not_authenticated": {},
        "api_key_invalid": {"Authorization": "Bearer acme_test_wrong"},
        "api_key_revoked": {"Authorization": f"Bearer {revoked.api_key}"},
        "api_key_expired": {"Authorization": f"Bearer {expired.api_key}"},
    }
    operations = v1_operations(app)
    assert len(operations) >= 5
    for method, path in operations:
        for code, headers in attempts.items():
            response = await client.request(method, path.replace("{key_id}", "current"), headers=headers)
            assert (response.status_code, response.json()["code"]) == (401, code), (method, path)


def test_a_route_that_asks_for_no_key_stops_the_start(app: FastAPI) -> None:
    async def unrelated() -> None: ...

    @app.get("/v1/guarded")
    async def guarded(caller: CurrentCaller) -> None: ...

    refuse_unguarded_routes(app)

    @app.get("/v1/forgotten")
    async def forgotten(something: Annotated[None, Depends(unrelated)]) -> None: ...

    with pytest.raises(RuntimeError, match="/v1/forgotten asks for no key"):
        refuse_unguarded_routes(app)


def test_the_app_looks_for_such_routes_when_it_starts(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    items = APIRouter(prefix="/v1/items")

    @items.get("")
    async def list_items() -> None: ...

    monkeypatch.setattr(main, "users_router", items)
    with pytest.raises(RuntimeError, match="/v1/items asks for no key"):
        create_app(make_settings(), database)


@pytest.mark.parametrize("settings", [{"cors_origins": ["https://app.example.com"]}], indirect=True)
async def test_pages_of_the_configured_origins_may_call(client: AsyncClient) -> None:
    for origin, allowed in (("https://app.example.com", "https://app.example.com"), ("https://evil.example", None)):
        headers = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        response = await client.options("/v1/users/me", headers=headers)
        assert response.headers.get("access-control-allow-origin") == allowed


async def test_a_start_without_migrations_says_so(
    make_database: MakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(make_settings(database_url=make_database(migrated=False)))
    async with lifespan(app):
        assert "not ready: The database is not migrated: run `alembic upgrade head`." in caplog.text


async def test_the_end_of_the_app_closes_its_connections(database_url: str) -> None:
    app = create_app(make_settings(database_url=database_url))
    sent: list[str] = []

    async def receive() -> Message:
        if not sent:
            return {"type": "lifespan.startup"}
        async with app.state.database.connection():
            pass
        assert app.state.database.engine.pool.checkedin() == 1
        return {"type": "lifespan.shutdown"}

    async def send(message: Message) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert app.state.database.engine.pool.checkedin() == 0


def test_without_arguments_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    assert create_app().state.settings.api_key_prefix == "acme"
