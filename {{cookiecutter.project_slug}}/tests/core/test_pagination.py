from datetime import UTC, datetime

import pytest
import time_machine

from tests.conftest import AsUser

KEYS = "/v1/api-keys"
LISTS = ["/v1/users", KEYS, "/v1/audit-events", f"{KEYS}/current/events"]


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("tick", [True, False])  # False: keys and users of the same moment
async def test_lists_are_newest_first_and_stable_while_rows_are_added(
    as_user: AsUser, path: str, tick: bool
) -> None:
    with time_machine.travel(datetime(2030, 1, 31, tzinfo=UTC), tick=tick):
        admin = await as_user(admin=True)
        for _ in range(2):
            await as_user()
            await admin.post(f"{KEYS}/current/renew")
        ids = [item["id"] for item in (await admin.get(path)).json()["items"]]
        seen = []
        query = {"limit": "1"}
        for _ in ids:
            page = (await admin.get(path, params=query)).json()
            seen += page["items"]
            query["cursor"] = page["next_cursor"]
            if tick:
                await as_user()
                await admin.post(f"{KEYS}/current/renew")
    assert [item["id"] for item in seen] == ids
    assert page["next_cursor"] is None
    order = [(datetime.fromisoformat(item["created_at"]), item["id"]) for item in seen]
    assert order == sorted(order, reverse=True)
    assert len(seen) >= 3


@pytest.mark.parametrize("path", LISTS)
async def test_an_invalid_page_is_rejected(as_user: AsUser, path: str) -> None:
    admin = await as_user(admin=True)
    no_id, nul_as_id = "MjAyNi0xMS0yMQ==", "MjAyNi0xMS0yMVQwMDowMDowMCswMDowMCAA"
    for parameter, values in {
        "limit": ["0", "101", "9" * 5000],
        "cursor": ["", "x", "é", no_id, nul_as_id, "a" * 201],
    }.items():
        for value in values:
            response = await admin.get(path, params={parameter: value})
            (error,) = response.json()["errors"]
            assert error["pointer"] == f"/query/{parameter}", value


async def test_a_cursor_has_at_most_200_characters(as_user: AsUser) -> None:
    admin = await as_user(admin=True)
    response = await admin.get(KEYS, params={"cursor": "a" * 201})
    assert "at most 200 characters" in response.json()["errors"][0]["detail"]
