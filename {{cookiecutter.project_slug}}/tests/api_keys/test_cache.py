import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest
import time_machine
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import text, update
from sqlalchemy.exc import OperationalError
from sqlmodel import col

from app.api_keys import cache as cache_module
from app.api_keys import service as api_keys
from app.api_keys.cache import KeyCache
from app.api_keys.format import fingerprint
from app.api_keys.models import UserApiKey
from app.api_keys.schemas import ApiKeyCreate, ApiKeyUpdate
from app.api_keys.verifier import Verifier
from app.database import Database, utc_now
from app.main import create_app
from app.users import service as users
from app.users.models import User
from app.users.schemas import UserCreate, UserUpdate
from tests.conftest import AsUser, ChangeKey, KeyClient, MakeDatabase, make_settings

CURRENT = "/v1/api-keys/current"


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come")


@pytest.fixture
async def running(app: FastAPI) -> AsyncIterator[KeyCache[object]]:
    """The cache of the app, which has read the stamp and believes it."""
    cache: KeyCache[object] = app.state.verifier.cache
    async with cache.running():
        await until(lambda: cache.believed)
        yield cache


async def stamp(database: Database) -> int:
    async with database.connection() as connection:
        return int((await connection.execute(text("SELECT number FROM api_key_stamp"))).scalar_one())


def knows(verifier: Verifier, api_key: str) -> bool:
    return verifier.recall(fingerprint(api_key)) is not None


@pytest.mark.usefixtures("running")
async def test_a_key_that_was_verified_is_not_asked_for_again(app: FastAPI, as_user: AsUser) -> None:
    me = await as_user()
    assert not knows(app.state.verifier, me.api_key)
    assert (await me.get(CURRENT)).status_code == 200
    assert knows(app.state.verifier, me.api_key)
    app.state.verifier._database = None  # and would fail, were it asked
    assert (await me.get(CURRENT)).status_code == 200
    assert not knows(app.state.verifier, "x" * 1000)


@pytest.mark.parametrize("settings", [{"api_key_cache": False}], indirect=True)
async def test_it_can_be_switched_off(app: FastAPI, as_user: AsUser) -> None:
    me = await as_user()
    async with app.state.verifier.cache.running():
        await asyncio.sleep(0.1)
        await me.get(CURRENT)
        assert not knows(app.state.verifier, me.api_key)


