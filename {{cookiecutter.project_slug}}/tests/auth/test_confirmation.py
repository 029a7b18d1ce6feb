"""Whoever changes users or keys was verified before the transaction, possibly from a cache."""

from collections.abc import Iterator, Sequence

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import update
from sqlmodel import SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys import service as api_keys
from app.api_keys.models import UserApiKey
from app.api_keys.schemas import ApiKeyCreate
from app.audit.models import AuditEvent
from app.auth.caller import Caller
from app.auth.dependencies import get_caller
from app.auth.scopes import Scope
from app.core.database import Database, utc_now
from app.settings import Settings
from app.users import service as users
from app.users.models import User
from app.users.schemas import UserUpdate
from tests.conftest import AsUser, KeyClient

WRITES: list[tuple[str, str, object]] = [
    ("POST", "/v1/users", {"email": "new@example.com"}),
    ("PATCH", "/v1/users/me", {"first_name": "Ada"}),
    ("PATCH", "/v1/users/{user_id}", {"first_name": "Ada"}),
    ("DELETE", "/v1/users/{user_id}", None),
    ("DELETE", "/v1/users/{user_id}/api-keys", None),
    ("POST", "/v1/api-keys", {"name": "new", "scopes": []}),
    ("PATCH", "/v1/api-keys/{key_id}", {"name": "new"}),
    ("DELETE", "/v1/api-keys/{key_id}", None),
    ("POST", "/v1/api-keys/{key_id}/renew", None),
    ("POST", "/v1/api-keys/{key_id}/rotate", None),
]
NEED_NO_SCOPE = {("DELETE", "/v1/api-keys/current"), ("POST", "/v1/api-keys/current/rotate")}


@pytest.fixture
async def me(app: FastAPI, as_user: AsUser) -> KeyClient:
    """An admin whose key has been verified already."""
    me = await as_user(admin=True)
    caller = Caller(me.key.id, me.user.id, frozenset(Scope))
    app.dependency_overrides[get_caller] = lambda: caller
    return me


@pytest.fixture
async def other(as_user: AsUser) -> KeyClient:
    return await as_user()


def writes(other: KeyClient) -> Iterator[tuple[str, str, object]]:
    for method, path, body in WRITES:
        for key_id in (other.key.id, "current") if "{key_id}" in path else ("",):
            yield method, path.format(user_id=other.user.id, key_id=key_id), body


async def all_rows(database: Database) -> list[dict[str, object]]:
    models: Sequence[type[SQLModel]] = (User, UserApiKey, AuditEvent)
    async with database.session(read_only=True) as session:
        return [row.model_dump() for model in models for row in await session.exec(select(model))]


def test_the_list_of_writes_is_complete(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    assert {(method, path) for method, path, _ in WRITES} == {
        (method.upper(), path)
        for path in paths
        for method in paths[path]
        if path.startswith(("/v1/users", "/v1/api-keys")) and method != "get"
    }


async def change(
    database: Database, model: type[SQLModel], row_id: object, changes: dict[str, object] | None
) -> None:
    """Without the app. Deletes the row if there are no changes."""
    async with database.session() as session:
        row = await session.get_one(model, row_id)
        if changes:
            row.sqlmodel_update(changes)
        else:
            await session.delete(row)


@pytest.mark.parametrize(
    ("code", "model", "changes"),
    [
        ("api_key_revoked", UserApiKey, {"revoked_at": utc_now()}),
        ("api_key_disabled", UserApiKey, {"enabled": False}),
        ("api_key_expired", UserApiKey, {"expires_at": utc_now()}),
        ("insufficient_scope", UserApiKey, {"scopes": []}),
        ("api_key_invalid", UserApiKey, None),
        ("user_inactive", User, {"is_active": False}),
    ],
)
async def test_no_write_takes_effect_if_the_caller_has_changed_since_it_was_verified(
    me: KeyClient,
    other: KeyClient,
    client: AsyncClient,
    database: Database,
    code: str,
    model: type[SQLModel],
    changes: dict[str, object] | None,
) -> None:
    await change(database, model, me.key.id if model is UserApiKey else me.user.id, changes)
    before = await all_rows(database)
    for method, url, body in writes(other):
        if code == "insufficient_scope" and (method, url) in NEED_NO_SCOPE:
            continue
        response = await client.request(method, url, json=body)
        assert response.json()["code"] == code, (method, url)
    assert await all_rows(database) == before


async def test_no_write_to_other_users_takes_effect_if_the_admin_was_demoted(
    me: KeyClient, other: KeyClient, client: AsyncClient, database: Database
) -> None:
    await change(database, User, me.user.id, {"is_admin": False})
    before = await all_rows(database)
    for method, url, body in [
        *(one for one in writes(other) if other.key.id in one[1] or f"{other.user.id}" in one[1]),
        ("POST", "/v1/users", {"email": "new@example.com"}),
        ("POST", "/v1/api-keys", {"name": "new", "scopes": [], "user_id": f"{other.user.id}"}),
        ("POST", "/v1/api-keys", {"name": "new", "scopes": ["admin"]}),
    ]:
        response = await client.request(method, url, json=body)
        assert response.status_code in {403, 404}, (method, url)
    assert await all_rows(database) == before


async def change_elsewhere(session: AsyncSession, model: type[SQLModel], **changes: object) -> None:
    """As another transaction does: what the session has loaded stays as it was."""
    await (await session.connection()).execute(update(model).values(changes))


async def test_a_write_sees_what_changed_before_its_locks(
    as_user: AsUser, database: Database, settings: Settings
) -> None:
    me = await as_user()
    async with database.session() as session:
        loaded_user = await session.get_one(User, me.user.id)
        await change_elsewhere(session, User, last_name="Lovelace")
        user = await users.update(session, me.user.id, UserUpdate(first_name="Ada"), None)
        assert (user.first_name, user.last_name) == ("Ada", "Lovelace")
        assert user is loaded_user
    async with database.session() as session:
        loaded_key = await session.get_one(UserApiKey, me.key.id)
        await change_elsewhere(session, UserApiKey, name="changed")
        locked = await api_keys.lock(session, me.key.id, None)
        assert locked.key.name == "changed"
        assert locked.key is loaded_key
    async with database.session() as session:
        owner = await session.get_one(User, me.user.id)
        await change_elsewhere(session, User, is_admin=True)
        new = ApiKeyCreate(name="ci", scopes=[Scope.ADMIN], user_id=owner.id)
        await api_keys.create(session, settings, new, None)
