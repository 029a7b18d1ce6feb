from typing import Any

import pytest
from httpx import AsyncClient

from tests.conftest import AsUser

EVENTS = "/v1/audit-events"
KEYS = "/v1/api-keys"
USERS = "/v1/users"


@pytest.fixture
async def admin(as_user: AsUser) -> AsyncClient:
    """An admin after six changes. Another admin made one of them."""
    admin, other = await as_user(admin=True), await as_user(admin=True)
    user = (await admin.post(USERS, json={"email": "a@example.com"})).json()
    new_key = {"name": "ci", "scopes": [], "user_id": user["id"]}
    key = (await admin.post(KEYS, json=new_key)).json()
    await other.patch(f"{KEYS}/{key['id']}", json={"scopes": ["users:read"]})
    await admin.patch(f"{KEYS}/{key['id']}", json={"name": "desk"})
    await admin.patch(f"{USERS}/{user['id']}", json={"is_active": False})
    await admin.delete(f"{KEYS}/{key['id']}")
    return admin


async def events(client: AsyncClient, **query: str) -> list[dict[str, Any]]:  # Any: JSON
    response = await client.get(EVENTS, params=query)
    assert response.status_code == 200
    return list(response.json()["items"])


async def test_only_admins_can_list_audit_events(as_user: AsUser) -> None:
    assert (await (await as_user()).get(EVENTS)).json()["code"] == "insufficient_scope"


async def test_events_say_who_changed_what_and_when(admin: AsyncClient) -> None:
    everything = await events(admin)
    assert [event["action"] for event in everything[:6]] == [
        "api_key.revoked",
        "user.updated",
        "api_key.updated",
        "api_key.updated",
        "api_key.created",
        "user.created",
    ]
    updated, created = everything[3:5]
    assert updated["changes"] == {"scopes": [[], ["users:read"]]}
    assert updated["created_at"].endswith("Z")
    targets, actors = ("target_user_id", "target_key_id"), ("actor_user_id", "actor_key_id")
    assert updated.keys() == {"id", "created_at", "action", *targets, *actors, "changes"}
    assert all(updated[target] == created[target] for target in targets)
    assert all(updated[actor] not in {None, created[actor]} for actor in actors)


@pytest.mark.parametrize(
    "field", ["actor_user_id", "actor_key_id", "target_user_id", "target_key_id", "action"]
)
async def test_events_are_filtered_by_each_field(admin: AsyncClient, field: str) -> None:
    everything = await events(admin)
    for value in {event[field] for event in everything} - {None}:
        expected = [event for event in everything if event[field] == value]
        assert await events(admin, **{field: value}) == expected != everything


async def test_filters_are_combined(admin: AsyncClient) -> None:
    by_other = (await events(admin, action="api_key.updated"))[1]
    query = {"action": "api_key.updated", "actor_key_id": by_other["actor_key_id"]}
    assert await events(admin, **query) == [by_other]


async def test_from_is_inclusive_and_to_is_exclusive(admin: AsyncClient) -> None:
    everything = await events(admin)
    moment = everything[2]["created_at"]
    assert await events(admin, **{"from": moment}) == everything[:3]
    assert await events(admin, to=moment) == everything[3:]
    assert await events(admin, **{"from": moment, "to": moment}) == []


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("action", "api_key.read"), ("actor_user_id", "me"), ("from", "2030-01-01T00:00:00")],
)
async def test_an_invalid_filter_is_rejected(
    no_auth: AsyncClient, parameter: str, value: str
) -> None:
    response = await no_auth.get(EVENTS, params={parameter: value})
    assert response.json()["errors"][0]["pointer"] == f"/query/{parameter}"
