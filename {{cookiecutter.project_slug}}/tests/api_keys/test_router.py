"""Creating, reading, listing and revoking keys. test_service.py covers the other changes."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import time_machine
from httpx import AsyncClient, Response
from sqlmodel import select

from app.api_keys.models import UserApiKey
from app.auth import key_format
from app.auth.scopes import Scope
from app.core.database import Database
from app.settings import Settings
from tests.conftest import AsUser, ChangeKey

KEYS = "/v1/api-keys"
ME = "/v1/users/me"
NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def new_key(**changes: object) -> dict[str, object]:
    return {"name": "laptop", "scopes": ["users:read"], **changes}


def pointers(response: Response) -> list[str]:
    assert response.json()["code"] == "invalid_input"
    return [error["pointer"] for error in response.json()["errors"]]


async def test_only_the_first_response_contains_the_key(
    client: AsyncClient, as_user: AsUser
) -> None:
    me = await as_user()
    created = await me.post(KEYS, json=new_key())
    key = created.json()
    assert created.status_code == 201
    assert created.headers["cache-control"] == "no-store"
    assert created.headers["location"] == f"{KEYS}/{key['id']}"
    api_key = key.pop("api_key")
    response = await client.get(ME, headers={"Authorization": f"Bearer {api_key}"})
    assert response.json()["id"] == str(me.user.id)
    assert (await me.get(created.headers["location"])).json() == key
    assert (await me.get(KEYS)).json()["items"][0] == key
    assert " ".join(key) == (
        "id user_id name hint scopes status rate_limit allowed_cidrs created_at updated_at "
        "expires_at last_used_at revoked_at"
    )
    assert api_key.split("_")[-1] not in str(key)
    assert key["updated_at"] == key["created_at"]


async def test_only_a_digest_is_stored(
    as_user: AsUser, database: Database, settings: Settings
) -> None:
    me = await as_user()
    api_key = (await me.post(KEYS, json=new_key())).json()["api_key"]
    async with database.session() as session:
        named = select(UserApiKey).where(UserApiKey.name == "laptop")
        row = (await session.exec(named)).one()
    assert api_key.split("_")[-1][:43] not in str(row.model_dump())
    pepper = settings.api_key_peppers[1].get_secret_value()
    assert row.digest == key_format.digest(pepper, api_key)
    assert "digest" not in repr(row)


async def test_networks_scopes_and_times_are_normalized(as_user: AsUser) -> None:
    me = await as_user()
    new = new_key(
        allowed_cidrs=["192.0.2.7", "2001:DB8::/32", "::ffff:10.0.0.0/104", "::ffff:0:0/96"],
        scopes=["users:write", "users:read", "users:read"],
        expires_at="2100-01-01T02:00:00+02:00",
    )
    created = (await me.post(KEYS, json=new)).json()
    assert created["allowed_cidrs"] == ["192.0.2.7/32", "2001:db8::/32", "10.0.0.0/8", "0.0.0.0/0"]
    assert created["scopes"] == ["users:read", "users:write"]
    assert created["expires_at"] == "2100-01-01T00:00:00Z"


@pytest.mark.parametrize("settings", [{"api_key_expire_days": 3}], indirect=True)
async def test_a_key_expires_after_the_default_number_of_days_or_never(as_user: AsUser) -> None:
    with time_machine.travel(NOW, tick=False):
        me = await as_user()
        default = (await me.post(KEYS, json=new_key())).json()
        never = (await me.post(KEYS, json=new_key(expires_at=None))).json()
    assert (default["expires_at"], never["expires_at"]) == ("2030-02-03T12:00:00Z", None)


@pytest.mark.parametrize("settings", [{"api_key_max_expire_days": 30}], indirect=True)
@pytest.mark.parametrize("path", [KEYS, f"{KEYS}/current/renew"])
@pytest.mark.parametrize(
    ("expires_at", "is_valid"),
    [
        (NOW, False),
        (NOW + MICROSECOND, True),
        (NOW + timedelta(days=30), True),
        (NOW + timedelta(days=30) + MICROSECOND, False),
        (None, False),
    ],
)
async def test_a_key_expires_after_now_and_not_after_the_maximum(
    as_user: AsUser, path: str, expires_at: datetime | None, is_valid: bool
) -> None:
    with time_machine.travel(NOW, tick=False):
        me = await as_user()
        body = new_key() if path == KEYS else {}
        body["expires_at"] = expires_at and expires_at.isoformat()
        response = await me.post(path, json=body)
    if is_valid:
        assert datetime.fromisoformat(response.json()["expires_at"]) == expires_at
    else:
        assert pointers(response) == ["/body/expires_at"]


@pytest.mark.parametrize(
    ("pointer", "values"),
    [
        ("/body/name", [None, "", "   ", "a" * 101, "a\0b", "a\nb", 5]),
        ("/body/scopes", [None, ["users:read"] * 101]),
        ("/body/scopes/0", [["nothing:known"]]),
        ("/body/expires_at", ["2100-01-01T00:00:00", "9999-12-31T23:59:59-14:00", 4102444800]),
        ("/body/rate_limit", ["0/minute", 5]),
        ("/body/allowed_cidrs", [[], ["10.0.0.0/8"] * 101]),
        ("/body/allowed_cidrs/0", [["10.0.0.1/8"], ["home"], ["fe80::1%eth0"]]),
        ("/body/user_id", ["me"]),
        ("/body/enabled", [None, 1]),
        ("/body/id", ["0" * 16]),
    ],
)
async def test_an_invalid_field_is_rejected(
    as_user: AsUser, pointer: str, values: list[object]
) -> None:
    me = await as_user()
    for value in values:
        change = {pointer.split("/")[2]: value}
        assert pointers(await me.post(KEYS, json=new_key(**change))) == [pointer]
        assert pointers(await me.patch(f"{KEYS}/current", json=change)) == [pointer]


async def test_a_list_can_have_a_hundred_items(as_user: AsUser) -> None:
    me = await as_user()
    networks = [f"10.{number}.0.0/16" for number in range(100)]
    new = new_key(scopes=["users:read"] * 100, allowed_cidrs=networks)
    assert (await me.post(KEYS, json=new)).json()["allowed_cidrs"] == networks


@pytest.mark.parametrize(
    ("held", "granted"),
    [
        ([Scope.API_KEYS_READ], []),
        ([Scope.API_KEYS_WRITE], ["users:read"]),
        (None, ["users:read", "admin"]),
    ],
)
async def test_callers_cannot_grant_scopes_that_they_lack(
    as_user: AsUser, held: list[Scope] | None, granted: list[str]
) -> None:
    me = await as_user(scopes=held)
    response = await me.post(KEYS, json=new_key(scopes=granted))
    assert response.json()["code"] == "insufficient_scope"


async def test_only_admins_create_and_list_keys_of_other_users(as_user: AsUser) -> None:
    me, other, admin = await as_user(), await as_user(), await as_user(admin=True)
    user_id = {"user_id": str(other.user.id)}
    forbidden = [await me.post(KEYS, json=new_key(**user_id)), await me.get(KEYS, params=user_id)]
    assert {response.json()["code"] for response in forbidden} == {"insufficient_scope"}
    key = (await admin.post(KEYS, json=new_key(**user_id))).json()
    assert key["user_id"] == str(other.user.id)

    async def listed(client: AsyncClient, **query: str) -> list[str]:
        return [key["id"] for key in (await client.get(KEYS, params=query)).json()["items"]]

    assert await listed(me) == await listed(me, user_id=str(me.user.id)) == [me.key.id]
    assert await listed(admin) == [key["id"], admin.key.id, other.key.id, me.key.id]
    assert await listed(admin, **user_id) == [key["id"], other.key.id]

    unknown = new_key(user_id=str(uuid4()))
    assert pointers(await admin.post(KEYS, json=unknown)) == ["/body/user_id"]
    of_no_admin = new_key(**user_id, scopes=["admin"])
    assert pointers(await admin.post(KEYS, json=of_no_admin)) == ["/body/scopes"]


@pytest.mark.parametrize("settings", [{"api_key_max_per_user": 2}], indirect=True)
@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"enabled": False}, True),
        ({"expires_at": None}, True),
        ({"expires_at": NOW + MICROSECOND}, True),
        ({"expires_at": NOW}, False),
        ({"revoked_at": NOW}, False),
    ],
)
async def test_keys_that_are_neither_revoked_nor_expired_count_towards_the_maximum(
    as_user: AsUser, change_key: ChangeKey, changes: dict[str, object], counts: bool
) -> None:
    with time_machine.travel(NOW, tick=False):
        me = await as_user()
        await change_key((await as_user(user=me.user)).key, **changes)
        statuses = [(await me.post(KEYS, json=new_key())).status_code for _ in range(2)]
    assert statuses == [409 if counts else 201, 409]


async def test_keys_are_found_by_name_status_and_expiry(
    as_user: AsUser, change_key: ChangeKey
) -> None:
    with time_machine.travel(NOW, tick=False):
        me = await as_user()
        changes: dict[str, dict[str, object]] = {
            "active": {},
            "disabled": {"enabled": False, "expires_at": NOW},
            "expired": {"expires_at": NOW},
            "revoked": {"revoked_at": NOW, "enabled": False, "expires_at": NOW},
            "100%": {},
        }
        for name, change in changes.items():
            key = (await as_user(user=me.user)).key
            await change_key(key, **{"name": name, "expires_at": None, **change})
        await change_key(me.key, name="me", expires_at=NOW + MICROSECOND)

        async def found(**query: str) -> dict[str, str]:
            keys = (await me.get(KEYS, params=query)).json()["items"]
            return {key["name"]: key["status"] for key in keys}

        active = dict.fromkeys(("me", "active", "100%"), "active")
        others = {name: name for name in ("disabled", "expired", "revoked")}
        assert await found() == active | others
        assert await found(status="active") == active
        for name in others:
            assert await found(status=name) == {name: name}
        assert await found(q="ACT") == {"active": "active"}
        assert await found(q="%") == {"100%": "active"}
        later, latest = (NOW + MICROSECOND).isoformat(), (NOW + 2 * MICROSECOND).isoformat()
        assert await found(expires_before=later) == others
        assert await found(expires_before=latest) == {"me": "active", **others}


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "", Scope.API_KEYS_READ),
        ("GET", "/events", Scope.API_KEYS_READ),
        ("PATCH", "", Scope.API_KEYS_WRITE),
        ("POST", "/renew", Scope.API_KEYS_WRITE),
        ("POST", "/rotate", Scope.API_KEYS_WRITE),
        ("DELETE", "", Scope.API_KEYS_WRITE),
    ],
)
async def test_access_to_a_key_requires_its_owner_and_a_scope(
    as_user: AsUser, method: str, path: str, scope: Scope
) -> None:
    other = await as_user(scopes=[])

    async def code(client: AsyncClient, key_id: str) -> str | None:
        response = await client.request(method, f"{KEYS}/{key_id}{path}", json={})
        return None if response.is_success else response.json()["code"]

    for held in (Scope.API_KEYS_READ, Scope.API_KEYS_WRITE):
        me = await as_user(user=other.user, scopes=[held])
        assert await code(me, other.key.id) == (None if held is scope else "insufficient_scope")
    stranger = await as_user()
    assert await code(stranger, other.key.id) == "not_found"
    assert await code(stranger, "0" * 16) == "not_found"
    assert await code(stranger, "ABC") == "invalid_input"
    is_free_for_current = (method, path) in {("GET", ""), ("POST", "/rotate"), ("DELETE", "")}
    for is_named in (True, False):
        bare = await as_user(scopes=[])
        key_id = bare.key.id if is_named else "current"
        assert await code(bare, key_id) == (None if is_free_for_current else "insufficient_scope")


async def test_revoking_is_permanent_and_idempotent(as_user: AsUser) -> None:
    me = await as_user()
    other = await as_user(user=me.user)
    path = f"{KEYS}/{other.key.id}"
    assert (await me.delete(path)).status_code == 204
    revoked = (await me.get(path)).json()
    assert revoked["status"] == "revoked"
    assert (await me.delete(path)).status_code == 204
    assert (await me.get(path)).json() == revoked
    assert (await other.get(ME)).json()["code"] == "api_key_revoked"
