from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from httpx import AsyncClient, Response
from sqlmodel import select

from app.api_keys import format as key_format
from app.api_keys.models import UserApiKey
from app.database import Database, utc_now
from app.scopes import Scope
from app.settings import Settings
from tests.conftest import AsUser, ChangeKey

KEYS = "/v1/api-keys"
FIELDS = {
    "id",
    "user_id",
    "name",
    "hint",
    "scopes",
    "status",
    "rate_limit",
    "allowed_cidrs",
    "created_at",
    "updated_at",
    "expires_at",
    "last_used_at",
    "revoked_at",
}


def new_key(**changes: object) -> dict[str, object]:
    return {"name": "laptop", "scopes": ["users:read"], **changes}


def pointers(response: Response) -> list[str]:
    return [error["pointer"] for error in response.json()["errors"]]


async def test_a_created_key_works_and_is_shown_only_once(
    client: AsyncClient, as_user: AsUser, database: Database
) -> None:
    me = await as_user()
    created = await me.post(KEYS, json=new_key())
    assert created.status_code == 201
    assert created.headers["cache-control"] == "no-store"
    assert created.headers["location"] == f"{KEYS}/{created.json()['id']}"
    api_key = created.json()["api_key"]

    response = await client.get("/v1/users/me", headers={"Authorization": f"Bearer {api_key}"})
    assert response.json()["id"] == str(me.user.id)

    for later in (await me.get(created.headers["location"]), await me.get(KEYS)):
        assert "api_key" not in str(later.json()).replace("api_keys:", "")
        assert api_key.split("_")[-1] not in later.text


async def test_an_answer_holds_these_fields_and_no_others(as_user: AsUser) -> None:
    me = await as_user()
    assert (await me.post(KEYS, json=new_key())).json().keys() == FIELDS | {"api_key"}
    assert (await me.get(f"{KEYS}/current")).json().keys() == FIELDS
    assert (await me.get(KEYS)).json()["items"][0].keys() == FIELDS


async def test_only_a_digest_is_stored(as_user: AsUser, database: Database, settings: Settings) -> None:
    me = await as_user()
    created = (await me.post(KEYS, json=new_key())).json()
    async with database.session() as session:
        row = (await session.exec(select(UserApiKey).where(UserApiKey.id == created["id"]))).one()
    secret = created["api_key"].split("_")[-1][:43]
    assert secret not in str(row.model_dump())
    pepper = settings.api_key_peppers[1].get_secret_value()
    assert row.digest == key_format.digest(pepper, created["api_key"])
    assert "digest" not in repr(row)


async def test_a_key_ends_after_the_configured_days_unless_its_creator_says(as_user: AsUser) -> None:
    me = await as_user()
    default = (await me.post(KEYS, json=new_key())).json()
    lifetime = datetime.fromisoformat(default["expires_at"]) - datetime.fromisoformat(default["created_at"])
    assert abs(lifetime - timedelta(days=15)) < timedelta(seconds=1)

    never = (await me.post(KEYS, json=new_key(expires_at=None))).json()
    assert never["expires_at"] is None

    chosen = (await me.post(KEYS, json=new_key(expires_at="2100-01-01T02:00:00+02:00"))).json()
    assert chosen["expires_at"] == "2100-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "expires_at",
    ["2020-01-01T00:00:00Z", "2100-01-01T00:00:00", "9999-12-31T23:59:59-14:00", 4102444800, "tomorrow"],
)
async def test_an_expiry_that_is_past_naive_or_no_moment_is_refused(as_user: AsUser, expires_at: object) -> None:
    me = await as_user()
    response = await me.post(KEYS, json=new_key(expires_at=expires_at))
    assert response.status_code == 422
    assert pointers(response) == ["/body/expires_at"]


@pytest.mark.parametrize("settings", [{"api_key_max_expire_days": 30}], indirect=True)
@pytest.mark.parametrize(("days", "status"), [(None, 422), (31, 422), (29, 201)])
async def test_no_key_outlives_the_maximum(as_user: AsUser, days: int | None, status: int) -> None:
    me = await as_user()
    moment = days and (utc_now() + timedelta(days=days)).isoformat()
    response = await me.post(KEYS, json=new_key(expires_at=moment))
    assert response.status_code == status


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"name": ""}, "/body/name"),
        ({"name": "   "}, "/body/name"),
        ({"name": "a" * 101}, "/body/name"),
        ({"name": "a\0b"}, "/body/name"),
        ({"name": "a\nb"}, "/body/name"),
        ({"name": 5}, "/body/name"),
        ({"scopes": ["nothing:known"]}, "/body/scopes/0"),
        ({"scopes": None}, "/body/scopes"),
        ({"allowed_cidrs": []}, "/body/allowed_cidrs"),
        ({"allowed_cidrs": ["10.0.0.1/8"]}, "/body/allowed_cidrs/0"),
        ({"allowed_cidrs": ["home"]}, "/body/allowed_cidrs/0"),
        ({"user_id": "me"}, "/body/user_id"),
        ({"admin": True}, "/body/admin"),
    ],
)
async def test_one_bad_field_is_pointed_at(as_user: AsUser, changes: dict[str, object], pointer: str) -> None:
    me = await as_user()
    response = await me.post(KEYS, json=new_key(**changes))
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")
    assert pointers(response) == [pointer]


