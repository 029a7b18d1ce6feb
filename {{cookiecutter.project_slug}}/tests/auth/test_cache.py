"""Two apps on one database stand for two processes. Their transactions commit."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID, uuid4
from weakref import WeakSet, ref

import pytest
import time_machine
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response
from pydantic import SecretStr
from sqlalchemy import Executable, update
from sqlalchemy.exc import OperationalError

from app.api_keys.models import UserApiKey
from app.audit.models import Action, AuditEvent
from app.auth import cache, key_format
from app.auth.caller import Caller
from app.auth.dependencies import CurrentCaller
from app.core.database import Database, Rows, utc_now
from app.core.errors import ApiKeyInvalid
from app.main import create_app
from app.settings import Settings
from tests.conftest import AsUser, ChangeKey, KeyClient, MakeDatabase, make_settings

ME = "/v1/users/me"
CURRENT = "/v1/api-keys/current"


class SpiedDatabase(Database):
    """Shows what a process asks the database in order to verify keys, and can delay the rows."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.lookups: list[str] = []  # ids of keys
        self.reads_started = 0  # of the audit log
        self.finished_reads: set[int] = set()  # 1 is the first
        self.events: list[ref[UUID]] = []  # all ids that were read
        self.is_broken = False
        self.gates: dict[str, asyncio.Event] = {}
        self.is_held = False

    @property
    def event_ids_in_memory(self) -> list[UUID]:
        return [event_id for reference in self.events if (event_id := reference())]

    def hold_next(self, kind: str) -> asyncio.Event:
        """Holds the rows of the next "lookup" or "read" back until the event is set."""
        self.gates[kind] = asyncio.Event()
        return self.gates[kind]

    async def fetch_all(
        self,
        query: Executable,
        parameters: Mapping[str, object] | None = None,
        *,
        is_check: bool = False,
    ) -> Rows:
        if parameters:
            self.lookups.append(f"{parameters['id']}")
        elif self.is_broken:
            raise OperationalError("SELECT", {}, Exception("on purpose"))
        else:
            self.reads_started += 1
        number = self.reads_started
        gate = self.gates.pop("lookup" if parameters else "read", None)
        rows = await super().fetch_all(query, parameters, is_check=is_check)
        if gate:
            self.is_held = True
            await asyncio.wait_for(gate.wait(), 5)
        if not parameters:
            self.finished_reads.add(number)
            self.events += [ref(event.id) for event in rows]
        return rows


async def spied_database(settings: Settings) -> AsyncIterator[SpiedDatabase]:
    database = SpiedDatabase(settings.database_url)
    yield database
    await until(lambda: len(database.finished_reads) == database.reads_started)
    await database.dispose()


database = pytest.fixture(spied_database)
other_database = pytest.fixture(spied_database)


@pytest.fixture(scope="module")
def url(make_database: MakeDatabase) -> str:
    return make_database()


@pytest.fixture
def settings(url: str, request: pytest.FixtureRequest) -> Settings:
    changes = getattr(request, "param", {"api_key_cache_seconds": 10})
    return make_settings(database_url=url, **changes)


Elsewhere = Callable[[KeyClient], AsyncClient]


@pytest.fixture
def elsewhere(settings: Settings, other_database: SpiedDatabase) -> Elsewhere:
    """`elsewhere(me)` is a client with the same key, whose requests reach another process."""
    to_app = ASGITransport(create_app(settings, other_database))
    return lambda me: AsyncClient(transport=to_app, base_url="http://test", headers=me.headers)


class Clock:
    """Stands still until a test moves it, but no two moments are equal."""

    now = 1000.0

    def monotonic(self) -> float:
        self.now += 1e-6
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(cache, "time", SimpleNamespace(monotonic=clock.monotonic, time=time.time))
    return clock


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not happen within 5 seconds")


async def get_and_read(client: AsyncClient, clock: Clock, database: SpiedDatabase) -> Response:
    """Half a second later, so that the request starts a read of the audit log."""
    await asyncio.sleep(0)  # an earlier request may just have created the task of its read
    number = database.reads_started + 1
    clock.now += 0.5
    response = await client.get(ME)
    await until(lambda: number in database.finished_reads)
    return response


