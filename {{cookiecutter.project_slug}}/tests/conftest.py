"""The tests run on a migrated SQLite database, or on the PostgreSQL server in TEST_DATABASE_URL.

Each test works inside a transaction that is rolled back.
"""

import asyncio
import os
import shutil
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any, Protocol
from unittest.mock import patch
from uuid import uuid4

import pytest
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import SecretStr
from sqlalchemy import Executable, Row, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel.ext.asyncio.session import AsyncSession

from app import main
from app.api_keys import service as api_keys
from app.api_keys.models import UserApiKey
from app.api_keys.schemas import ApiKeyCreate
from app.auth import key_format
from app.auth.caller import Caller
from app.auth.dependencies import check_routes, get_caller
from app.auth.scopes import Scope
from app.core.database import Database
from app.core.logging import configure_logging
from app.settings import ROOT, Settings
from app.users import service as users
from app.users.models import User
from app.users.schemas import UserCreate
from tests import PEPPER

TEST_DATABASE_URL = os.environ.get("TEST_DATABASE_URL")


class MakeDatabase(Protocol):
    def __call__(self, *, migrated: bool = True) -> str: ...


@pytest.fixture(scope="session")
def make_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeDatabase]:
    """Makes databases that nothing else uses, and drops them in the end; gives their URLs.

    Only one is migrated. The other migrated ones are copies of it.
    """
    names: list[str] = []

    @cache
    def migrated_database() -> str | None:
        url = make(migrated=False)
        command.upgrade(alembic_config(url), "head")
        return make_url(url).database

    def make(*, migrated: bool = True) -> str:
        template = migrated_database() if migrated else None
        if TEST_DATABASE_URL is None:
            file = tmp_path_factory.mktemp("database") / "test.db"
            if template:
                shutil.copy(template, file)
            return f"sqlite+aiosqlite:///{file}"
        names.append(f"test_{uuid4().hex}")
        _on_server(f"CREATE DATABASE {names[-1]} TEMPLATE {template or 'template1'}")
        server = make_url(TEST_DATABASE_URL)
        url = server.set(drivername="postgresql+psycopg", database=names[-1])
        return url.render_as_string(hide_password=False)

    yield make
    for name in names:
        _on_server(f"DROP DATABASE {name} WITH (FORCE)")


def _on_server(statement: str) -> None:
    server = make_url(TEST_DATABASE_URL or "").set(drivername="postgresql+psycopg")
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@contextmanager
def listening(target: object, name: str, function: Callable[..., None]) -> Iterator[None]:
    """Calls the function for each event of SQLAlchemy with this name."""
    event.listen(target, name, function)
    try:
        yield
    finally:
        event.remove(target, name, function)


def alembic_config(url: str) -> Config:
    config = Config(toml_file=ROOT / "pyproject.toml")
    config.attributes["database_url"] = url
    return config


@pytest.fixture(scope="session")
def database_url(make_database: MakeDatabase) -> str:
    return make_database()


@pytest.fixture(scope="session")
async def real_database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.dispose()


