from uuid import uuid4

import pytest
from httpx import AsyncClient

from app.auth.scopes import Scope
from tests.conftest import AsUser

USERS = "/v1/users"
ME = f"{USERS}/me"
ROUTES_OF_A_USER = [
    ("GET", "/v1/users/{id}"),
    ("PATCH", "/v1/users/{id}"),
    ("DELETE", "/v1/users/{id}"),
    ("DELETE", "/v1/users/{id}/api-keys"),
]


async def test_me_is_the_owner_of_the_key_and_requires_no_scope(as_user: AsUser) -> None:
    me = await as_user(scopes=[], admin=True)
    user = me.user
    assert (await me.get(ME)).json() == {
        "id": str(user.id),
        "email": user.email,
        "first_name": "",
        "last_name": "",
        "is_active": True,
        "is_admin": True,
        "created_at": user.created_at.isoformat().replace("+00:00", "Z"),
        "updated_at": user.updated_at.isoformat().replace("+00:00", "Z"),
    }


async def test_users_can_change_their_own_name_and_nothing_else(as_user: AsUser) -> None:
    me = await as_user(scopes=[Scope.USERS_WRITE])
    before = (await me.get(ME)).json()
    after = (await me.patch(ME, json={"first_name": "Ada"})).json()
    assert after["updated_at"] > before["updated_at"]
    assert after == before | {"first_name": "Ada", "updated_at": after["updated_at"]}
    for field, value in {"is_admin": True, "email": "a@example.com", "last_name": None}.items():
        assert (await me.patch(ME, json={field: value})).json()["code"] == "invalid_input"
    assert (await me.get(ME)).json() == after


async def test_changing_your_name_requires_the_scope_users_write(as_user: AsUser) -> None:
    me = await as_user(scopes=[Scope.USERS_READ])
    assert (await me.patch(ME, json={})).json()["code"] == "insufficient_scope"


@pytest.mark.parametrize(("method", "path"), [("GET", USERS), ("POST", USERS), *ROUTES_OF_A_USER])
async def test_only_admins_have_access_to_users(as_user: AsUser, method: str, path: str) -> None:
    me = await as_user()
    body = {"email": "a@example.com"} if method == "POST" else {}
    response = await me.request(method, path.format(id=me.user.id), json=body)
    assert response.json()["code"] == "insufficient_scope"


@pytest.mark.parametrize(("method", "path"), ROUTES_OF_A_USER)
async def test_an_unknown_user_is_not_found(no_auth: AsyncClient, method: str, path: str) -> None:
    for user_id, code in ((uuid4(), "not_found"), ("not-a-uuid", "invalid_input")):
        response = await no_auth.request(method, path.format(id=user_id), json={})
        assert response.json()["code"] == code


async def test_an_admin_creates_a_user(no_auth: AsyncClient) -> None:
    created = await no_auth.post(USERS, json={"email": "Ada@Example.com", "first_name": "Ada"})
    user = created.json()
    assert (created.status_code, user["email"]) == (201, "ada@example.com")
    assert (user["is_active"], user["is_admin"]) == (True, False)
    assert created.headers["location"] == f"{USERS}/{user['id']}"
    assert (await no_auth.get(created.headers["location"])).json() == user
    again = await no_auth.post(USERS, json={"email": "ADA@example.com"})
    assert again.json()["code"] == "conflict"


async def test_users_are_found_by_email_name_and_state(no_auth: AsyncClient) -> None:
    for name in ("Édith Piaf", "Grace Hopper", "Alan Turing", "Ada Lovelace"):
        first, last = name.split()
        domain = "example.com" if last == "Piaf" else "search.com"
        new = {"email": f"{last}@{domain}", "first_name": first, "last_name": last}
        user = (await no_auth.post(USERS, json=new)).json()
        await no_auth.patch(f"{USERS}/{user['id']}", json={"is_active": first != "Alan"})
    for query, names in (
        ("q=SEARCH", ["Lovelace", "Turing", "Hopper"]),
        ("q=gRaCe", ["Hopper"]),
        ("q=love", ["Lovelace"]),
        ("q=search&is_active=true", ["Lovelace", "Hopper"]),
        ("q=search&is_active=false", ["Turing"]),
    ):
        found = (await no_auth.get(f"{USERS}?{query}")).json()["items"]
        assert [user["last_name"] for user in found] == names, query


async def test_an_admin_updates_a_user(as_user: AsUser, no_auth: AsyncClient) -> None:
    path = f"{USERS}/{(await as_user()).user.id}"
    before = (await no_auth.get(path)).json()
    changes = {"is_admin": True, "last_name": "L"}
    after = (await no_auth.patch(path, json=changes)).json()
    assert after["updated_at"] > before["updated_at"]
    assert after == before | changes | {"updated_at": after["updated_at"]}
    for nothing_new in ({}, changes):
        assert (await no_auth.patch(path, json=nothing_new)).json() == after
    assert (await no_auth.get(path)).json() == after


async def test_deleting_a_user_deletes_their_keys(as_user: AsUser, no_auth: AsyncClient) -> None:
    other = await as_user()
    path = f"{USERS}/{other.user.id}"
    assert (await no_auth.delete(path)).status_code == 204
    assert (await no_auth.get(path)).status_code == 404
    assert (await no_auth.get(f"/v1/api-keys/{other.key.id}")).status_code == 404


@pytest.mark.parametrize(
    ("method", "body"),
    [("PATCH", {"is_admin": False}), ("PATCH", {"is_active": False}), ("DELETE", None)],
)
async def test_the_last_active_admin_cannot_be_removed(
    as_user: AsUser, method: str, body: dict[str, bool] | None
) -> None:
    admin, inactive = await as_user(admin=True), await as_user(admin=True)
    path, other_path = (f"{USERS}/{one.user.id}" for one in (admin, inactive))
    await admin.patch(other_path, json={"is_active": False})
    assert (await admin.request(method, path, json=body)).json()["code"] == "conflict"
    await admin.patch(other_path, json={"is_active": True})
    assert (await admin.request(method, path, json=body)).is_success


async def test_the_last_admin_can_change_other_fields_and_users(as_user: AsUser) -> None:
    admin, other = await as_user(admin=True), await as_user()
    unchanged_rights = {"first_name": "Ada", "is_admin": True, "is_active": True}
    renamed = await admin.patch(f"{USERS}/{admin.user.id}", json=unchanged_rights)
    assert (renamed.status_code, renamed.json()["first_name"]) == (200, "Ada")
    path, disabled = f"{USERS}/{other.user.id}", {"is_active": False, "is_admin": False}
    assert (await admin.patch(path, json=disabled)).status_code == 200
    assert (await admin.delete(path)).status_code == 204
