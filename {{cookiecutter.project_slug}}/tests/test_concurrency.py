"""Concurrent requests, on separate connections whose transactions are committed."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from types import ModuleType
from uuid import UUID

import pytest
from httpx import Response
from sqlmodel import delete, false, func, select, update

from app.api_keys import service as api_keys
from app.api_keys.models import UserApiKey
from app.audit.models import AuditEvent
from app.core.database import Database
from app.users import service as users
from app.users.models import User
from tests.conftest import AsUser, ChangeKey, KeyClient, MakeDatabase

KEYS = "/v1/api-keys"
ME = "/v1/users/me"

REMOVALS = {
    "revoke": ("DELETE", "/v1/api-keys/{key_id}", None),
    "revoke all": ("DELETE", "/v1/users/{user_id}/api-keys", None),
    "disable": ("PATCH", "/v1/api-keys/{key_id}", {"enabled": False}),
    "demote": ("PATCH", "/v1/users/{user_id}", {"is_admin": False}),
    "deactivate": ("PATCH", "/v1/users/{user_id}", {"is_active": False}),
    "delete": ("DELETE", "/v1/users/{user_id}", None),
}


@pytest.fixture(scope="module")
def committed_url(make_database: MakeDatabase) -> str:
    return make_database()


@pytest.fixture
async def database(committed_url: str) -> AsyncIterator[Database]:
    """Replaces the database that rolls back, which has only one connection."""
    database = Database(committed_url)
    yield database
    await database.dispose()


async def statuses(*requests: Coroutine[None, None, Response]) -> Counter[int]:
    return Counter(response.status_code for response in await asyncio.gather(*requests))


class Gate:
    """Holds the first call of a function back after it has returned."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> None:
        original = getattr(module, name)
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

        async def held(*args: object, **kwargs: object) -> object:
            result = await original(*args, **kwargs)
            if not self.reached.is_set():
                self.reached.set()
                await asyncio.wait_for(self.opened.wait(), 4)
            return result

        monkeypatch.setattr(module, name, held)

    async def statuses(self, *requests: Coroutine[None, None, Response]) -> list[int]:
        """Of two requests: the second one starts while the first one is held, and must wait."""
        first = asyncio.create_task(requests[0])
        await asyncio.wait_for(self.reached.wait(), 4)
        second = asyncio.create_task(requests[1])
        await asyncio.wait({second}, timeout=0.3)
        assert not second.done()
        self.opened.set()
        return [(await one).status_code for one in (first, second)]


async def events_of(caller: KeyClient, database: Database) -> set[UUID]:
    async with database.session(read_only=True) as session:
        events = select(AuditEvent.id).where(AuditEvent.actor_key_id == caller.key.id)
        return {*(await session.exec(events))}


def admin_writes(
    caller: KeyClient, targets: Sequence[KeyClient]
) -> Iterator[Coroutine[None, None, Response]]:
    """Requests that only an admin may make, because the targets are other users."""
    for number, target in enumerate(targets):
        path = f"{KEYS}/{target.key.id}"
        yield caller.post(KEYS, json={"name": "new", "scopes": ["admin"]})
        yield caller.post(f"{path}/renew")
        yield caller.post(f"{path}/rotate", json={"overlap_seconds": 60})
        yield caller.patch(path, json={"name": f"{number}"})
        rights = {"is_admin": True, "is_active": True, "last_name": f"{number}"}
        yield caller.patch(f"/v1/users/{caller.user.id}", json=rights)


@pytest.mark.parametrize(("method", "path", "body"), REMOVALS.values(), ids=REMOVALS)
async def test_no_write_in_flight_takes_effect_after_the_caller_lost_its_rights(
    as_user: AsUser, database: Database, method: str, path: str, body: dict[str, bool] | None
) -> None:
    admin = await as_user(admin=True)
    caller = await as_user(admin=True)
    targets = [await as_user() for _ in range(4)]
    url = path.format(key_id=caller.key.id, user_id=caller.user.id)

    async def remove_rights() -> set[UUID]:
        response = await admin.request(method, url, json=body)
        assert response.is_success
        return await events_of(caller, database)

    before, responses = await asyncio.gather(
        remove_rights(), statuses(*admin_writes(caller, targets))
    )
    assert await events_of(caller, database) == before
    assert responses.keys() <= {200, 201, 401, 403, 404, 409}
    assert (await caller.get("/v1/users")).status_code in {401, 403}


async def test_two_admins_who_create_keys_for_each_other_do_not_deadlock(as_user: AsUser) -> None:
    ada, bob = [await as_user(admin=True) for _ in range(2)]
    creates = [
        caller.post(KEYS, json={"name": "new", "scopes": [], "user_id": f"{owner.user.id}"})
        for caller, owner in [(ada, bob), (bob, ada)] * 8
    ]
    assert await statuses(*creates) == {201: 16}


async def test_two_concurrent_rotations_create_one_key(as_user: AsUser, database: Database) -> None:
    me = await as_user()
    overlap = {"overlap_seconds": 60}
    rotations = [me.post(f"{KEYS}/current/rotate", json=overlap) for _ in range(4)]
    assert await statuses(*rotations) == {201: 1, 409: 3}
    async with database.session(read_only=True) as session:
        count = select(func.count()).where(UserApiKey.user_id == me.user.id)
        assert (await session.exec(count)).one() == 2


