"""Updating, renewing and rotating keys."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from httpx import AsyncClient, Response
from sqlmodel import select

from app.api_keys import service
from app.api_keys.models import UserApiKey
from app.api_keys.schemas import ApiKeyCreate
from app.auth.confirmation import confirm_caller
from app.auth.scopes import Scope
from app.core.database import Database
from app.core.errors import InvalidInput, Unavailable
from app.settings import Settings
from app.users.models import User
from tests.conftest import AsUser, ChangeKey

KEYS = "/v1/api-keys"
ME = "/v1/users/me"
NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)


async def new_key(me: AsyncClient, **changes: object) -> dict[str, str]:
    created = await me.post(KEYS, json={"name": "laptop", "scopes": ["users:read"], **changes})
    assert created.status_code == 201, created.text
    return dict(created.json())


async def use(client: AsyncClient, api_key: str) -> Response:
    return await client.get(ME, headers={"Authorization": f"Bearer {api_key}"})


def code(response: Response) -> str:
    return str(response.json()["code"])


async def test_omitted_fields_keep_their_values(as_user: AsUser) -> None:
    me = await as_user()
    key = await new_key(me, rate_limit="5/minute", allowed_cidrs=["10.0.0.0/8"])
    del key["api_key"]
    all_changes: list[dict[str, Any]] = [  # Any: values of JSON
        {"name": "desk"},
        {"rate_limit": None},
        {"allowed_cidrs": None},
        {"scopes": []},
    ]
    for changes in all_changes:
        changed = (await me.patch(f"{KEYS}/{key['id']}", json=changes)).json()
        assert changed["updated_at"] > key["updated_at"]
        assert changed == {**key, **changes, "updated_at": changed["updated_at"]}
        for nothing_new in ({}, {**changes, "enabled": True}):
            assert (await me.patch(f"{KEYS}/{key['id']}", json=nothing_new)).json() == changed
        key = changed
    assert (await me.get(f"{KEYS}/{key['id']}")).json() == key


async def times_of_updates(database: Database) -> dict[object, datetime]:
    """By the id of each key and user."""
    async with database.session() as session:
        keys = (await session.exec(select(UserApiKey))).all()
        return {row.id: row.updated_at for row in (*keys, *(await session.exec(select(User))))}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "/v1/api-keys/{key}"),
        ("POST", "/v1/api-keys/{key}/renew"),
        ("POST", "/v1/api-keys/{key}/rotate"),
        ("DELETE", "/v1/api-keys/{key}"),
        ("DELETE", "/v1/users/{user}/api-keys"),
        ("PATCH", "/v1/users/{user}"),
    ],
)
async def test_a_change_sets_updated_at_of_what_it_changes_and_of_nothing_else(
    as_user: AsUser, database: Database, method: str, path: str
) -> None:
    admin, me, _ = await as_user(admin=True), await as_user(), await as_user()
    before = await times_of_updates(database)
    url = path.format(key=me.key.id, user=me.user.id)
    body = {"last_name": "L"} if "users" in path else {"name": "new"}
    response = await admin.request(method, url, json=body if method == "PATCH" else None)
    assert response.is_success
    after = await times_of_updates(database)
    changed = me.user.id if (method, path) == ("PATCH", "/v1/users/{user}") else me.key.id
    assert [one for one in before if after[one] != before[one]] == [changed]
    assert after[changed] > before[changed]


async def test_callers_cannot_add_scopes_that_they_lack(as_user: AsUser) -> None:
    me = await as_user()
    writer = await as_user(user=me.user, scopes=[Scope.API_KEYS_WRITE])
    path = f"{KEYS}/{(await new_key(me, scopes=['users:read', 'users:write']))['id']}"
    for scopes, status in (
        (["users:read", "admin"], 403),
        (["users:read"], 200),
        (["users:read", "users:write"], 403),
    ):
        assert (await writer.patch(path, json={"scopes": scopes})).status_code == status
    admin = await as_user(admin=True)  # the owner of the key is not one
    response = await admin.patch(path, json={"scopes": ["admin"]})
    assert response.json()["errors"][0]["pointer"] == "/body/scopes"


@pytest.mark.parametrize(
    ("before", "conflicts"),
    [
        (("DELETE", "", None), {"", "/renew", "/rotate"}),
        (("PATCH", "", {"enabled": False}), {"/rotate"}),
        (("POST", "/rotate", {"overlap_seconds": 60}), {"/renew", "/rotate"}),
    ],
)
async def test_a_revoked_disabled_or_rotated_key_cannot_be_changed(
    as_user: AsUser, before: tuple[str, str, object], conflicts: set[str]
) -> None:
    me = await as_user()
    key = f"{KEYS}/{(await new_key(me))['id']}"
    method, path, body = before
    assert (await me.request(method, f"{key}{path}", json=body)).is_success
    for path in ("", "/renew", "/rotate"):
        response = await me.request("POST" if path else "PATCH", f"{key}{path}", json={})
        assert response.status_code == 409 if path in conflicts else response.is_success, path


async def test_renewing_reactivates_an_expired_key(as_user: AsUser, change_key: ChangeKey) -> None:
    me = await as_user()
    other = await as_user(user=me.user)
    with time_machine.travel(NOW, tick=False):
        await change_key(me.key, expires_at=None)
        await change_key(other.key, expires_at=NOW)
        assert code(await other.get(ME)) == "api_key_expired"
        for options, expires_at in (
            ({}, "2030-02-15T12:00:00Z"),
            ({"json": {}}, "2030-02-15T12:00:00Z"),
            ({"json": {"expires_at": None}}, None),
            ({"json": {"expires_at": "2100-01-01T00:00:00Z"}}, "2100-01-01T00:00:00Z"),
        ):
            renewed = await me.post(f"{KEYS}/{other.key.id}/renew", **options)
            assert (renewed.status_code, renewed.json()["expires_at"]) == (200, expires_at)
            assert (await me.get(f"{KEYS}/{other.key.id}")).json() == renewed.json()
            assert (await other.get(ME)).status_code == 200


async def test_rotation_replaces_a_key(as_user: AsUser, client: AsyncClient) -> None:
    me = await as_user()
    old = await new_key(me)
    response = await me.post(f"{KEYS}/{old['id']}/rotate")
    new = response.json()
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["location"] == f"{KEYS}/{new['id']}"
    assert new.keys() == {*old, "previous"}
    previous = (await me.get(f"{KEYS}/{old['id']}")).json()
    assert new["previous"] == {"id": old["id"], "expires_at": previous["expires_at"]}
    assert code(await use(client, old["api_key"])) == "api_key_expired"
    assert (await use(client, new["api_key"])).status_code == 200


async def test_rotation_copies_every_column_except_those_of_one_key(
    as_user: AsUser, database: Database
) -> None:
    me = await as_user()
    old = await new_key(me, rate_limit="5/minute", allowed_cidrs=["127.0.0.1"])
    new = (await me.post(f"{KEYS}/{old['id']}/rotate")).json()
    of_one_key = (
        "id hint digest pepper_id created_at updated_at lifetime_seconds replaced_by expires_at "
        "revoked_at"
    )
    assert new["updated_at"] == new["created_at"]
    async with database.session() as session:
        rows = [await session.get_one(UserApiKey, key["id"]) for key in (old, new)]
    before, after = (row.model_dump(exclude={*of_one_key.split()}) for row in rows)
    assert after == before


@pytest.mark.parametrize(
    ("expiry", "overlap", "old_expiry"),
    [
        (None, 3600, NOW + timedelta(hours=1)),
        (NOW + timedelta(days=1), 2_592_000, NOW + timedelta(days=1)),
        (NOW + timedelta(days=1), 0, NOW),
        (NOW - timedelta(days=1), 3600, NOW - timedelta(days=1)),
    ],
)
async def test_the_old_key_expires_after_the_overlap_and_never_later_than_before(
    as_user: AsUser,
    change_key: ChangeKey,
    expiry: datetime | None,
    overlap: int,
    old_expiry: datetime,
) -> None:
    with time_machine.travel(NOW, tick=False):
        me = await as_user()
        old = await as_user(user=me.user)
        await change_key(old.key, expires_at=expiry)
        path = f"{KEYS}/{old.key.id}/rotate"
        new = (await me.post(path, json={"overlap_seconds": overlap})).json()
        assert datetime.fromisoformat(new["previous"]["expires_at"]) == old_expiry
        assert (await old.get(ME)).is_success is (old_expiry > NOW)


@pytest.mark.parametrize("settings", [{"api_key_max_expire_days": 20}], indirect=True)
async def test_the_new_key_has_the_lifetime_of_the_last_renewal_up_to_the_maximum(
    as_user: AsUser, change_key: ChangeKey
) -> None:
    with time_machine.travel(NOW, tick=False) as travel:
        me, unlimited = await as_user(), await as_user()
        renewal = {"expires_at": "2030-02-03T12:00:00Z"}
        await me.post(f"{KEYS}/current/renew", json=renewal)
        await change_key(unlimited.key, lifetime_seconds=None)  # older than the maximum
        travel.shift(timedelta(days=1))
        for client, expires_at in (
            (me, "2030-02-04T12:00:00Z"),
            (unlimited, "2030-02-21T12:00:00Z"),
        ):
            rotated = await client.post(f"{KEYS}/current/rotate")
            assert rotated.json()["expires_at"] == expires_at


async def test_a_key_that_expires_in_the_year_9999_or_never_can_be_rotated(as_user: AsUser) -> None:
    me = await as_user()
    for expires_at in ("9999-12-31T23:59:59.999999Z", None):
        key = await new_key(me, expires_at=expires_at)
        rotated = await me.post(f"{KEYS}/{key['id']}/rotate")
        assert rotated.status_code == 201
        assert str(rotated.json()["expires_at"])[:4] == str(expires_at)[:4]


@pytest.mark.parametrize("overlap", [-1, 2_592_001, "60", 1.5, None, True])
async def test_an_invalid_overlap_is_rejected(as_user: AsUser, overlap: object) -> None:
    me = await as_user()
    response = await me.post(f"{KEYS}/current/rotate", json={"overlap_seconds": overlap})
    assert code(response) == "invalid_input"


@pytest.mark.parametrize("settings", [{"api_key_max_per_user": 2}], indirect=True)
async def test_a_rotated_key_counts_towards_the_maximum_during_its_overlap(
    as_user: AsUser,
) -> None:
    me = await as_user()
    path, overlap = f"{KEYS}/current/rotate", {"overlap_seconds": 60}
    await new_key(me)
    assert code(await me.post(path, json=overlap)) == "conflict"
    assert (await me.get(f"{KEYS}/current")).json()["status"] == "active"
    assert (await me.post(path)).status_code == 201


@pytest.mark.parametrize("settings", [{"api_key_max_per_user": 2}], indirect=True)
async def test_an_expired_key_can_be_renewed_only_below_the_maximum(
    as_user: AsUser, change_key: ChangeKey
) -> None:
    me = await as_user()
    paths = []
    for _ in range(2):
        expired = await as_user(user=me.user)
        await change_key(expired.key, expires_at=NOW.replace(year=2000))
        paths.append(f"{KEYS}/{expired.key.id}/renew")
    statuses = [(await me.post(path)).status_code for path in (paths[0], paths[0], paths[1])]
    assert statuses == [200, 200, 409]


async def test_without_a_caller_the_owner_is_required(
    database: Database, settings: Settings
) -> None:
    async with database.session() as session:
        with pytest.raises(InvalidInput):
            await service.create(session, settings, ApiKeyCreate(name="ci", scopes=[]), None)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "STEP", 2)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
async def test_all_keys_of_a_user_are_revoked_once_in_any_number_of_steps(
    as_user: AsUser, pauses: list[float], number: int
) -> None:
    admin = await as_user(admin=True)  # the calling key is the first, and is needed to the end
    keys = [(await new_key(admin))["id"] for _ in range(number - 1)] + [admin.key.id]
    await as_user()
    response = await admin.delete(f"/v1/users/{admin.user.id}/api-keys")
    assert response.json() == {"revoked": number}
    assert pauses == [0.01] * ((number - 1) // 2)  # for the other writers of SQLite
    assert code(await admin.get(ME)) == "api_key_revoked"
    other = await as_user(admin=True)
    events = (await other.get("/v1/audit-events", params={"action": "api_key.revoked"})).json()
    assert sorted(event["target_key_id"] for event in events["items"]) == sorted(keys)


@pytest.mark.usefixtures("small_steps")
async def test_a_failure_in_the_middle_leaves_the_revoked_keys_revoked(
    as_user: AsUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin, me = await as_user(admin=True), await as_user()
    for _ in range(4):
        await new_key(me)
    steps = iter([True])

    async def confirm_once(*arguments: Any, **options: Any) -> Any:
        if not next(steps, False):
            raise Unavailable
        return await confirm_caller(*arguments, **options)

    path = f"/v1/users/{me.user.id}/api-keys"
    with monkeypatch.context() as failing:
        failing.setattr(service, "confirm_caller", confirm_once)
        assert (await admin.delete(path)).status_code == 503
    assert (await admin.delete(path)).json() == {"revoked": 3}