async def test_networks_and_scopes_come_back_in_order(as_user: AsUser) -> None:
    me = await as_user()
    new = new_key(allowed_cidrs=["192.0.2.7", "2001:DB8::/32"], scopes=["users:write", "users:read", "users:read"])
    created = (await me.post(KEYS, json=new)).json()
    assert created["allowed_cidrs"] == ["192.0.2.7/32", "2001:db8::/32"]
    assert created["scopes"] == ["users:read", "users:write"]


async def test_nobody_grants_what_they_lack(as_user: AsUser) -> None:
    me = await as_user(scopes=[Scope.API_KEYS_WRITE])
    response = await me.post(KEYS, json=new_key(scopes=["users:read"]))
    assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")
    for scopes in (["admin"], ["users:read", "admin"]):
        response = await (await as_user()).post(KEYS, json=new_key(scopes=scopes))
        assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")


async def test_a_key_is_made_only_with_the_scope_to_write(as_user: AsUser) -> None:
    response = await (await as_user(scopes=[Scope.API_KEYS_READ])).post(KEYS, json=new_key(scopes=[]))
    assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")


async def test_only_an_admin_makes_keys_for_others(as_user: AsUser) -> None:
    me, other, admin = await as_user(), await as_user(), await as_user(admin=True)
    for_other = new_key(user_id=str(other.user.id))
    assert (await me.post(KEYS, json=for_other)).status_code == 403
    assert (await me.post(KEYS, json=new_key(user_id=str(me.user.id)))).status_code == 201
    assert (await admin.post(KEYS, json=for_other)).json()["user_id"] == str(other.user.id)

    nobody = await admin.post(KEYS, json=new_key(user_id=str(uuid4())))
    assert (nobody.status_code, pointers(nobody)) == (422, ["/body/user_id"])
    too_much = await admin.post(KEYS, json={**for_other, "scopes": ["admin"]})
    assert (too_much.status_code, pointers(too_much)) == (422, ["/body/scopes"])


@pytest.mark.parametrize("settings", [{"api_key_max_per_user": 2}], indirect=True)
async def test_a_user_has_a_largest_number_of_unrevoked_keys(as_user: AsUser) -> None:
    me = await as_user()
    second = await me.post(KEYS, json=new_key())
    assert second.status_code == 201
    third = await me.post(KEYS, json=new_key())
    assert (third.status_code, third.json()["code"]) == (409, "conflict")
    await me.delete(f"{KEYS}/{second.json()['id']}")
    assert (await me.post(KEYS, json=new_key())).status_code == 201


@pytest.mark.parametrize("settings", [{"api_key_max_per_user": 2}], indirect=True)
async def test_a_key_that_was_replaced_does_not_count(as_user: AsUser) -> None:
    me = await as_user()
    assert (await me.post(f"{KEYS}/current/rotate", json={"overlap_seconds": 60})).status_code == 201
    assert (await me.post(KEYS, json=new_key())).status_code == 201
    assert (await me.post(KEYS, json=new_key())).status_code == 409


