from datetime import UTC, datetime, timedelta

import time_machine
from fastapi import FastAPI

from tests.conftest import AsUser, ChangeKey

KEYS = "/v1/api-keys"
NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


async def test_keys_are_found_by_their_last_use_or_else_their_creation(
    as_user: AsUser, change_key: ChangeKey
) -> None:
    with time_machine.travel(NOW, tick=False):
        me = await as_user()
        used, unused = (await as_user(user=me.user)).key, (await as_user(user=me.user)).key
        await change_key(used, created_at=NOW - MICROSECOND, last_used_at=NOW)
        await change_key(unused, created_at=NOW - MICROSECOND)

        async def found(unused_since: datetime) -> set[str]:
            query = {"unused_since": unused_since.isoformat()}
            return {key["id"] for key in (await me.get(KEYS, params=query)).json()["items"]}

        assert await found(NOW - MICROSECOND) == set()
        assert await found(NOW) == {unused.id}
        assert await found(NOW + MICROSECOND) == {me.key.id, used.id, unused.id}


async def test_a_rotated_key_has_never_been_used(app: FastAPI, as_user: AsUser) -> None:
    me = await as_user()
    old = (await me.get(f"{KEYS}/current")).json()
    assert old["last_used_at"] is None
    await app.state.usage.flush()
    assert (await me.get(f"{KEYS}/current")).json()["last_used_at"] is not None
    new = (await me.post(f"{KEYS}/current/rotate")).json()
    assert new["last_used_at"] is None
