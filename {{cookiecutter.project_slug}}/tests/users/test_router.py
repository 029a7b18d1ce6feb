from uuid import uuid4

import pytest
from httpx import AsyncClient

from app.scopes import Scope
from app.users.models import User
from tests.conftest import AsUser

USERS = "/v1/users"


def shown(user: User) -> dict[str, object]:
    return {
        "id": str(user.id),
        "email": user.email,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "is_active": user.is_active,
        "is_admin": user.is_admin,
        "created_at": user.created_at.isoformat().replace("+00:00", "Z"),
        "updated_at": user.updated_at.isoformat().replace("+00:00", "Z"),
    }


async def test_me_is_the_owner_of_the_key_and_needs_no_scope(as_user: AsUser) -> None:
    me = await as_user(scopes=[], admin=True)
    assert (await me.get(f"{USERS}/me")).json() == shown(me.user)


async def test_people_change_their_own_name_and_nothing_else(as_user: AsUser) -> None:
    me = await as_user(scopes=[Scope.USERS_WRITE])
    changed = (await me.patch(f"{USERS}/me", json={"first_name": "Ada"})).json()
    assert (changed["first_name"], changed["last_name"]) == ("Ada", "")
    assert changed["updated_at"] > changed["created_at"]
    for forbidden in ({"is_admin": True}, {"email": "a@example.com"}, {"first_name": None}, {"first_name": "a\0"}):
        assert (await me.patch(f"{USERS}/me", json=forbidden)).status_code == 422


async def test_a_name_is_changed_only_with_the_scope(as_user: AsUser) -> None:
    me = await as_user(scopes=[Scope.USERS_READ])
    assert (await me.patch(f"{USERS}/me", json={})).json()["code"] == "insufficient_scope"


async def test_only_admins_see_and_change_users(as_user: AsUser) -> None:
    me = await as_user()
    path = f"{USERS}/{me.user.id}"
    for method, where in [("GET", USERS), ("POST", USERS), ("GET", path), ("PATCH", path), ("DELETE", path)]:
        response = await me.request(method, where, json={"email": "a@example.com"} if method == "POST" else {})
        assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope"), method


async def test_an_admin_creates_users(no_auth: AsyncClient) -> None:
    created = await no_auth.post(USERS, json={"email": "Ada@Example.com", "first_name": "Ada"})
    assert created.status_code == 201
    assert created.json()["email"] == "ada@example.com"
    assert (await no_auth.get(created.headers["location"])).json() == created.json()
    again = await no_auth.post(USERS, json={"email": "ADA@example.com"})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


async def test_users_are_searched_and_paged(no_auth: AsyncClient) -> None:
    for name in ("one", "two", "three"):
        await no_auth.post(USERS, json={"email": f"{name}@search.example.com", "last_name": f"{name}_%"})
    newest = (await no_auth.get(USERS, params={"q": "SEARCH.example", "limit": 2})).json()
    assert [user["last_name"] for user in newest["items"]] == ["three_%", "two_%"]
    rest = (await no_auth.get(USERS, params={"q": "search.example", "cursor": newest["next_cursor"]})).json()
    assert [user["last_name"] for user in rest["items"]] == ["one_%"]
    assert rest["next_cursor"] is None
    assert len((await no_auth.get(USERS, params={"q": "e_%"})).json()["items"]) == 2  # % and _ mean themselves
    two = newest["items"][1]["id"]
    await no_auth.patch(f"{USERS}/{two}", json={"is_active": False})
    for is_active, names in (("true", ["three_%", "one_%"]), ("false", ["two_%"])):
        found = (await no_auth.get(USERS, params={"q": "search.example", "is_active": is_active})).json()
        assert [user["last_name"] for user in found["items"]] == names


async def test_a_user_is_changed_and_deleted_with_their_keys(as_user: AsUser, no_auth: AsyncClient) -> None:
    other = await as_user()
    path = f"{USERS}/{other.user.id}"
    assert (await no_auth.patch(path, json={"is_admin": True, "last_name": "L"})).json()["is_admin"] is True
    assert (await no_auth.delete(path)).status_code == 204
    assert (await no_auth.get(path)).status_code == 404
    assert (await no_auth.get(f"/v1/api-keys/{other.key.id}")).status_code == 404


async def test_a_disabled_users_keys_do_not_work(as_user: AsUser) -> None:
    admin, other = await as_user(admin=True), await as_user()
    await admin.patch(f"{USERS}/{other.user.id}", json={"is_active": False})
    assert (await other.get(f"{USERS}/me")).json()["code"] == "user_inactive"
    await admin.patch(f"{USERS}/{other.user.id}", json={"is_active": True})
    assert (await other.get(f"{USERS}/me")).status_code == 200


@pytest.mark.parametrize("change", [{"is_admin": False}, {"is_active": False}, None])
async def test_the_last_active_admin_stays_one(as_user: AsUser, change: dict[str, bool] | None) -> None:
    admin, inactive = await as_user(admin=True), await as_user(admin=True)
    await admin.patch(f"{USERS}/{inactive.user.id}", json={"is_active": False})
    path = f"{USERS}/{admin.user.id}"
    response = await (admin.patch(path, json=change) if change else admin.delete(path))
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    await admin.patch(f"{USERS}/{inactive.user.id}", json={"is_active": True})
    response = await (admin.patch(path, json=change) if change else admin.delete(path))
    assert response.status_code in {200, 204}


async def test_a_demoted_admins_rights_end_with_the_next_request(as_user: AsUser) -> None:
    admin, other = await as_user(admin=True), await as_user(admin=True)
    assert (await other.get(USERS)).status_code == 200
    await admin.patch(f"{USERS}/{other.user.id}", json={"is_admin": False})
    assert (await other.get(USERS)).json()["code"] == "insufficient_scope"


async def test_all_keys_of_a_user_are_revoked(as_user: AsUser) -> None:
    me, admin = await as_user(), await as_user(admin=True)
    second = await as_user(user=me.user)
    path = f"{USERS}/{me.user.id}/api-keys"
    assert (await admin.delete(path)).json() == {"revoked": 2}
    assert (await admin.delete(path)).json() == {"revoked": 0}
    assert (await second.get(f"{USERS}/me")).json()["code"] == "api_key_revoked"
    events = (await admin.get(f"/v1/api-keys/{me.key.id}/events")).json()["items"]
    assert [event["action"] for event in events] == ["revoked", "created"]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_a_user_who_is_not_there_is_not_found(no_auth: AsyncClient, method: str) -> None:
    body: dict[str, str] | None = {} if method == "PATCH" else None
    response = await no_auth.request(method, f"{USERS}/{uuid4()}", json=body)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert (await no_auth.request(method, f"{USERS}/not-a-uuid", json=body)).status_code == 422