async def test_the_list_is_paged_newest_first_and_stable_while_keys_are_added(as_user: AsUser) -> None:
    me = await as_user()
    ids = [me.key.id, *[(await me.post(KEYS, json=new_key())).json()["id"] for _ in range(4)]]
    first = (await me.get(KEYS, params={"limit": 2})).json()
    await me.post(KEYS, json=new_key())
    second = (await me.get(KEYS, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    third = (await me.get(KEYS, params={"limit": 2, "cursor": second["next_cursor"]})).json()
    seen = [key["id"] for page in (first, second, third) for key in page["items"]]
    assert seen == ids[::-1]
    assert third["next_cursor"] is None


async def test_keys_of_the_same_moment_are_each_on_one_page(as_user: AsUser, change_key: ChangeKey) -> None:
    me = await as_user()
    clients = [me, *[await as_user(user=me.user) for _ in range(2)]]
    moment = utc_now()
    for client in clients:
        await change_key(client.key, created_at=moment)
    pages = [(await me.get(KEYS, params={"limit": 1})).json()]
    while cursor := pages[-1]["next_cursor"]:
        pages.append((await me.get(KEYS, params={"limit": 1, "cursor": cursor})).json())
    seen = [key["id"] for page in pages for key in page["items"]]
    assert sorted(seen) == sorted(client.key.id for client in clients)


async def test_a_list_holds_ones_own_keys_and_an_admins_everybodys(as_user: AsUser) -> None:
    me, other, admin = await as_user(), await as_user(), await as_user(admin=True)
    mine = (await me.get(KEYS)).json()["items"]
    assert [key["id"] for key in mine] == [me.key.id]
    everybodys = (await admin.get(KEYS)).json()["items"]
    assert {key["id"] for key in everybodys} >= {me.key.id, other.key.id, admin.key.id}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"limit": "0"}, "/query/limit"),
        ({"limit": "101"}, "/query/limit"),
        ({"limit": "9" * 5000}, "/query/limit"),
        ({"cursor": "x"}, "/query/cursor"),
        ({"cursor": "é"}, "/query/cursor"),
        ({"cursor": "MjAyNi0xMS0yMQ=="}, "/query/cursor"),
        ({"cursor": "MjAyNi0xMS0yMVQwMDowMDowMCswMDowMCAA"}, "/query/cursor"),
    ],
)
async def test_a_bad_page_is_refused(as_user: AsUser, query: dict[str, str], pointer: str) -> None:
    response = await (await as_user()).get(KEYS, params=query)
    assert (response.status_code, pointers(response)) == (422, [pointer])


async def test_another_users_key_is_not_found(as_user: AsUser) -> None:
    me, other = await as_user(), await as_user()
    for path in (f"{KEYS}/{other.key.id}", f"{KEYS}/{'0' * 16}"):
        assert (await me.get(path)).json()["code"] == "not_found"
        assert (await me.delete(path)).status_code == 404
    assert (await other.get("/v1/users/me")).status_code == 200


async def test_current_is_the_calling_key_and_needs_no_scope(as_user: AsUser) -> None:
    me = await as_user(scopes=[])
    for name in ("current", me.key.id):
        response = await me.get(f"{KEYS}/{name}")
        assert response.json()["id"] == me.key.id
    assert (await me.get(KEYS)).status_code == 403
    assert (await me.delete(f"{KEYS}/current")).status_code == 204
    assert (await me.get(f"{KEYS}/current")).json()["code"] == "api_key_revoked"


async def test_other_keys_of_ones_own_need_the_scope(as_user: AsUser) -> None:
    me = await as_user()
    bare = await as_user(scopes=[], user=me.user)
    assert (await bare.get(f"{KEYS}/{me.key.id}")).json()["code"] == "insufficient_scope"
    assert (await bare.delete(f"{KEYS}/{me.key.id}")).json()["code"] == "insufficient_scope"
    assert (await me.get(f"{KEYS}/{bare.key.id}")).status_code == 200


async def test_to_read_a_key_and_to_revoke_it_are_different_scopes(as_user: AsUser) -> None:
    me = await as_user()
    path = f"{KEYS}/{me.key.id}"
    reader = await as_user(scopes=[Scope.API_KEYS_READ], user=me.user)
    assert (await reader.get(path)).status_code == 200
    assert (await reader.delete(path)).json()["code"] == "insufficient_scope"
    writer = await as_user(scopes=[Scope.API_KEYS_WRITE], user=me.user)
    assert (await writer.get(path)).json()["code"] == "insufficient_scope"
    assert (await writer.delete(path)).status_code == 204


async def test_an_odd_id_is_refused(as_user: AsUser) -> None:
    response = await (await as_user()).get(f"{KEYS}/ABC")
    assert (response.status_code, pointers(response)) == (422, ["/path/key_id"])


async def test_revoking_is_for_good_and_can_be_repeated(as_user: AsUser, client: AsyncClient) -> None:
    me = await as_user()
    created = (await me.post(KEYS, json=new_key())).json()
    path = f"{KEYS}/{created['id']}"
    assert (await me.delete(path)).status_code == 204
    first = (await me.get(path)).json()
    assert first["status"] == "revoked"
    assert (await me.delete(path)).status_code == 204
    assert (await me.get(path)).json() == first
    response = await client.get("/v1/users/me", headers={"Authorization": f"Bearer {created['api_key']}"})
    assert response.json()["code"] == "api_key_revoked"


async def test_times_are_utc_with_z(as_user: AsUser, change_key: ChangeKey) -> None:
    me = await as_user()
    await change_key(me.key, last_used_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    key = (await me.get(f"{KEYS}/current")).json()
    assert key["last_used_at"] == "2026-01-02T03:04:05Z"
    assert key["created_at"].endswith("Z")
