from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest
import time_machine
from httpx import AsyncClient
from sqlmodel import col, select

from app.audit.models import AuditEvent
from app.auth.scopes import Scope
from app.core.database import Database
from app.users import service as users
from app.users.schemas import UserUpdate
from tests.conftest import AsUser

KEYS = "/v1/api-keys"
USERS = "/v1/users"


async def events_of(database: Database, user_id: UUID) -> Sequence[AuditEvent]:
    """The events of a user and their keys, oldest first."""
    async with database.session() as session:
        events = select(AuditEvent).where(AuditEvent.target_user_id == user_id)
        return (await session.exec(events.order_by(col(AuditEvent.created_at)))).all()


async def test_every_change_of_a_key_writes_an_event(as_user: AsUser, database: Database) -> None:
    me = await as_user()
    created = (await me.post(KEYS, json={"name": "ci", "scopes": []})).json()
    path, expiry, far = f"{KEYS}/{created['id']}", created["expires_at"], "2100-01-01T00:00:00Z"
    await me.patch(path, json={"enabled": False, "name": "desk"})
    await me.patch(path, json={"enabled": True})
    await me.post(f"{path}/renew", json={"expires_at": far})
    rotated = (await me.post(f"{path}/rotate")).json()
    await me.delete(path)

    events = [one for one in await events_of(database, me.user.id) if one.actor_key_id]
    of_key = [one for one in events if one.target_key_id == created["id"]]
    assert [(event.action, event.changes, event.changes_rights) for event in of_key] == [
        ("api_key.created", {}, False),
        ("api_key.updated", {"enabled": [True, False], "name": None}, True),
        ("api_key.updated", {"enabled": [False, True]}, True),
        ("api_key.renewed", {"expires_at": [expiry, far]}, True),
        ("api_key.rotated", {"expires_at": [far, rotated["previous"]["expires_at"]]}, True),
        ("api_key.revoked", {}, True),
    ]
    (successor,) = [one for one in events if one not in of_key]
    assert (successor.action, successor.target_key_id) == ("api_key.created", rotated["id"])
    actors = {(event.actor_user_id, event.actor_key_id) for event in events}
    assert actors == {(me.user.id, me.key.id)}


async def test_events_of_a_user_outlive_the_user_and_the_actor(
    as_user: AsUser, database: Database
) -> None:
    admin, actor = await as_user(admin=True), await as_user(admin=True)
    user_id = (await actor.post(USERS, json={"email": "a@example.com"})).json()["id"]
    await actor.patch(f"{USERS}/{user_id}", json={"is_active": False})
    await actor.delete(f"{USERS}/{user_id}")
    await admin.delete(f"{USERS}/{actor.user.id}")
    events = await events_of(database, UUID(user_id))
    assert [(event.action, event.changes, event.changes_rights) for event in events] == [
        ("user.created", {}, False),
        ("user.updated", {"is_active": [True, False]}, True),
        ("user.deleted", {}, True),
    ]
    for event in events:
        assert (event.actor_user_id, event.actor_key_id) == (actor.user.id, actor.key.id)
        assert event.target_key_id is None
    of_actor = await events_of(database, actor.user.id)
    assert {event.target_key_id for event in of_actor} == {actor.key.id, None}


async def test_revoking_all_keys_writes_an_event_for_each(
    as_user: AsUser, database: Database
) -> None:
    admin, me = await as_user(admin=True), await as_user()
    other = await as_user(user=me.user)
    for number in (2, 0):
        response = await admin.delete(f"{USERS}/{me.user.id}/api-keys")
        assert response.json() == {"revoked": number}
    events = [one for one in await events_of(database, me.user.id) if one.actor_key_id]
    found = {(one.action, one.target_key_id, one.changes_rights) for one in events}
    assert found == {
        ("api_key.revoked", me.key.id, True),
        ("api_key.revoked", other.key.id, True),
    }
    assert len(events) == 2
    assert {(one.actor_user_id, one.actor_key_id) for one in events} == {
        (admin.user.id, admin.key.id)
    }


