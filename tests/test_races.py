"""No write takes effect after its caller has lost its rights, and writes do not deadlock.

One or two servers on one database get concurrent requests. RACE_ROUNDS and DEADLOCK_ROUNDS set how
often each race is repeated. pytest prints the figures.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from threading import Event

import pytest

from tests.servers import Answer, Instance, PostgresqlStore, Store, at_once, begin, until

RACE_ROUNDS = int(os.environ.get("RACE_ROUNDS", "2"))
DEADLOCK_ROUNDS = int(os.environ.get("DEADLOCK_ROUNDS", "30"))
WRITERS = 32
WRITES = 2  # of each writer, one after the other
BOUND = 1.0  # seconds after which a change has taken effect in every process
REJECTED = {401, 403, 404}
KEYS, USERS, EVENTS = "/v1/api-keys", "/v1/users", "/v1/audit-events"
SCOPES = ["users:read", "users:write", "api_keys:read", "api_keys:write"]

numbers = count()


@dataclass
class Key:
    id: str
    text: str
    user_id: str

    @classmethod
    def of(cls, answer: Answer) -> "Key":
        assert answer.status == 201, answer
        return cls(*(str(answer.body[name]) for name in ("id", "api_key", "user_id")))

    def rotate(self, instance: Instance, caller: "Key") -> Answer:
        """The next call rotates the successor."""
        answer = instance.ask("POST", f"{KEYS}/{self.id}/rotate", key=caller.text)
        if answer.status == 201:
            self.id = str(answer.body["id"])
        return answer


def create_user(instance: Instance, *, is_admin: bool = False) -> str:
    email = f"user-{next(numbers)}@example.com"
    answer = instance.ask("POST", USERS, {"email": email, "is_admin": is_admin})
    assert answer.status == 201, answer
    return str(answer.body["id"])


def create_key(instance: Instance, user_id: str, *scopes: str) -> Key:
    return Key.of(instance.create_key(user_id=user_id, scopes=[*SCOPES, *scopes]))


Write = Callable[[Instance, Key], Answer]


def sends(method: str, path: str, **body: object) -> Write:
    """`path` can contain the caller's {key} and {user}. A new name makes each PATCH a change."""

    def write(instance: Instance, caller: Key) -> Answer:
        url = path.format(key=caller.id, user=caller.user_id)
        name = {"first_name" if USERS in path else "name": f"{next(numbers)}"}
        changes = body | name if method == "PATCH" else body
        return instance.ask(method, url, changes, key=caller.text)

    return write


@dataclass(frozen=True)
class Removal:
    """A request that removes rights of a caller, and the audit event that it writes."""

    method: str
    path: str
    event: str
    body: dict[str, bool] | None = None


REMOVALS = {
    "revoke": Removal("DELETE", f"{KEYS}/{{key}}", "api_key.revoked"),
    "revoke all": Removal("DELETE", f"{USERS}/{{user}}/api-keys", "api_key.revoked"),
    "disable": Removal("PATCH", f"{KEYS}/{{key}}", "api_key.updated", {"enabled": False}),
    "demote": Removal("PATCH", f"{USERS}/{{user}}", "user.updated", {"is_admin": False}),
    "deactivate": Removal("PATCH", f"{USERS}/{{user}}", "user.updated", {"is_active": False}),
    "delete": Removal("DELETE", f"{USERS}/{{user}}", "user.deleted"),
}


