"""Changing, renewing, rotating, and what is remembered of it."""

from datetime import datetime, timedelta

import pytest
from httpx import AsyncClient, Response

from app.api_keys.models import Status
from app.database import utc_now
from app.scopes import Scope
from tests.conftest import AsUser, ChangeKey

KEYS = "/v1/api-keys"
ME = "/v1/users/me"


async def new_key(me: AsyncClient, **changes: object) -> dict[str, str]:
    created = await me.post(KEYS, json={"name": "laptop", "scopes": ["users:read"], **changes})
    assert created.status_code == 201, created.text
    return dict(created.json())


async def ask(client: AsyncClient, api_key: str) -> Response:
    return await client.get(ME, headers={"Authorization": f"Bearer {api_key}"})


def refused(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def remaining(key: dict[str, str]) -> timedelta:
    return datetime.fromisoformat(key["expires_at"]) - utc_now()


async def test_what_is_absent_stays_as_it_is(as_user: AsUser) -> None:
    me = await as_user()
    key = await new_key(me, rate_limit="5/minute", allowed_cidrs=["10.0.0.0/8"])
    del key["api_key"]
    changed = (await me.patch(f"{KEYS}/{key['id']}", json={"name": "desk"})).json()
    assert changed | {"updated_at": ""} == key | {"name": "desk", "updated_at": ""}
    changed = (await me.patch(f"{KEYS}/{key['id']}", json={"rate_limit": None, "allowed_cidrs": None})).json()
    assert (changed["rate_limit"], changed["allowed_cidrs"]) == (None, None)


async def test_a_key_is_switched_off_and_on(as_user: AsUser, client: AsyncClient) -> None:
    me = await as_user()
    key = await new_key(me)
    assert (await me.patch(f"{KEYS}/{key['id']}", json={"enabled": False})).json()["status"] == "disabled"
    assert refused(await ask(client, key["api_key"])) == (401, "api_key_disabled")
    assert (await me.patch(f"{KEYS}/{key['id']}", json={"enabled": True})).json()["status"] == "active"
    assert (await ask(client, key["api_key"])).status_code == 200


@pytest.mark.parametrize(
    "change",
    [{"enabled": None}, {"enabled": 1}, {"name": None}, {"scopes": None}, {"rate_limit": "0/minute"}, {"id": "x"}],
)
async def test_a_change_that_does_not_fit_is_refused(as_user: AsUser, change: dict[str, object]) -> None:
    me = await as_user()
    response = await me.patch(f"{KEYS}/current", json=change)
    assert refused(response) == (422, "invalid_input")


async def test_a_change_grants_nothing_that_the_caller_lacks(as_user: AsUser) -> None:
    me = await as_user()
    writer = await as_user(user=me.user, scopes=[Scope.API_KEYS_WRITE])
    wide = await new_key(me, scopes=["users:read", "users:write"])
    path = f"{KEYS}/{wide['id']}"
    assert refused(await writer.patch(path, json={"scopes": ["users:read", "admin"]})) == (403, "insufficient_scope")
    assert (await writer.patch(path, json={"scopes": ["users:read"]})).status_code == 200
    assert refused(await writer.patch(path, json={"scopes": ["users:read", "users:write"]}))[0] == 403
    admin = await as_user(admin=True)
    response = await admin.patch(path, json={"scopes": ["admin"]})
    assert response.json()["errors"][0]["pointer"] == "/body/scopes"


async def test_a_change_of_scopes_is_in_force_with_the_next_request(as_user: AsUser) -> None:
    me, other = await as_user(), await as_user()
    other = await as_user(user=me.user, scopes=[Scope.API_KEYS_READ])
    assert (await other.get(KEYS)).status_code == 200
    await me.patch(f"{KEYS}/{other.key.id}", json={"scopes": []})
    assert refused(await other.get(KEYS)) == (403, "insufficient_scope")


async def test_a_revoked_key_can_be_neither_changed_nor_renewed_nor_rotated(as_user: AsUser) -> None:
    me = await as_user()
    path = f"{KEYS}/{(await new_key(me))['id']}"
    await me.delete(path)
    for response in (
        await me.patch(path, json={"enabled": True}),
        await me.post(f"{path}/renew", json={}),
        await me.post(f"{path}/rotate", json={}),
    ):
        assert refused(response) == (409, "conflict")
    assert (await me.get(path)).json()["status"] == "revoked"


async def test_renewing_revives_an_expired_key(as_user: AsUser, client: AsyncClient, change_key: ChangeKey) -> None:
    me = await as_user()
    other = await as_user(user=me.user)
    await change_key(other.key, expires_at=utc_now())
    assert refused(await ask(client, other.api_key)) == (401, "api_key_expired")
    renewed = (await me.post(f"{KEYS}/{other.key.id}/renew", json={})).json()
    assert timedelta(days=14, hours=23) < remaining(renewed) <= timedelta(days=15)
    assert (await ask(client, other.api_key)).status_code == 200
    for expires_at in (None, "2100-01-01T00:00:00Z"):
        renewed = (await me.post(f"{KEYS}/{other.key.id}/renew", json={"expires_at": expires_at})).json()
        assert renewed["expires_at"] == expires_at
    response = await me.post(f"{KEYS}/{other.key.id}/renew", json={"expires_at": "2020-01-01T00:00:00Z"})
    assert refused(response) == (422, "invalid_input")


async def test_renewing_needs_the_scope_even_for_the_calling_key(as_user: AsUser) -> None:
    me = await as_user(scopes=[Scope.API_KEYS_READ])
    for method, path in (("POST", "renew"), ("PATCH", "")):
        response = await me.request(method, f"{KEYS}/current/{path}".rstrip("/"), json={})
        assert refused(response) == (403, "insufficient_scope")


async def test_a_rotated_key_is_replaced_at_once(as_user: AsUser, client: AsyncClient) -> None:
    me = await as_user()
    old = await new_key(me, rate_limit="5/minute", allowed_cidrs=["127.0.0.1"])
    response = await me.post(f"{KEYS}/{old['id']}/rotate", json={})
    new = response.json()
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["location"] == f"{KEYS}/{new['id']}"
    for same in ("user_id", "name", "scopes", "rate_limit", "allowed_cidrs", "status"):
        assert new[same] == old[same]
    assert abs(remaining(new) - timedelta(days=15)) < timedelta(minutes=1)
    assert new["previous"]["id"] == old["id"]
    assert refused(await ask(client, old["api_key"])) == (401, "api_key_expired")
    assert (await ask(client, new["api_key"])).status_code == 200


async def test_a_rotated_key_works_on_for_the_overlap(as_user: AsUser, client: AsyncClient) -> None:
    me = await as_user()
    old = await new_key(me, expires_at=None)
    new = (await me.post(f"{KEYS}/{old['id']}/rotate", json={"overlap_seconds": 3600})).json()
    assert new["expires_at"] is None
    assert abs(remaining(new["previous"]) - timedelta(hours=1)) < timedelta(minutes=1)
    for api_key in (old["api_key"], new["api_key"]):
        assert (await ask(client, api_key)).status_code == 200


async def test_no_overlap_outlives_the_old_key(as_user: AsUser) -> None:
    me = await as_user()
    end = (utc_now() + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    old = await new_key(me, expires_at=end)
    new = (await me.post(f"{KEYS}/{old['id']}/rotate", json={"overlap_seconds": 7200})).json()
    assert new["previous"]["expires_at"] == end


@pytest.mark.parametrize("settings", [{"api_key_max_expire_days": 20}], indirect=True)
async def test_a_rotation_gives_the_lifetime_of_the_last_renewal_and_never_more_than_the_maximum(
    as_user: AsUser, change_key: ChangeKey
) -> None:
    me = await as_user()
    await me.post(f"{KEYS}/current/renew", json={"expires_at": (utc_now() + timedelta(days=3)).isoformat()})
    new = (await me.post(f"{KEYS}/current/rotate", json={"overlap_seconds": 60})).json()
    assert timedelta(days=2, hours=23) < remaining(new) <= timedelta(days=3, seconds=1)
    never = await as_user()
    await change_key(never.key, expires_at=None, lifetime_seconds=None)  # from before there was a maximum
    assert remaining((await never.post(f"{KEYS}/current/rotate", json={})).json()) <= timedelta(days=20)


async def test_whoever_holds_a_key_may_replace_it(as_user: AsUser, client: AsyncClient) -> None:
    me = await as_user(scopes=[])
    new = (await me.post(f"{KEYS}/current/rotate", json={})).json()
    assert (await ask(client, new["api_key"])).status_code == 200
    assert new["scopes"] == []


async def test_nobody_gets_the_text_of_a_key_that_may_do_more_than_theirs(as_user: AsUser) -> None:
    me = await as_user()
    writer = await as_user(user=me.user, scopes=[Scope.API_KEYS_WRITE])
    assert refused(await writer.post(f"{KEYS}/{me.key.id}/rotate", json={})) == (403, "insufficient_scope")
    assert (await me.post(f"{KEYS}/{writer.key.id}/rotate", json={})).status_code == 201


async def test_a_key_is_rotated_once(as_user: AsUser) -> None:
    me = await as_user()
    old = await new_key(me)
    await me.post(f"{KEYS}/{old['id']}/rotate", json={"overlap_seconds": 60})
    assert refused(await me.post(f"{KEYS}/{old['id']}/rotate", json={})) == (409, "conflict")
    assert refused(await me.post(f"{KEYS}/{old['id']}/renew", json={})) == (409, "conflict")


async def test_a_disabled_key_is_not_rotated(as_user: AsUser) -> None:
    me = await as_user()
    old = await new_key(me)
    await me.patch(f"{KEYS}/{old['id']}", json={"enabled": False})
    assert refused(await me.post(f"{KEYS}/{old['id']}/rotate", json={})) == (409, "conflict")


@pytest.mark.parametrize("overlap", [-1, 2_592_001, "60", 1.5, None, True])
async def test_an_overlap_that_does_not_fit_is_refused(as_user: AsUser, overlap: object) -> None:
    response = await (await as_user()).post(f"{KEYS}/current/rotate", json={"overlap_seconds": overlap})
    assert refused(response) == (422, "invalid_input")


@pytest.mark.parametrize("settings", [{"api_key_max_per_user": 1}], indirect=True)
async def test_a_user_with_all_their_keys_can_still_rotate(as_user: AsUser) -> None:
    me = await as_user()
    assert (await me.post(f"{KEYS}/current/rotate", json={"overlap_seconds": 60})).status_code == 201
    assert refused(await me.post(KEYS, json={"name": "x", "scopes": []})) == (409, "conflict")


async def test_events_say_who_did_what(as_user: AsUser) -> None:
    me = await as_user()
    key = await new_key(me)
    path = f"{KEYS}/{key['id']}"
    await me.patch(path, json={"name": "desk"})
    await me.post(f"{path}/renew", json={})
    successor = (await me.post(f"{path}/rotate", json={})).json()
    await me.delete(path)
    await me.delete(path)
    events = (await me.get(f"{path}/events")).json()["items"]
    assert [event["action"] for event in events] == ["revoked", "rotated", "renewed", "updated", "created"]
    assert {(event["actor_user_id"], event["actor_key_id"]) for event in events} == {(str(me.user.id), me.key.id)}
    first = (await me.get(f"{KEYS}/{successor['id']}/events")).json()["items"]
    assert [event["action"] for event in first] == ["created"]
    by_command_line = (await me.get(f"{KEYS}/current/events")).json()["items"][0]
    assert (by_command_line["actor_user_id"], by_command_line["actor_key_id"]) == (None, None)


async def test_what_fails_leaves_no_event(as_user: AsUser) -> None:
    me = await as_user()
    await me.post(f"{KEYS}/current/renew", json={"expires_at": "2020-01-01T00:00:00Z"})
    await me.patch(f"{KEYS}/current", json={"scopes": ["admin"]})
    events = (await me.get(f"{KEYS}/current/events")).json()["items"]
    assert [event["action"] for event in events] == ["created"]


async def test_keys_are_found_by_what_they_are(as_user: AsUser, change_key: ChangeKey) -> None:
    me = await as_user()
    ids = {"caller": me.key.id}
    for name in ("Active", "disabled", "expired", "revoked", "100%"):
        ids[name] = (await new_key(me, name=name, expires_at="2100-01-01T00:00:00Z"))["id"]
    await me.patch(f"{KEYS}/{ids['disabled']}", json={"enabled": False})
    await me.delete(f"{KEYS}/{ids['revoked']}")
    expired = await as_user(user=me.user)
    ids["expired"] = expired.key.id
    await change_key(expired.key, expires_at=utc_now(), last_used_at=utc_now())

    async def found(**query: object) -> set[str]:
        response = await me.get(KEYS, params=query)  # type: ignore[arg-type] # httpx would have no object here
        assert response.status_code == 200, response.text
        return {key["id"] for key in response.json()["items"]}

    for status in Status:
        keys = (await me.get(KEYS, params={"status": status})).json()["items"]
        assert keys
        assert {key["status"] for key in keys} == {status}
    assert await found(q="ACTIVE") == {ids["Active"]}
    assert await found(q="%") == {ids["100%"]}
    assert await found(expires_before="2099-01-01T00:00:00Z") == {me.key.id, ids["expired"]}
    assert ids["expired"] not in await found(unused_since=expired.key.created_at.isoformat())
    assert await found(unused_since="2100-01-01T00:00:00Z") == await found()
    assert await found(user_id=me.user.id) == await found()


async def test_only_an_admin_lists_the_keys_of_others(as_user: AsUser) -> None:
    me, other, admin = await as_user(), await as_user(), await as_user(admin=True)
    response = await me.get(KEYS, params={"user_id": str(other.user.id)})
    assert refused(response) == (403, "insufficient_scope")
    listed = (await admin.get(KEYS, params={"user_id": str(other.user.id)})).json()["items"]
    assert [key["id"] for key in listed] == [other.key.id]
