"""What happens at once, on connections of its own each, and is committed."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine

import pytest
from fastapi import FastAPI
from httpx import Response
from sqlmodel import col, delete, func, select

from app.api_keys.models import UserApiKey
from app.database import Database
from app.users.models import User
from tests.conftest import AsUser, MakeDatabase

KEYS = "/v1/api-keys"
ROUNDS = 5


@pytest.fixture(scope="module")
def committed_url(make_database: MakeDatabase) -> str:
    return make_database()


@pytest.fixture
async def database(committed_url: str) -> AsyncIterator[Database]:
    """Instead of the one that rolls back: one with a pool of connections, like the app's own."""
    database = Database(committed_url)
    yield database
    await database.dispose()


async def at_once(*requests: Coroutine[None, None, Response]) -> Counter[int]:
    return Counter(response.status_code for response in await asyncio.gather(*requests))


async def test_two_rotations_at_once_make_one_key(as_user: AsUser, database: Database) -> None:
    for _ in range(ROUNDS):
        me = await as_user()
        rotate = {"overlap_seconds": 60}
        answers = await at_once(*(me.post(f"{KEYS}/current/rotate", json=rotate) for _ in range(4)))
        assert answers == {201: 1, 409: 3}
        async with database.session(read_only=True) as session:
            count = select(func.count()).where(UserApiKey.user_id == me.user.id)
            assert (await session.exec(count)).one() == 2


@pytest.mark.parametrize("settings", [{"api_key_max_per_user": 5}], indirect=True)
async def test_creates_at_once_never_pass_the_limit(as_user: AsUser) -> None:
    me = await as_user()
    new = {"name": "x", "scopes": []}
    assert await at_once(*(me.post(KEYS, json=new) for _ in range(20))) == {201: 4, 409: 16}


async def test_a_revoked_key_stays_revoked_whatever_is_written_at_the_same_time(app: FastAPI, as_user: AsUser) -> None:
    admin = await as_user(admin=True)
    for _ in range(ROUNDS):
        me = await as_user()
        path = f"{KEYS}/{me.key.id}"
        for _ in range(3):
            await me.get("/v1/users/me")
        _, *answers = await asyncio.gather(
            app.state.usage.flush(),
            admin.delete(path),
            admin.patch(path, json={"enabled": True}),
            admin.post(f"{path}/renew", json={}),
            admin.post(f"{path}/rotate", json={"overlap_seconds": 60}),
        )
        assert answers[0].status_code == 204
        assert {answer.status_code for answer in answers[1:]} <= {200, 201, 409}
        assert (await me.get("/v1/users/me")).json()["code"] == "api_key_revoked"


async def test_the_last_admin_survives_two_demotions_at_once(as_user: AsUser, database: Database) -> None:
    changes = [{"is_admin": False}, {"is_active": False}]
    for _ in range(ROUNDS):
        async with database.session() as session:
            await session.exec(delete(User))
        admins = [await as_user(admin=True) for _ in range(2)]
        one, other = (admin.user.id for admin in admins)
        # Each demotes the other: whoever comes second has no right to any more, or is the last one.
        answers = await at_once(
            admins[0].patch(f"/v1/users/{other}", json=changes[0]),
            admins[1].patch(f"/v1/users/{one}", json=changes[1]),
        )
        assert answers[200] == 1
        async with database.session(read_only=True) as session:
            left = select(func.count()).where(col(User.is_admin), col(User.is_active))
            assert (await session.exec(left)).one() == 1


async def test_two_users_never_share_an_email_in_any_case(as_user: AsUser) -> None:
    admin = await as_user(admin=True)
    emails = ["Same@example.com", "same@EXAMPLE.com"] * 5
    answers = await at_once(*(admin.post("/v1/users", json={"email": email}) for email in emails))
    assert answers == {201: 1, 409: 9}


async def test_more_requests_than_connections_wait_for_each_other(as_user: AsUser) -> None:
    me = await as_user()
    assert await at_once(*(me.get("/v1/users/me") for _ in range(100))) == {200: 100}


async def test_a_user_is_deleted_while_their_keys_are_used(app: FastAPI, as_user: AsUser) -> None:
    admin = await as_user(admin=True)
    for _ in range(ROUNDS):
        me = await as_user()
        deletion = admin.delete(f"/v1/users/{me.user.id}")
        answers = await at_once(*(me.get("/v1/users/me") for _ in range(10)), deletion)
        assert answers[204] == 1
        assert answers.keys() <= {200, 204, 401}
        await app.state.usage.flush()
        assert (await me.get("/v1/users/me")).json()["code"] == "api_key_invalid"