async def test_requests_with_a_cached_key_read_the_audit_log_every_quarter_of_a_second(
    as_user: AsUser, clock: Clock, database: SpiedDatabase
) -> None:
    me = await as_user()
    for seconds in (0.0, 0.2, 0.1):
        clock.now += seconds
        for _ in range(3):
            assert (await me.get(ME)).status_code == 200
    assert database.lookups == [me.key.id]
    assert database.reads_started == 2


@pytest.mark.parametrize("settings", [{"api_key_cache_seconds": 0}], indirect=True)
async def test_without_the_cache_each_request_looks_the_key_up(
    as_user: AsUser, database: SpiedDatabase
) -> None:
    me = await as_user()
    for _ in range(3):
        assert (await me.patch(CURRENT, json={"rate_limit": "100/minute"})).status_code == 200
    assert database.lookups == [me.key.id] * 3
    assert database.reads_started == 0


CHANGES: dict[str, tuple[str, str, object, int]] = {
    "revoke": ("DELETE", "/v1/api-keys/{key}", None, 401),
    "disable": ("PATCH", "/v1/api-keys/{key}", {"enabled": False}, 401),
    "remove scopes": ("PATCH", "/v1/api-keys/{key}", {"scopes": []}, 403),
    "restrict networks": ("PATCH", "/v1/api-keys/{key}", {"allowed_cidrs": ["192.0.2.1/32"]}, 403),
    "rotate": ("POST", "/v1/api-keys/{key}/rotate", None, 401),
    "demote": ("PATCH", "/v1/users/{user}", {"is_admin": False}, 403),
    "deactivate": ("PATCH", "/v1/users/{user}", {"is_active": False}, 401),
    "delete": ("DELETE", "/v1/users/{user}", None, 401),
    "revoke all": ("DELETE", "/v1/users/{user}/api-keys", None, 401),
}


@pytest.mark.parametrize(("method", "path", "body", "status"), CHANGES.values(), ids=CHANGES)
async def test_a_change_takes_effect_with_its_response_and_elsewhere_within_a_second(
    as_user: AsUser,
    elsewhere: Elsewhere,
    clock: Clock,
    other_database: SpiedDatabase,
    method: str,
    path: str,
    body: object,
    status: int,
) -> None:
    me, admin = await as_user(admin=True), await as_user(admin=True)
    there = elsewhere(me)
    for client in (me, there):
        assert (await client.get("/v1/users")).status_code == 200
    url = path.format(key=me.key.id, user=me.user.id)
    assert (await admin.request(method, url, json=body)).is_success
    assert (await me.get("/v1/users")).status_code == status
    await get_and_read(there, clock, other_database)
    assert (await there.get("/v1/users")).status_code == status


async def test_rotating_a_key_leaves_the_other_keys_of_its_owner_in_the_cache(
    as_user: AsUser,
    elsewhere: Elsewhere,
    clock: Clock,
    database: SpiedDatabase,
    other_database: SpiedDatabase,
) -> None:
    rotated = await as_user()
    other = await as_user(user=rotated.user)
    for client in (rotated, other, elsewhere(rotated), elsewhere(other)):
        await client.get(ME)
    await rotated.post(f"{CURRENT}/rotate")
    await get_and_read(elsewhere(rotated), clock, other_database)
    assert (await elsewhere(rotated).get(ME)).status_code == 401
    for client in (other, elsewhere(other)):
        assert (await client.get(ME)).status_code == 200
    for process in (database, other_database):
        assert process.lookups.count(other.key.id) == 1


async def test_an_event_that_commits_after_a_later_one_is_seen(
    as_user: AsUser,
    elsewhere: Elsewhere,
    clock: Clock,
    database: SpiedDatabase,
    other_database: SpiedDatabase,
) -> None:
    early, late = await as_user(), await as_user()
    for me in (early, late):
        await elsewhere(me).get(ME)
    await late.delete(CURRENT)
    await get_and_read(elsewhere(late), clock, other_database)
    assert (await elsewhere(late).get(ME)).status_code == 401
    revoked = AuditEvent(
        created_at=utc_now() - timedelta(seconds=20),
        action=Action.API_KEY_REVOKED,
        target_user_id=early.user.id,
        target_key_id=early.key.id,
        changes={},
        changes_rights=True,
    )
    async with database.session() as session:
        (await session.get_one(UserApiKey, early.key.id)).revoked_at = utc_now()
        session.add(revoked)
    await get_and_read(elsewhere(early), clock, other_database)
    assert (await elsewhere(early).get(ME)).status_code == 401