@pytest.mark.parametrize(
    ("path", "change", "changes", "changes_rights"),
    [
        (USERS, {"last_name": "L", "is_active": True}, {"last_name": None}, False),
        (USERS, {"is_admin": True}, {"is_admin": [False, True]}, True),
        (KEYS, {"name": "desk", "enabled": True}, {"name": None}, False),
        (KEYS, {"scopes": []}, {"scopes": [["users:read"], []]}, True),
        (KEYS, {"rate_limit": "5/minute"}, {"rate_limit": [None, "5/minute"]}, True),
        (KEYS, {"allowed_cidrs": ["10.0.0.0/8"]}, {"allowed_cidrs": [None, ["10.0.0.0/8"]]}, True),
    ],
)
async def test_the_values_of_rights_are_recorded_and_the_names_of_other_fields(
    as_user: AsUser,
    no_auth: AsyncClient,
    database: Database,
    path: str,
    change: dict[str, object],
    changes: dict[str, object],
    changes_rights: bool,
) -> None:
    other = await as_user(scopes=[Scope.USERS_READ])
    await no_auth.patch(f"{path}/{other.key.id if path == KEYS else other.user.id}", json=change)
    event = (await events_of(database, other.user.id))[-1]
    assert (event.changes, event.changes_rights) == (changes, changes_rights)


async def test_changing_your_own_name_writes_an_event(as_user: AsUser, database: Database) -> None:
    me = await as_user()
    await me.patch(f"{USERS}/me", json={"first_name": "Ada"})
    event = (await events_of(database, me.user.id))[-1]
    assert (event.action, event.changes) == ("user.updated", {"first_name": None})
    assert (event.actor_user_id, event.actor_key_id) == (me.user.id, me.key.id)


async def test_the_database_sets_the_time_of_an_event(as_user: AsUser, database: Database) -> None:
    me = await as_user()
    with time_machine.travel(datetime(2020, 1, 1, tzinfo=UTC)):
        await me.patch(f"{USERS}/me", json={"first_name": "Ada"})
    assert all(event.created_at.year > 2020 for event in await events_of(database, me.user.id))


async def test_a_request_that_changes_nothing_or_fails_writes_no_event(
    as_user: AsUser, database: Database
) -> None:
    admin = await as_user(admin=True)
    key = (await admin.post(KEYS, json={"name": "ci", "scopes": []})).json()
    path, own_path = f"{KEYS}/{key['id']}", f"{USERS}/{admin.user.id}"
    await admin.delete(path)
    before = await events_of(database, admin.user.id)

    past = {"expires_at": "2020-01-01T00:00:00Z"}
    for method, where, body, status in (
        ("DELETE", path, None, 204),
        ("PATCH", f"{KEYS}/current", {"name": admin.key.name, "enabled": True}, 200),
        ("PATCH", f"{USERS}/me", {"first_name": ""}, 200),
        ("PATCH", own_path, {"is_active": True}, 200),
        ("PATCH", own_path, {"is_active": False}, 409),
        ("DELETE", own_path, None, 409),
        ("POST", KEYS, {"name": "x", "scopes": [], **past}, 422),
        ("PATCH", path, {"name": "x"}, 409),
        ("POST", f"{path}/renew", None, 409),
        ("POST", f"{path}/rotate", None, 409),
        ("POST", f"{KEYS}/current/renew", past, 422),
    ):
        response = await admin.request(method, where, json=body)
        assert response.status_code == status, (method, where)
    assert await events_of(database, admin.user.id) == before


async def test_an_event_is_rolled_back_with_its_change(as_user: AsUser, database: Database) -> None:
    me = await as_user()
    before = await events_of(database, me.user.id)

    async def fail_after_the_change() -> None:
        async with database.session() as session:
            await users.update(session, me.user.id, UserUpdate(is_active=False), None)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail_after_the_change()
    assert await events_of(database, me.user.id) == before
    assert (await me.get(f"{USERS}/me")).json()["is_active"] is True