@pytest.mark.parametrize("settings", [{"api_key_max_per_user": 5}], indirect=True)
async def test_concurrent_requests_never_exceed_the_maximum_number_of_keys(
    as_user: AsUser,
) -> None:
    me = await as_user()
    creates = [me.post(KEYS, json={"name": "new", "scopes": []}) for _ in range(20)]
    overlap = {"overlap_seconds": 60}
    rotation = me.post(f"{KEYS}/current/rotate", json=overlap)
    assert await statuses(*creates, rotation) == {201: 4, 409: 17}


async def test_a_revoked_key_stays_revoked_despite_concurrent_writes(as_user: AsUser) -> None:
    admin = await as_user(admin=True)
    me = await as_user()
    path = f"{KEYS}/{me.key.id}"
    revocation, *writes = await asyncio.gather(
        admin.delete(path),
        admin.patch(path, json={"enabled": True}),
        admin.post(f"{path}/renew"),
        admin.post(f"{path}/rotate", json={"overlap_seconds": 60}),
    )
    assert revocation.status_code == 204
    assert {one.status_code for one in writes} <= {200, 201, 409}
    assert (await me.get(ME)).json()["code"] == "api_key_revoked"


async def test_a_removal_waits_for_writes_whose_caller_has_been_confirmed(
    as_user: AsUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin, caller, other = await as_user(admin=True), await as_user(admin=True), await as_user()
    gate = Gate(monkeypatch, api_keys, "confirm_caller")
    write = caller.patch(f"{KEYS}/{other.key.id}", json={"name": "new"})
    removal = admin.patch(f"/v1/users/{caller.user.id}", json={"is_active": False})
    assert await gate.statuses(write, removal) == [200, 200]


async def test_a_write_locks_the_owner_before_the_key(
    as_user: AsUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin, me = await as_user(admin=True), await as_user()
    gate = Gate(monkeypatch, api_keys, "confirm_caller")
    revocation = admin.delete(f"/v1/users/{me.user.id}/api-keys")
    assert await gate.statuses(revocation, me.post(f"{KEYS}/current/rotate")) == [200, 401]


async def test_all_keys_of_a_user_are_revoked_in_order_of_id(
    as_user: AsUser, database: Database, change_key: ChangeKey
) -> None:
    admin, owner = await as_user(admin=True), await as_user()
    ids = ["z" * 16, "0" * 16]  # the database finds them in this order
    for key_id in ids:
        await change_key((await as_user(user=owner.user)).key, id=key_id)
    async with database.session() as session:
        await session.get_one(UserApiKey, ids[1], with_for_update=True)
        revocation = asyncio.create_task(admin.delete(f"/v1/users/{owner.user.id}/api-keys"))
        await asyncio.wait({revocation}, timeout=0.3)
        assert not revocation.done()
        await session.get_one(UserApiKey, ids[0], with_for_update=True)
    assert (await revocation).json() == {"revoked": 3}


@pytest.mark.parametrize("themselves", [False, True])
async def test_two_admins_who_demote_each_other_leave_one_admin(
    as_user: AsUser, database: Database, monkeypatch: pytest.MonkeyPatch, *, themselves: bool
) -> None:
    async with database.session() as session:
        await session.exec(delete(User))
    ada, bob = await as_user(admin=True), await as_user(admin=True)
    gate = Gate(monkeypatch, users, "get")
    paths = [f"/v1/users/{admin.user.id}" for admin in (ada, bob)]
    of_ada, of_bob = paths if themselves else reversed(paths)
    demotions = (
        ada.patch(of_ada, json={"is_admin": False}),
        bob.patch(of_bob, json={"is_active": False}),
    )
    assert await gate.statuses(*demotions) == [200, 409 if themselves else 403]


async def test_concurrent_requests_cannot_create_two_users_with_one_email(
    as_user: AsUser,
) -> None:
    admin = await as_user(admin=True)
    emails = ["Same@example.com", "same@EXAMPLE.com"] * 5
    creates = [admin.post("/v1/users", json={"email": email}) for email in emails]
    assert await statuses(*creates) == {201: 1, 409: 9}


async def test_a_request_that_only_reads_does_not_wait_for_a_writer(
    as_user: AsUser, database: Database
) -> None:
    me = await as_user()
    async with database.session() as writer:
        await writer.exec(update(User).where(false()).values(is_active=False))
        assert (await asyncio.wait_for(me.get(KEYS), 4)).status_code == 200


async def test_a_user_can_be_deleted_while_their_keys_are_used(as_user: AsUser) -> None:
    admin = await as_user(admin=True)
    me = await as_user()
    deletion = admin.delete(f"/v1/users/{me.user.id}")
    found = await statuses(*(me.get(ME) for _ in range(10)), deletion)
    assert found[204] == 1
    assert found.keys() <= {200, 204, 401}
    assert (await me.get(ME)).json()["code"] == "api_key_invalid"