@pytest.mark.parametrize("seconds", [-60, 60])
async def test_a_jump_of_the_wall_clock_changes_nothing(
    as_user: AsUser,
    elsewhere: Elsewhere,
    other_database: SpiedDatabase,
    monkeypatch: pytest.MonkeyPatch,
    seconds: int,
) -> None:
    monkeypatch.setattr(cache, "READ_SECONDS", 0)
    monkeypatch.setattr(cache, "TRUST_SECONDS", 60)  # a slow machine must not look up the key
    me = await as_user()
    there = elsewhere(me)
    await there.get(ME)
    with time_machine.travel(utc_now() + timedelta(seconds=seconds)):
        assert (await there.get(ME)).status_code == 200
        assert other_database.lookups == [me.key.id]
        await until(lambda: len(other_database.finished_reads) == 2)
        await me.delete(CURRENT)
        await there.get(ME)
        await until(lambda: len(other_database.finished_reads) == 3)
        assert (await there.get(ME)).status_code == 401


async def test_an_entry_is_invalid_at_the_exact_moment_of_each_bound(
    database: SpiedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.5  # the machine has just started
    monkeypatch.setattr(cache, "time", SimpleNamespace(monotonic=lambda: now, time=time.time))
    key, caller = SecretStr("a key"), Caller("its id", uuid4(), frozenset())
    keys = cache.KeyCache(database, seconds=10)

    async def query(_: SecretStr) -> Caller:
        return caller

    await keys.look_up(key, query)
    assert keys.get(key) == caller
    keys.mark_changed([caller.user_id])
    assert keys.get(key) is None
    now = 1.5
    await keys.look_up(key, query)
    now = 2.5
    assert keys.get(key) is None, "the last read of the audit log is a second old"
    async with keys.running():
        pass  # wait for the reads
    now = 11.25
    async with keys.running():
        keys.get(key)  # starts another read
    assert keys.get(key) == caller
    now = 11.5
    assert keys.get(key) is None, "the lookup is 10 seconds old"


async def test_a_change_in_psql_takes_effect_after_ten_seconds(
    as_user: AsUser, change_key: ChangeKey, clock: Clock, database: SpiedDatabase
) -> None:
    me = await as_user()
    await me.get(ME)
    await change_key(me.key, revoked_at=utc_now())
    for _ in range(19):
        assert (await get_and_read(me, clock, database)).status_code == 200
    assert (await get_and_read(me, clock, database)).json()["code"] == "api_key_revoked"


async def test_while_the_audit_log_cannot_be_read_the_key_is_looked_up(
    as_user: AsUser,
    change_key: ChangeKey,
    clock: Clock,
    database: SpiedDatabase,
    caplog: pytest.LogCaptureFixture,
) -> None:
    me = await as_user()
    await me.get(ME)
    await change_key(me.key, revoked_at=utc_now())
    database.is_broken = True
    for _ in range(2):
        clock.now += 0.5
        response = await me.get(ME)
    assert response.json()["code"] == "api_key_revoked"
    assert "the key cache cannot read the audit log" in caplog.text


async def test_while_there_are_more_changes_than_are_read_the_key_is_looked_up(
    as_user: AsUser, clock: Clock, database: SpiedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = await as_user()
    await me.patch(CURRENT, json={"rate_limit": "100/minute"})
    monkeypatch.setattr(cache, "MAX_EVENTS", 0)
    lookups = []
    for _ in range(3):
        await get_and_read(me, clock, database)
        lookups.append(len(database.lookups))
    assert lookups[2] == lookups[0] + 1


@pytest.mark.parametrize("seconds", [1, 12])
async def test_after_a_stall_while_the_audit_log_is_read_the_key_is_looked_up(
    as_user: AsUser,
    elsewhere: Elsewhere,
    clock: Clock,
    other_database: SpiedDatabase,
    seconds: int,
) -> None:
    me = await as_user()
    gate = other_database.hold_next("read")
    await elsewhere(me).get(ME)
    await until(lambda: other_database.is_held)
    await me.delete(CURRENT)
    clock.now += seconds
    gate.set()
    await until(lambda: other_database.finished_reads == {1})
    assert (await elsewhere(me).get(ME)).json()["code"] == "api_key_revoked"


async def test_a_read_that_a_later_one_has_overtaken_is_dropped(
    as_user: AsUser, elsewhere: Elsewhere, clock: Clock, other_database: SpiedDatabase
) -> None:
    me = await as_user()
    there = elsewhere(me)
    gate = other_database.hold_next("read")
    await there.get(ME)
    await until(lambda: other_database.is_held)
    await me.patch(CURRENT, json={"rate_limit": "100/minute"})
    for _ in range(2):  # the second read must not take the event for a new one
        await get_and_read(there, clock, other_database)
        await there.get(ME)
        assert other_database.lookups == [me.key.id] * 2
        gate.set()


@pytest.mark.parametrize("in_another_process", [False, True])
@pytest.mark.parametrize("is_enabled", [False, True])
async def test_a_request_that_joins_a_lookup_from_before_a_change_gets_the_new_result(
    as_user: AsUser,
    elsewhere: Elsewhere,
    change_key: ChangeKey,
    clock: Clock,
    database: SpiedDatabase,
    other_database: SpiedDatabase,
    *,
    in_another_process: bool,
    is_enabled: bool,
) -> None:
    me, admin = await as_user(), await as_user(admin=True)
    await change_key(me.key, enabled=is_enabled)
    client, asked = (elsewhere(me), other_database) if in_another_process else (me, database)
    gate = asked.hold_next("lookup")
    first = asyncio.create_task(client.get(ME))
    await until(lambda: asked.is_held)
    await admin.patch(f"/v1/api-keys/{me.key.id}", json={"enabled": not is_enabled})
    clock.now += in_another_process
    second = asyncio.create_task(client.get(ME))
    await asyncio.sleep(0.05)  # until it waits for the lookup
    gate.set()
    assert ((await first).status_code == 200) == is_enabled
    assert ((await second).status_code == 200) != is_enabled


@pytest.mark.usefixtures("clock")
async def test_a_cancelled_request_does_not_cancel_the_lookup_of_others(
    as_user: AsUser, database: SpiedDatabase
) -> None:
    me = await as_user()
    gate = database.hold_next("lookup")
    first, second = asyncio.create_task(me.get(ME)), asyncio.create_task(me.get(ME))
    await until(lambda: database.is_held)
    first.cancel()
    await asyncio.wait({first}, timeout=5)
    gate.set()
    assert (await second).status_code == 200
    assert database.lookups == [me.key.id]


@pytest.mark.usefixtures("clock")
async def test_concurrent_requests_that_miss_the_same_key_make_one_lookup(
    app: FastAPI, as_user: AsUser, database: SpiedDatabase
) -> None:
    @app.get("/v1/no-session")
    async def no_session(_: CurrentCaller) -> None: ...

    me = await as_user()
    responses = await asyncio.gather(*(me.get("/v1/no-session") for _ in range(100)))
    assert {response.status_code for response in responses} == {200}
    assert database.lookups == [me.key.id]


UNUSABLE: dict[str, dict[str, object]] = {
    "revoked": {"revoked_at": utc_now()},
    "disabled": {"enabled": False},
    "expired": {"expires_at": utc_now()},
}


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("changes", UNUSABLE.values(), ids=UNUSABLE)
async def test_requests_with_a_key_that_cannot_be_used_make_one_lookup(
    as_user: AsUser, change_key: ChangeKey, database: SpiedDatabase, changes: dict[str, object]
) -> None:
    me, other = await as_user(), await as_user()
    await change_key(me.key, **changes)
    responses = await asyncio.gather(*(me.get(ME) for _ in range(70)))
    assert [response.status_code for response in responses] == [401] * 60 + [429] * 10
    assert (await me.get(ME)).status_code == 429
    assert database.lookups == [me.key.id]
    assert (await other.get(ME)).status_code == 200


REPAIRS: dict[str, tuple[dict[str, object], str, str, object]] = {
    "enable": ({"enabled": False}, "PATCH", "/v1/api-keys/{key}", {"enabled": True}),
    "renew": ({"expires_at": utc_now()}, "POST", "/v1/api-keys/{key}/renew", None),
    "activate": ({}, "PATCH", "/v1/users/{user}", {"is_active": True}),
}


@pytest.mark.parametrize(("changes", "method", "path", "body"), REPAIRS.values(), ids=REPAIRS)
async def test_a_key_that_can_be_used_again_is_accepted_at_once_and_elsewhere_within_a_second(
    as_user: AsUser,
    elsewhere: Elsewhere,
    change_key: ChangeKey,
    clock: Clock,
    other_database: SpiedDatabase,
    changes: dict[str, object],
    method: str,
    path: str,
    body: object,
) -> None:
    me, admin = await as_user(), await as_user(admin=True)
    await change_key(me.key, **changes)
    if not changes:
        await admin.patch(f"/v1/users/{me.user.id}", json={"is_active": False})
    there = elsewhere(me)
    for client in (me, there):
        assert (await client.get(ME)).status_code == 401
    url = path.format(key=me.key.id, user=me.user.id)
    assert (await admin.request(method, url, json=body)).is_success
    assert (await me.get(ME)).status_code == 200
    await get_and_read(there, clock, other_database)
    assert (await there.get(ME)).status_code == 200


@pytest.mark.usefixtures("clock")
async def test_guesses_never_fill_the_cache(
    as_user: AsUser, database: SpiedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MAX_ENTRIES", 1)
    me = await as_user()
    await me.get(ME)
    for _ in range(3):
        guess = key_format.generate("acme", "test").text
        await me.get(ME, headers={"Authorization": f"Bearer {guess}"})
    await me.get(ME)
    assert database.lookups.count(me.key.id) == 1
    assert len(database.lookups) == 4


@pytest.mark.usefixtures("clock")
async def test_a_cached_key_expires_to_the_second(as_user: AsUser, change_key: ChangeKey) -> None:
    me = await as_user()
    expires_at = utc_now().replace(microsecond=0) + timedelta(hours=1)
    await change_key(me.key, expires_at=expires_at)
    await me.get(ME)
    with time_machine.travel(expires_at - timedelta(milliseconds=1), tick=False):
        assert (await me.get(ME)).status_code == 200
    with time_machine.travel(expires_at, tick=False):
        assert (await me.get(ME)).json()["code"] == "api_key_expired"


@pytest.mark.usefixtures("clock")
async def test_the_number_and_the_size_of_entries_are_bounded(
    as_user: AsUser, database: SpiedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not hasattr(Caller("", uuid4(), frozenset()), "__dict__")
    monkeypatch.setattr(cache, "MAX_ENTRIES", 2)
    oldest, middle, newest = clients = [await as_user() for _ in range(3)]
    for client in (*clients, newest, middle, oldest):
        await client.get(ME)
    assert database.lookups == [client.key.id for client in (*clients, oldest)]


async def test_no_lookup_stays_in_memory(app: FastAPI) -> None:
    key = SecretStr(key_format.generate("acme", "test").text)
    with pytest.raises(ApiKeyInvalid):
        await app.state.verifier.verify(key)
    reference = ref(key)
    del key
    await asyncio.sleep(0)
    gc.collect()
    assert reference() is None


async def test_memory_of_changes_is_bounded_in_time(
    app: FastAPI, as_user: AsUser, clock: Clock, database: SpiedDatabase
) -> None:
    me = await as_user()
    await me.patch(CURRENT, json={"rate_limit": "100/minute"})
    changed_id = uuid4()
    changed_ids = WeakSet([changed_id])
    for hook in app.state.after_commit:
        hook(frozenset({changed_id}))
    del changed_id
    await get_and_read(me, clock, database)
    assert changed_ids
    assert database.event_ids_in_memory
    async with database.session() as session:
        long_ago = datetime(2020, 1, 1, tzinfo=UTC)
        await session.exec(update(AuditEvent).values(created_at=long_ago))
    clock.now += 10
    await me.get(ME)
    await until(lambda: not changed_ids and not database.event_ids_in_memory)


async def test_an_idle_process_runs_no_query(
    as_user: AsUser, database: SpiedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "READ_SECONDS", 0.01)
    me = await as_user()
    await me.get(ME)
    await asyncio.sleep(0.05)
    assert database.lookups == [me.key.id]
    assert database.reads_started == 1


async def test_a_stopping_process_waits_for_its_reads(
    app: FastAPI, as_user: AsUser, database: SpiedDatabase
) -> None:
    me = await as_user()
    gate = database.hold_next("read")
    async with app.state.verifier.cache.running():
        await me.get(ME)
        await until(lambda: database.is_held)
        asyncio.get_running_loop().call_later(0.01, gate.set)
    assert database.finished_reads == {1}


async def test_a_stopping_process_does_not_wait_for_a_frozen_database(
    app: FastAPI, as_user: AsUser, database: SpiedDatabase
) -> None:
    me = await as_user()
    gate = database.hold_next("read")
    async with asyncio.timeout(4), app.state.verifier.cache.running():
        await me.get(ME)
    gate.set()