class RollbackDatabase(Database):
    """Everything happens on one connection, inside one transaction that never commits."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.only_connection = connection
        self.engine = connection.engine

    @asynccontextmanager
    async def session(self, *, read_only: bool = False) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(
            self.only_connection,
            join_transaction_mode="create_savepoint",
            expire_on_commit=False,
            close_resets_only=False,
        ) as session:
            yield session
            await session.commit()

    async def fetch_all(
        self,
        query: Executable,
        parameters: Mapping[str, object] | None = None,
        *,
        is_check: bool = False,
    ) -> Sequence[Row[*tuple[Any, ...]]]:  # Any: as in Database
        return (await self.only_connection.execute(query, parameters)).all()

    async def dispose(self) -> None:
        pass


@pytest.fixture
async def database(real_database: Database) -> AsyncIterator[Database]:
    async with real_database.engine.connect() as connection:
        transaction = await connection.begin()
        yield RollbackDatabase(connection)
        await transaction.rollback()


def make_settings(**changes: object) -> Settings:
    """Valid settings, with the changes that a test makes."""
    good = {
        "environment": "test",
        "database_url": "sqlite:///unused.db",
        "api_key_prefix": "acme",
        "api_key_peppers": {1: SecretStr(PEPPER)},
        "api_key_cache_seconds": 0,  # it reads the database while a test uses its only connection
        "request_timeout_seconds": 60,  # a busy machine is no reason to fail
    }
    return Settings.model_validate(good | changes)


USUAL_SETTINGS = make_settings()


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> Settings:
    """A test changes them with `@pytest.mark.parametrize("settings", [{…}], indirect=True)`."""
    return make_settings(**request.param) if hasattr(request, "param") else USUAL_SETTINGS


LONGEST = {"test_concurrency", "test_migrations", "test_server"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no worker has one left when the others are done."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(autouse=True)
def log_as_set(settings: Settings) -> None:
    """Whatever another test has set."""
    configure_logging(settings, key_format.redact)


@pytest.fixture(scope="session", autouse=True)
def shared_routes() -> Iterator[None]:
    """All apps share the routes of their routers: to build them takes a millisecond for each."""
    routers: dict[str, Any] = {}  # Any: of a private type
    overrides: dict[Callable[..., Any], Callable[..., Any]] = {}  # Any: as in FastAPI

    def share(app: Any, public: Iterable[str]) -> None:
        if app.dependency_overrides is not overrides:  # it is new
            overrides.clear()
            app.dependency_overrides = overrides  # routes use those of the app that built them
        for number, route in enumerate(app.router.routes):
            if router := getattr(route, "original_router", None):
                context = route.include_context
                key = repr((id(router), context.prefix, context.dependencies))
                app.router.routes[number] = routers.setdefault(key, route)
        check_routes(app, public)

    with patch.object(main, "check_routes", share):
        yield


@pytest.fixture(scope="session")
def openapi() -> dict[str, Any]:  # Any: a JSON document
    return main.create_app(USUAL_SETTINGS).openapi()


@pytest.fixture
def app(settings: Settings, database: Database) -> FastAPI:
    return main.create_app(settings, database)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    """A client without a key."""
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield client


class KeyClient(AsyncClient):
    """A client whose requests carry a key."""

    user: User
    key: UserApiKey
    api_key: str


class AsUser(Protocol):
    def __call__(
        self, *, scopes: list[Scope] | None = None, admin: bool = False, user: User | None = None
    ) -> Awaitable[KeyClient]: ...


@pytest.fixture
async def as_user(app: FastAPI, settings: Settings, database: Database) -> AsyncIterator[AsUser]:
    """`await as_user(scopes=[…])`: a client with a new user's key, by default with all scopes."""
    clients: list[KeyClient] = []

    async def make(
        *, scopes: list[Scope] | None = None, admin: bool = False, user: User | None = None
    ) -> KeyClient:
        if scopes is None:
            scopes = [scope for scope in Scope if admin or scope is not Scope.ADMIN]
        async with database.session() as session:
            new_user = UserCreate(email=f"{uuid4().hex}@example.com", is_admin=admin)
            owner = user or await users.create(session, new_user, actor=None)
            new = ApiKeyCreate(name="a key", scopes=scopes, user_id=owner.id)
            key, text = await api_keys.create(session, settings, new, actor=None)
            api_key = text.get_secret_value()
        headers = {"Authorization": f"Bearer {api_key}"}
        client = KeyClient(transport=ASGITransport(app), base_url="http://test", headers=headers)
        client.user, client.key, client.api_key = owner, key, api_key
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
async def no_auth(app: FastAPI, client: AsyncClient, as_user: AsUser) -> AsyncClient:
    """A client without a key, whose requests are those of an admin with every scope."""
    admin = await as_user(admin=True)
    caller = Caller(admin.key.id, admin.user.id, frozenset(Scope))
    app.dependency_overrides[get_caller] = lambda: caller
    return client


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Records the seconds of each `asyncio.sleep`, and does not wait."""
    found: list[float] = []
    sleep = asyncio.sleep

    async def record(seconds: float) -> None:
        found.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", record)
    return found


class ChangeKey(Protocol):
    def __call__(self, key: UserApiKey, **changes: object) -> Awaitable[None]: ...


@pytest.fixture
def change_key(database: Database) -> ChangeKey:
    """Changes a row without the app: no event, no hook."""

    async def change(key: UserApiKey, **changes: object) -> None:
        async with database.session() as session:
            row = await session.get_one(UserApiKey, key.id)
            row.sqlmodel_update(changes)

    return change