Deed = Callable[[KeyClient, KeyClient], Awaitable[object]]
DEEDS: dict[str, tuple[Deed, int]] = {
    "revoked": (lambda me, admin: admin.delete(f"/v1/api-keys/{me.key.id}"), 401),
    "disabled": (lambda me, admin: admin.patch(f"/v1/api-keys/{me.key.id}", json={"enabled": False}), 401),
    "without scopes": (lambda me, admin: admin.patch(f"/v1/api-keys/{me.key.id}", json={"scopes": []}), 403),
    "elsewhere": (
        lambda me, admin: admin.patch(f"/v1/api-keys/{me.key.id}", json={"allowed_cidrs": ["192.0.2.1/32"]}),
        403,
    ),
    "rotated": (lambda me, admin: admin.post(f"/v1/api-keys/{me.key.id}/rotate", json={}), 401),
    "demoted": (lambda me, admin: admin.patch(f"/v1/users/{me.user.id}", json={"is_admin": False}), 403),
    "inactive": (lambda me, admin: admin.patch(f"/v1/users/{me.user.id}", json={"is_active": False}), 401),
    "deleted": (lambda me, admin: admin.delete(f"/v1/users/{me.user.id}"), 401),
    "all revoked": (lambda me, admin: admin.delete(f"/v1/users/{me.user.id}/api-keys"), 401),
}


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("what", DEEDS)
async def test_in_the_same_process_a_deed_is_in_force_at_once(
    as_user: AsUser, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(cache_module, "POLL_SECONDS", 60)  # nor does the next poll help
    me, admin = await as_user(admin=True), await as_user(admin=True)
    deed, refusal = DEEDS[what]
    assert (await me.get("/v1/users")).status_code == 200
    await deed(me, admin)
    assert (await me.get("/v1/users")).status_code == refusal


@pytest.fixture
def url(make_database: MakeDatabase) -> str:
    return make_database()


@pytest.fixture
async def two_processes(url: str) -> AsyncIterator[tuple[FastAPI, FastAPI]]:
    """What they share is the database."""
    here, there = create_app(make_settings(), Database(url)), create_app(make_settings(), Database(url))
    yield here, there
    for app in (here, there):
        await app.state.database.dispose()


async def test_in_another_process_a_deed_is_in_force_within_the_bound(
    two_processes: tuple[FastAPI, FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = two_processes
    monkeypatch.setattr(cache_module, "CACHES", {here.state.verifier.cache})
    async with there.state.verifier.cache.running(), here.state.database.session() as session:
        owner = await users.create(session, UserCreate(email="ada@example.com"))
        key, api_key = await api_keys.create(
            session, make_settings(), ApiKeyCreate(name="x", scopes=[], user_id=owner.id), actor=None
        )
        await session.commit()
        while not knows(there.state.verifier, api_key):
            await there.state.verifier.verify(api_key)
            await asyncio.sleep(0.01)
        await api_keys.revoke(session, key, actor=None)
        await session.commit()
        assert knows(there.state.verifier, api_key)  # still: this is what the bound is for
        await until(lambda: not knows(there.state.verifier, api_key))


@pytest.mark.usefixtures("running")
async def test_a_key_that_is_remembered_expires_to_the_second(
    app: FastAPI, as_user: AsUser, change_key: ChangeKey
) -> None:
    me = await as_user()
    end = utc_now() + timedelta(hours=1)
    await change_key(me.key, expires_at=end)
    while not knows(app.state.verifier, me.api_key):  # the next poll sees the change, and has all forgotten again
        await me.get(CURRENT)
    with time_machine.travel(end, tick=False):
        assert (await me.get(CURRENT)).json()["code"] == "api_key_expired"


@pytest.mark.usefixtures("running")
async def test_a_key_that_is_remembered_is_refused_from_elsewhere(as_user: AsUser, client: AsyncClient) -> None:
    me = await as_user()
    await me.patch(CURRENT, json={"allowed_cidrs": ["127.0.0.0/8"]})
    headers = {"Authorization": f"Bearer {me.api_key}"}
    for _ in range(2):
        assert (await client.get(CURRENT, headers=headers)).status_code == 200
    client._transport.client = ("192.0.2.1", 1)  # type: ignore[attr-defined] # of the ASGI transport, which it is
    assert (await client.get(CURRENT, headers=headers)).json()["code"] == "address_not_allowed"


async def test_while_the_stamp_cannot_be_read_the_database_is_asked(
    app: FastAPI, as_user: AsUser, running: KeyCache[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    me = await as_user()
    await me.get(CURRENT)
    assert knows(app.state.verifier, me.api_key)

    async def fail(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("on purpose"))

    monkeypatch.setattr(KeyCache, "_poll", fail)
    end = running._believed_until
    assert end - time.monotonic() <= cache_module.BELIEVED_SECONDS
    monkeypatch.setattr(cache_module, "BELIEVED_SECONDS", 0)  # the loop's clock jumps as well: it may poll at once
    monkeypatch.setattr("time.monotonic", lambda: end)
    assert not knows(app.state.verifier, me.api_key)
    generation = running.generation
    await me.get(CURRENT)
    running.put(b"digest", object(), generation)
    assert b"digest" not in running._keys


async def test_a_stamp_that_cannot_be_read_is_in_the_log_and_asked_for_again(
    make_database: MakeDatabase, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "BELIEVED_SECONDS", 0.01)
    database = Database(make_database(migrated=False))
    cache: KeyCache[object] = KeyCache(database, enabled=True)
    async with cache.running():
        await until(lambda: caplog.text.count("its stamp could not be read") > 1)
    assert not cache.believed
    await database.dispose()


async def test_what_was_asked_before_a_deed_is_not_remembered_after_it(running: KeyCache[object]) -> None:
    before = running.generation
    running.forget()
    running.put(b"digest", object(), before)
    assert running.get(b"digest") is None


async def test_it_is_bounded_in_number_and_in_time(running: KeyCache[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "MOST_KEYS", 2)
    for digest in (b"1", b"2", b"1", b"3"):
        running.put(digest, object(), running.generation)
    assert [*running._keys] == [b"1", b"3"]
    monkeypatch.setattr(cache_module, "LONGEST_SECONDS", 0)
    running.put(b"4", object(), running.generation)
    assert running.get(b"4") is None


async def test_the_stamp_is_advanced_by_every_way_to_change_a_key_or_its_owner(
    database: Database, as_user: AsUser, app: FastAPI
) -> None:
    me = await as_user()
    before = await stamp(database)
    await as_user()  # a new key changes nothing for those that were verified
    await me.get(CURRENT)
    await app.state.usage.flush()
    assert await stamp(database) == before

    async with database.session() as session:
        key = await api_keys.get(session, me.key.id, actor=None)
        await api_keys.change(session, key, ApiKeyUpdate(name="another"), actor=None)
    assert await stamp(database) == before + 1
    async with database.session() as session:
        await users.change(session, me.user.id, UserUpdate(first_name="Ada"))
    assert await stamp(database) == before + 2
    async with database.session() as session:
        await session.exec(update(User).where(col(User.id) == me.user.id).values(is_active=False))
    assert await stamp(database) == before + 3


async def test_a_deed_within_a_savepoint_is_one_when_all_is_committed(
    database: Database, as_user: AsUser, running: KeyCache[object]
) -> None:
    me = await as_user()
    before = await stamp(database)
    async with database.session() as session:
        async with session.begin_nested():
            (await session.get_one(UserApiKey, me.key.id)).name = "another"
        assert await stamp(database) == before
        generation = running.generation
    assert running.generation > generation
    assert await stamp(database) == before + 1


async def test_a_deed_that_is_undone_leaves_the_stamp(database: Database, as_user: AsUser) -> None:
    me = await as_user()
    before = await stamp(database)

    async def fail_after_a_deed() -> None:
        async with database.session() as session:
            (await session.get_one(UserApiKey, me.key.id)).name = "another"
            await session.flush()
            raise LookupError

    with pytest.raises(LookupError):
        await fail_after_a_deed()
    assert await stamp(database) == before