class Race:
    """32 concurrent writes of one caller, while another admin removes the caller's rights."""

    def __init__(self, name: str, instances: Sequence[Instance]) -> None:
        self.name = name
        self.removal = REMOVALS[name]
        self.instances = instances
        self.admin = instances[-1]
        self.tenant = create_user(self.admin)
        self.tenants_keys = [create_key(self.admin, self.tenant) for _ in range(WRITERS // 4)]
        self.lost: list[Key] = []  # every server must reject them in the end
        self.statuses: Counter[int] = Counter()
        self.survivors: list[object] = []

    def writers(self, own_key: Key) -> Iterator[Write]:
        """A quarter of them each create, rotate, renew and update."""
        changed, *rotated = self.tenants_keys
        path = f"{KEYS}/{changed.id}"
        creates = [
            sends("POST", KEYS, name="new", scopes=[*SCOPES, "admin"]),
            sends("POST", KEYS, name="new", scopes=SCOPES, user_id=self.tenant),
        ]
        rotations: list[Write] = [own_key.rotate, *(key.rotate for key in rotated)]
        renewals = [sends("POST", f"{path}/renew")]
        updates = [
            sends("PATCH", f"{USERS}/{{user}}", is_admin=True, is_active=True),
            sends("PATCH", path, scopes=SCOPES),
            sends("PATCH", path, scopes=[]),
        ]
        if self.name != "demote":  # a caller that is no longer an admin can still do these
            renewals.append(sends("POST", f"{KEYS}/{{key}}/renew"))
            updates.append(sends("PATCH", f"{KEYS}/{{key}}", enabled=True))
        for kind in (creates, rotations, renewals, updates):
            yield from (kind[number % len(kind)] for number in range(WRITERS // 4))

    def run(self, delay: float) -> None:
        user_id = create_user(self.admin, is_admin=True)
        caller, own_key = (create_key(self.admin, user_id, "admin") for _ in range(2))
        path = self.removal.path.format(key=caller.id, user=user_id)
        removed = Event()

        def write(writer: Write, instance: Instance) -> list[Answer]:
            answers = []
            for _ in range(WRITES):
                is_late = removed.is_set()
                answers.append(writer(instance, caller))
                if is_late and answers[-1].status < 300:
                    self.survivors.append(answers[-1])
            return answers

        calls = [
            partial(write, writer, self.instances[number % len(self.instances)])
            for number, writer in enumerate(self.writers(own_key))
        ]
        writing = begin(*calls)
        time.sleep(delay)
        # Again and again, because SQLite can let a writer wait until it gives up.
        until(lambda: self.admin.ask(self.removal.method, path, self.removal.body).status < 300)
        removed.set()
        self.check_rejected([caller], [self.admin])

        answers = [answer for one in writing for answer in one.result()]
        self.statuses.update(answer.status for answer in answers)
        self.lost.append(caller)
        if USERS in path:
            created = [Key.of(answer) for answer in answers if answer.status == 201]
            self.lost += [own_key, *(key for key in created if key.user_id == user_id)]
        self.check_events(caller)

    def check_events(self, caller: Key) -> None:
        """The events are in the order of the transactions."""
        admin_key = self.admin.store.key.split("_")[2]
        removal = f"target_user_id={caller.user_id}&action={self.removal.event}"
        removed_at = max(times(self.admin.get(f"{EVENTS}?actor_key_id={admin_key}&{removal}")))
        written_at = times(self.admin.get(f"{EVENTS}?actor_key_id={caller.id}&limit=100"))
        self.survivors += [moment for moment in written_at if moment > removed_at]

    def check_rejected(self, keys: Sequence[Key], instances: Sequence[Instance]) -> None:
        answers = [instance.get(USERS, key.text) for key in keys for instance in instances]
        self.survivors += [answer for answer in answers if answer.status not in REJECTED]


def times(events: Answer) -> list[datetime]:
    items = events.body["items"]
    assert isinstance(items, list)
    return [datetime.fromisoformat(item["created_at"]) for item in items]


@pytest.fixture(
    scope="module",
    params=[("sqlite", 1), ("sqlite", 2), ("postgresql", 1), ("postgresql", 2)],
    ids=lambda param: f"{param[0]}, processes: {param[1]}",
)
def instances(
    request: pytest.FixtureRequest, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Instance]]:
    database, processes = request.param
    store: Store
    if database == "sqlite":
        path = tmp_path_factory.mktemp("races") / "app.db"
        store = request.getfixturevalue("sqlite_seed").copy(path)
    else:
        store = request.getfixturevalue("postgresql_seed").copy()
    instances = [
        Instance(
            project,
            store,
            API_KEY_MAX_PER_USER=1_000_000,
            FAILED_AUTH_LIMIT="",
            LOG_LEVEL="warning",
            USAGE_FLUSH_SECONDS=0.2,
        )
        for _ in range(processes)
    ]
    try:
        at_once(*(instance.start for instance in instances))
        yield instances
    finally:
        for instance in instances:
            instance.kill()
            print(instance.log.read_text())  # for pytest to show if a test failed


@pytest.fixture
def figures(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """pytest prints them at the end."""
    return lambda text: record_property("figures", f"{request.node.callspec.id}: {text}")


def test_no_write_takes_effect_after_its_caller_has_lost_its_rights(
    instances: list[Instance], figures: Callable[[str], None]
) -> None:
    races = [Race(name, instances) for name in REMOVALS]
    for race in races:
        for number in range(RACE_ROUNDS):
            race.run(delay=0.2 * number / RACE_ROUNDS)
    time.sleep(BOUND)
    for race in races:
        race.check_rejected(race.lost, instances)
        writes = race.statuses[200] + race.statuses[201]
        figures(f"{race.name}: {RACE_ROUNDS} rounds, {writes} writes, {len(race.survivors)} survivors")
    assert not any(race.survivors for race in races), [race.survivors for race in races]
    # SQLite can let a writer wait until it gives up.
    too_late = set() if isinstance(instances[0].store, PostgresqlStore) else {503}
    assert {status for race in races for status in race.statuses} <= {
        200,
        201,
        *REJECTED,
        *too_late,
    }


on_postgresql = pytest.mark.parametrize(
    "instances",
    [("postgresql", 1), ("postgresql", 2)],
    ids=lambda param: f"{param[0]}, processes: {param[1]}",
    indirect=True,
)


@on_postgresql
def test_admins_who_create_keys_for_each_other_do_not_deadlock(
    instances: list[Instance], figures: Callable[[str], None]
) -> None:
    admin = instances[-1]
    ada, bob = (create_key(admin, create_user(admin, is_admin=True), "admin") for _ in range(2))
    for_ada = sends("POST", KEYS, name="new", scopes=SCOPES, user_id=ada.user_id)
    for_bob = sends("POST", KEYS, name="new", scopes=SCOPES, user_id=bob.user_id)
    pairs = [(for_bob, ada), (for_ada, bob)]
    calls = [partial(write, one, caller) for one in instances for write, caller in pairs]
    statuses: Counter[int] = Counter()
    for _ in range(DEADLOCK_ROUNDS):
        statuses.update(answer.status for answer in at_once(*calls * 4))
    found = deadlocks(admin.store)
    figures(f"creations for each other: {DEADLOCK_ROUNDS} rounds, {found} deadlocks")
    assert found == 0
    assert statuses.keys() == {201}


@on_postgresql
def test_writes_do_not_deadlock_with_the_deletion_of_the_owner(
    instances: list[Instance], figures: Callable[[str], None]
) -> None:
    first, last = instances[0], instances[-1]
    admin = Key(last.store.key.split("_")[2], last.store.key, "")
    statuses: Counter[int] = Counter()
    for _ in range(DEADLOCK_ROUNDS):
        user_id = create_user(last)
        owner = create_key(last, user_id)
        keys = [Key.of(last.create_key(user_id=user_id)) for _ in range(3)]  # without scopes
        paths = [f"{KEYS}/{key.id}" for key in keys]
        calls = [
            partial(keys[0].rotate, first, owner),
            partial(keys[1].rotate, last, admin),
            partial(sends("PATCH", paths[0], scopes=SCOPES, rate_limit=None), last, owner),
            partial(sends("PATCH", paths[2], scopes=SCOPES, allowed_cidrs=None), first, admin),
            partial(sends("DELETE", f"{USERS}/{user_id}/api-keys"), first, admin),
            partial(sends("DELETE", f"{USERS}/{user_id}"), last, admin),
        ]
        random.shuffle(calls)
        statuses.update(answer.status for answer in at_once(*calls))
    found = deadlocks(last.store)
    figures(f"deletion of the owner: {DEADLOCK_ROUNDS} rounds, {found} deadlocks")
    assert found == 0
    assert statuses.keys() <= {200, 201, 204, 409, *REJECTED}


def deadlocks(store: Store) -> int:
    """Since the database was created. Connections report them when they end."""
    assert isinstance(store, PostgresqlStore)
    store.end_connections()
    time.sleep(0.5)
    counted = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    return int(store.sql(counted)[0])
