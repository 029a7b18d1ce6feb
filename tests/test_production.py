"""The generated project in production: several instances, whose servers are stopped, frozen and killed.

Each test has its own servers. The bounds are those that the docs promise, plus some slack.
"""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from http.client import HTTPException
from pathlib import Path
from threading import Event
from typing import Protocol

import pytest

from tests.bakery import PROJECT, PYTHONS, lend_environment, run
from tests.conftest import Bake
from tests.containers import running
from tests.demo import PATIENCE, free_port
from tests.servers import (
    GRACE,
    Answer,
    HAProxy,
    Instance,
    PostgreSQL,
    PostgresqlStore,
    Redis,
    SqliteStore,
    Store,
    again_and_again,
    at_once,
    begin,
    environment,
    until,
)

KILLS = 10  # on each database
ROUNDS = 10
TIME_OUT = 2  # REQUEST_TIMEOUT_SECONDS
SLACK = 1.5  # seconds that a busy machine may add to a bound
ME = "/v1/users/me"
LIVE, READY = "/health/live", "/health/ready"
OPERATIONS = PROJECT / "docs/operations.md"
PROXY_RULE = "http-request set-header X-Forwarded-For %[src]"


class Serve(Protocol):
    def __call__(self, store: Store, *, workers: int = 1, **settings: object) -> Instance: ...


@pytest.fixture
def sqlite_store(sqlite_seed: SqliteStore, tmp_path: Path) -> SqliteStore:
    return sqlite_seed.copy(tmp_path / "app.db")


@pytest.fixture
def postgresql_store(postgresql_seed: PostgresqlStore) -> Iterator[PostgresqlStore]:
    store = postgresql_seed.copy()
    yield store
    store.drop()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(f"{request.param}_store")
    return found


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    server = Redis(tmp_path)
    with server.running():
        yield server


@pytest.fixture
def serve(project: Path) -> Iterator[Serve]:
    instances: list[Instance] = []

    def serve(store: Store, *, workers: int = 1, **settings: object) -> Instance:
        instance = Instance(project, store, workers=workers, **settings)
        instances.append(instance)
        instance.start()
        return instance

    yield serve
    for instance in instances:
        instance.kill()
        print(instance.log.read_text())  # for pytest to show if the test failed


BOUND = 1.0  # seconds until a change takes effect in all processes, as docs/security.md promises


@pytest.fixture
def two_instances(
    request: pytest.FixtureRequest, postgresql_store: PostgresqlStore, redis: Redis, serve: Serve
) -> list[Instance]:
    cache_seconds = getattr(request, "param", 10)
    settings = {"REDIS_URL": redis.url, "USAGE_FLUSH_SECONDS": 0.5, "API_KEY_CACHE_SECONDS": cache_seconds}
    return at_once(*[lambda: serve(postgresql_store, workers=2, **settings)] * 2)


@pytest.mark.parametrize("two_instances", [10, 0], ids=["with the cache", "without"], indirect=True)
def test_a_change_takes_effect_in_every_worker_of_all_instances_within_the_bound(
    request: pytest.FixtureRequest, two_instances: list[Instance]
) -> None:
    one, _ = two_instances
    bound = BOUND if request.node.callspec.params["two_instances"] else 0
    for method, body, code in (
        ("PATCH", {"allowed_cidrs": ["192.0.2.1/32"]}, "address_not_allowed"),
        ("PATCH", {"allowed_cidrs": None, "enabled": False}, "api_key_disabled"),
        ("DELETE", None, "api_key_revoked"),
    ):
        created = one.create_key().body
        key = str(created["api_key"])
        for instance in two_instances:
            assert [instance.get(ME, key).status for _ in instance.each_worker()] == [200, 200]
        assert one.ask(method, f"/v1/api-keys/{created['id']}", body).status in {200, 204}
        time.sleep(bound)
        for instance in two_instances:
            assert [instance.get(ME, key).code for _ in instance.each_worker()] == [code] * 2


def test_a_process_that_was_stopped_and_continued_accepts_no_key_that_was_revoked_meanwhile(
    store: Store, serve: Serve
) -> None:
    one, other = at_once(*[lambda: serve(store)] * 2)
    created = one.create_key().body
    key = str(created["api_key"])
    assert other.get(ME, key).status == 200
    with other.frozen():
        assert one.ask("DELETE", f"/v1/api-keys/{created['id']}").status == 204
        assert one.get(ME, key).code == "api_key_revoked"
        time.sleep(BOUND)
    assert other.get(ME, key).code == "api_key_revoked"


def test_two_instances_share_a_rate_limit_and_count_usage_exactly(two_instances: list[Instance]) -> None:
    created = two_instances[0].create_key("limited", rate_limit="10/hour").body
    key = str(created["api_key"])
    answers = at_once(*[partial(instance.get, ME, key) for instance in two_instances * 25])
    assert Counter(answer.status for answer in answers) == {200: 10, 429: 40}

    def counted() -> tuple[object, object]:
        usage = two_instances[1].get(f"/v1/api-keys/{created['id']}/usage").body
        return usage["total"], usage["errors"]

    until(lambda: counted() == (50, 40))
    for instance in two_instances:
        instance.stop()
    store = two_instances[0].store
    usage = "SELECT sum(requests), sum(errors) FROM api_key_usage u JOIN user_api_keys k ON k.id = u.key_id"
    assert store.sql(f"{usage} WHERE k.name = 'limited'") == ["50|40"]


# Five processes that have imported everything call the function of the command, so they start at the same time.
UPGRADE_AT_ONCE = """
import os, sys, traceback
from alembic.config import main
import aiosqlite, psycopg, app.main
from app.settings import get_settings

for url in sys.argv[1:]:
    os.environ["DATABASE_URL"] = url
    get_settings.cache_clear()
    pids = []
    for _ in range(5):
        pids.append(os.fork())
        if not pids[-1]:
            try:
                main(["upgrade", "head"])
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert codes == [0] * 5, codes
"""


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_five_concurrent_migrations_all_succeed(
    project: Path, request: pytest.FixtureRequest, tmp_path: Path, database: str
) -> None:
    stores: list[Store] = []
    for number in range(ROUNDS):
        if database == "sqlite":
            stores.append(SqliteStore(tmp_path / f"{number}.db"))
        else:
            stores.append(PostgresqlStore.create(request.getfixturevalue("cluster")))
    command = [f"{project}/.venv/bin/python", "-c", UPGRADE_AT_ONCE, *(store.url for store in stores)]
    run(command, project, **environment(stores[0]))
    head = {line for store in stores for line in store.sql("SELECT version_num FROM alembic_version")}
    assert len(head) == 1
    assert all(store.sql("SELECT count(*) FROM user_api_keys") == ["0"] for store in stores)


def is_quick(answers: list[Answer], bound: float) -> bool:
    slowest = max(answer.seconds for answer in answers)
    assert slowest < bound + SLACK, f"{slowest} s"
    return True


def is_back(instance: Instance) -> bool:
    return (instance.get(READY).status, instance.get(ME).status, instance.create_key().status) == (200, 200, 201)


def all_unavailable(instance: Instance, *, within: float) -> None:
    """Probes respond at once, and many concurrent requests within the bound."""
    probes = begin(lambda: instance.get(LIVE), lambda: instance.get(READY))
    requests = [lambda: instance.get(ME), instance.create_key, lambda: instance.get("/v1/api-keys")]
    answers = at_once(*requests * 8)
    live, ready = (probe.result() for probe in probes)
    assert live.status == 200
    assert ready.is_unavailable
    assert is_quick([live, ready], 1)
    assert all(answer.is_unavailable for answer in answers), Counter(answer.status for answer in answers)
    assert is_quick(answers, within)


def test_while_postgresql_is_stopped_requests_get_503_and_the_service_recovers(
    cluster: PostgreSQL, postgresql_store: PostgresqlStore, serve: Serve
) -> None:
    instance = serve(postgresql_store, REQUEST_TIMEOUT_SECONDS=TIME_OUT, API_KEY_MAX_PER_USER=10_000)
    with again_and_again(lambda: [instance.get(ME), instance.create_key()]) as meanwhile:
        until(lambda: len(meanwhile) > 10)
        with cluster.stopped():
            all_unavailable(instance, within=TIME_OUT)
        until(lambda: is_back(instance))
    answers = [answer for pair in meanwhile for answer in pair]
    assert {answer.status for answer in answers} == {200, 201, 503}
    assert is_quick(answers, TIME_OUT)


def test_while_postgresql_is_frozen_requests_get_503_within_the_timeout_and_the_service_recovers(
    cluster: PostgreSQL, postgresql_store: PostgresqlStore, serve: Serve
) -> None:
    instance = serve(postgresql_store, REQUEST_TIMEOUT_SECONDS=TIME_OUT)
    assert is_back(instance)
    time.sleep(0.2)  # a readiness response can be a tenth of a second old
    with cluster.frozen():
        all_unavailable(instance, within=TIME_OUT)
        all_unavailable(instance, within=TIME_OUT)
    until(lambda: is_back(instance))


def test_while_a_lock_is_held_requests_that_need_it_get_503_and_others_succeed(store: Store, serve: Serve) -> None:
    instance = serve(store, REQUEST_TIMEOUT_SECONDS=TIME_OUT)
    own = f"/v1/api-keys/{store.key.split('_')[2]}"
    assert instance.ask("PATCH", own, {"name": "before"}).status == 200
    with store.locked():
        answers = at_once(*[lambda: instance.ask("PATCH", own, {"name": "after"})] * 4, lambda: instance.get(own))
        assert answers.pop().status == 200
        assert all(answer.is_unavailable for answer in answers)
        assert is_quick(answers, TIME_OUT)
    assert instance.get(own).body["name"] == "before"
    assert instance.ask("PATCH", own, {"name": "after"}).status == 200


def test_while_the_pool_is_exhausted_requests_get_503_within_the_bound(
    postgresql_store: PostgresqlStore, serve: Serve
) -> None:
    instance = serve(postgresql_store, REQUEST_TIMEOUT_SECONDS=TIME_OUT)
    with postgresql_store.locked():
        answers = at_once(*[instance.create_key] * 30, lambda: instance.get(LIVE))
        assert answers.pop().status == 200
        assert all(answer.is_unavailable for answer in answers)
        assert is_quick(answers, TIME_OUT)
    until(lambda: is_back(instance))


SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END';
CREATE TRIGGER slow BEFORE INSERT ON user_api_keys FOR EACH ROW EXECUTE FUNCTION slow();
"""


def test_a_slow_statement_gets_503_within_the_bound_and_is_cancelled(
    postgresql_store: PostgresqlStore, serve: Serve
) -> None:
    instance = serve(postgresql_store, REQUEST_TIMEOUT_SECONDS=TIME_OUT)
    postgresql_store.sql(SLOW)
    answers = at_once(*[instance.create_key] * 4)
    assert all(answer.is_unavailable for answer in answers)
    assert is_quick(answers, TIME_OUT)
    running = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
    until(lambda: len(postgresql_store.sql(running)) == 1)  # this one
    postgresql_store.sql("DROP TRIGGER slow ON user_api_keys")
    assert instance.create_key().status == 201


def passes(instance: Instance) -> bool:
    return instance.get(ME).status == 200


def test_without_redis_requests_get_503_within_a_second(sqlite_store: SqliteStore, redis: Redis, serve: Serve) -> None:
    start = partial(serve, sqlite_store, REDIS_URL=redis.url, RATE_LIMIT="1000000/hour")
    one, other = at_once(start, start)
    for fault in (redis.frozen, redis.stopped):
        before = len(one.logged())
        with fault():
            rejected = at_once(*[lambda: one.get(ME)] * 20)
            assert one.get(READY).status == 200
        assert all(answer.is_unavailable for answer in rejected), Counter(answer.status for answer in rejected)
        assert is_quick(rejected, 1)
        assert any("unavailable: StorageError" in str(line["message"]) for line in one.logged()[before:])
        until(partial(passes, one))
    limited = str(one.create_key(rate_limit="2/hour").body["api_key"])
    statuses = [instance.get(ME, limited).status for instance in (one, other, one)]
    assert statuses == [200, 200, 429]


def is_intact(store: Store, acknowledged: list[Answer]) -> bool:
    """Every key that was acknowledged exists, and each has its audit event."""
    assert isinstance(store, PostgresqlStore) or store.sql("PRAGMA integrity_check") == ["ok"]
    keys = store.sql("SELECT id FROM user_api_keys")
    events = store.sql("SELECT target_key_id FROM audit_events WHERE action = 'api_key.created'")
    return sorted(keys) == sorted(events) and {*keys} >= {answer.body["id"] for answer in acknowledged}


def killed_under_writes(instance: Instance) -> list[Answer]:
    """What it acknowledged before it was killed."""
    killed = Event()

    def create() -> Answer | None:
        try:
            return instance.create_key()
        except (OSError, HTTPException):
            assert killed.is_set()
            return None

    with again_and_again(create) as answers:
        until(lambda: len(answers) > 20)
        killed.set()
        instance.kill()
    return [answer for answer in answers if answer]


def test_what_was_acknowledged_survives_kill_9(store: Store, serve: Serve) -> None:
    rounds = (killed_under_writes(serve(store, API_KEY_MAX_PER_USER=1_000_000)) for _ in range(KILLS))
    acknowledged = [answer for answers in rounds for answer in answers]
    assert {answer.status for answer in acknowledged} == {201}
    assert is_intact(store, acknowledged)


def test_sigterm_under_load_finishes_running_requests_and_writes_their_usage(store: Store, serve: Serve) -> None:
    # SQLite has one writer: the requests that wait for it here are all in one process.
    workers = 2 if isinstance(store, PostgresqlStore) else 1
    instance = serve(store, workers=workers, USAGE_FLUSH_SECONDS=3600)
    with store.locked():
        new = {"name": "x", "scopes": []}
        waiting = instance.in_flight(lambda sent: instance.ask("POST", "/v1/api-keys", new, sent=sent), 8)
        instance.process.terminate()
        until(lambda: "Waiting for" in instance.log.read_text() or "Shutting down" in instance.log.read_text())
        terminated = time.monotonic()
    answers = [answer.result() for answer in waiting]
    instance.process.wait(PATIENCE)
    assert time.monotonic() - terminated < GRACE + SLACK
    until(instance.is_over, SLACK)
    assert Counter(answer.status for answer in answers) == {201: 8}
    acknowledged = {answer.body["id"] for answer in answers}
    assert acknowledged <= set(store.sql("SELECT id FROM user_api_keys"))
    assert store.sql("SELECT sum(requests), sum(errors) FROM api_key_usage") == ["8|0"]


def test_sigterm_stops_an_instance_even_while_its_database_is_frozen(
    cluster: PostgreSQL, postgresql_store: PostgresqlStore, serve: Serve
) -> None:
    """10 seconds for requests and 5 for usage: docs/operations.md asks for 20 before SIGKILL."""
    instance = serve(postgresql_store, REQUEST_TIMEOUT_SECONDS=TIME_OUT)
    assert is_back(instance)
    with cluster.frozen():
        waiting = instance.in_flight(lambda sent: instance.ask("GET", ME, sent=sent), 4)
        began = time.monotonic()
        instance.stop()
        assert time.monotonic() - began < 20
        assert all(answer.result().is_unavailable for answer in waiting)
    last = [str(line["message"]) for line in instance.logged()[-4:]]
    assert any("the last counts are lost" in message for message in last)
    assert "Application shutdown complete." in last


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_during_startup_stops_an_instance(project: Path, sqlite_store: SqliteStore, workers: int) -> None:
    for seconds in (0, 0.2, 0.5, 0.8, 1.2):
        instance = Instance(project, sqlite_store, workers=workers)
        instance.launch()
        time.sleep(seconds)  # any moment will do
        began = time.monotonic()
        try:
            instance.stop()
            assert time.monotonic() - began < GRACE
            until(instance.is_over, SLACK)
        finally:
            instance.kill()


# Kills itself at the point that the environment names: the next statement is never sent.
REVISION = """
import os, signal
import sqlalchemy as sa
from alembic import op

revision, down_revision = "another", "{head}"

def point(number):
    if os.environ.get("DIE_AT") == str(number):
        os.kill(os.getpid(), signal.SIGKILL)

def upgrade():
    op.create_table("one", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("INSERT INTO one VALUES (1)")
    point(1)
    with op.batch_alter_table("users") as users:
        users.add_column(sa.Column("nickname", sa.String(10), nullable=False, server_default="none"))
    point(2)
"""


def test_kill_9_during_a_migration_leaves_the_old_revision_intact(project: Path, store: Store, tmp_path: Path) -> None:
    changed = tmp_path / "project"
    shutil.copytree(project, changed, symlinks=True)
    (head,) = store.sql("SELECT version_num FROM alembic_version")
    (changed / "migrations/versions/another.py").write_text(REVISION.format(head=head))
    upgrade = [f"{changed}/.venv/bin/alembic", "upgrade", "head"]
    before = store.sql("SELECT * FROM users")
    for point in (1, 2):
        dying = environment(store, DIE_AT=point)
        assert subprocess.run(upgrade, cwd=changed, env=dying, capture_output=True).returncode == -signal.SIGKILL
        assert store.sql("SELECT version_num FROM alembic_version") == [head]
        assert store.sql("SELECT * FROM users") == before
        with pytest.raises((AssertionError, sqlite3.OperationalError)):
            store.sql("SELECT * FROM one")
    run(upgrade, changed, **environment(store))
    assert store.sql("SELECT version_num FROM alembic_version") == ["another"]
    assert store.sql("SELECT id FROM one") == ["1"]
    assert store.sql("SELECT nickname FROM users") == ["none"]


def test_four_workers_on_sqlite_lose_no_update_and_no_request_finds_the_database_locked(
    sqlite_store: SqliteStore, serve: Serve
) -> None:
    instance = serve(sqlite_store, workers=4, API_KEY_MAX_PER_USER=41, USAGE_FLUSH_SECONDS=0.2)
    assert instance.create_key("changed").status == 201
    (changed,) = sqlite_store.sql("SELECT id FROM user_api_keys WHERE name = 'changed'")
    fields = {"name": "new", "scopes": ["users:read"], "rate_limit": "7/day", "allowed_cidrs": ["10.0.0.0/8"]}

    def change(name: str) -> Answer:
        return instance.ask("PATCH", f"/v1/api-keys/{changed}", {name: fields[name]})

    calls = [partial(change, name) for name in fields]
    answers = at_once(*[instance.create_key] * 60, *calls * 5)
    assert Counter(answer.status for answer in answers) == {201: 39, 409: 21, 200: 20}
    assert sqlite_store.sql("SELECT count(*) FROM user_api_keys") == ["41"]
    # Only the first of five equal requests changes something.
    assert sqlite_store.sql("SELECT count(*) FROM audit_events WHERE action = 'api_key.updated'") == ["4"]
    now = instance.get(f"/v1/api-keys/{changed}").body
    assert {name: now[name] for name in fields} == fields
    until(lambda: sqlite_store.sql("SELECT sum(requests) FROM api_key_usage") == ["82"])
    assert "locked" not in instance.log.read_text()


def test_on_a_read_only_postgresql_writes_get_503_and_reads_succeed(
    postgresql_store: PostgresqlStore, serve: Serve
) -> None:
    instance = serve(postgresql_store)
    name = postgresql_store.name
    assert is_back(instance)
    for value, status in (("on", 503), ("off", 201)):
        postgresql_store.server.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}")
        postgresql_store.end_connections()
        created = instance.create_key()
        assert (created.status, created.is_unavailable) == (status, status == 503)
        assert (instance.get(ME).status, instance.get(READY).status) == (200, 200)


@contextmanager
def small_disk(folder: Path, owner: str, megabytes: int) -> Iterator[Path]:
    """A separate disk, which only root can mount."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,uid={owner}", "tmpfs", f"{folder}"]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


OnDisk = tuple[Store, Path]


@pytest.fixture
def sqlite_on_disk(sqlite_seed: SqliteStore, tmp_path: Path) -> Iterator[OnDisk]:
    with small_disk(tmp_path / "disk", "root", 4) as disk:
        yield sqlite_seed.copy(disk / "app.db"), disk


@pytest.fixture
def postgresql_on_disk(cluster: PostgreSQL, postgresql_seed: PostgresqlStore) -> Iterator[OnDisk]:
    with small_disk(cluster.folder / "disk", "postgres", 16) as disk:
        cluster.sql(f"CREATE TABLESPACE small LOCATION '{disk}'")
        store = postgresql_seed.copy("TABLESPACE small")
        yield store, disk
        store.drop()
        cluster.sql("DROP TABLESPACE small")


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return ballast


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_on_a_full_disk_writes_get_503_and_nothing_is_corrupted(
    request: pytest.FixtureRequest, serve: Serve, database: str
) -> None:
    store, disk = request.getfixturevalue(f"{database}_on_disk")
    instance = serve(store, API_KEY_MAX_PER_USER=1_000_000)
    ballast = fill(disk)
    answers = [instance.create_key()]
    while answers[-1].status == 201:
        answers.append(instance.create_key())
    refused = [answers.pop(), *at_once(*[instance.create_key] * 10)]
    assert all(answer.is_unavailable for answer in refused), Counter(answer.status for answer in refused)
    assert (instance.get(ME).status, instance.get(READY).status) == (200, 200)
    ballast.unlink()
    until(lambda: is_back(instance))
    assert is_intact(store, answers)


def test_on_a_read_only_disk_sqlite_is_unavailable_and_nothing_is_corrupted(
    sqlite_on_disk: tuple[SqliteStore, Path], serve: Serve
) -> None:
    store, disk = sqlite_on_disk
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    instance = serve(store)
    assert instance.create_key().is_unavailable
    assert instance.get(LIVE).status == 200
    assert {instance.get(ME).status, instance.get(READY).status} <= {200, 503}
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    until(lambda: is_back(instance))
    assert is_intact(store, [])


def test_keys_expire_on_time_in_any_time_zone(store: Store, serve: Serve) -> None:
    zone = "Asia/Kathmandu"
    if isinstance(store, PostgresqlStore):
        store.server.sql(f"ALTER DATABASE {store.name} SET timezone = '{zone}'")
        assert store.sql("SHOW timezone") == [zone]
    instance = serve(store, TZ=zone)
    end = datetime.now(UTC) + timedelta(seconds=2)
    created = instance.create_key(expires_at=end.isoformat()).body
    assert datetime.fromisoformat(str(created["expires_at"])) == end
    answers = [instance.get(ME, str(created["api_key"]))]
    while answers[-1].status == 200:
        answers.append(instance.get(ME, str(created["api_key"])))
    *accepted, refused = answers
    assert refused.code == "api_key_expired"
    assert accepted
    assert accepted[-1].started < end.timestamp() <= refused.started + refused.seconds


def test_while_a_migration_is_pending_an_instance_is_not_ready_and_says_what_to_run(
    project: Path, sqlite_store: SqliteStore, serve: Serve, tmp_path: Path
) -> None:
    store = SqliteStore(tmp_path / "new.db")
    instance = serve(store)
    assert instance.get(LIVE).status == 200
    ready = instance.get(READY)
    assert ready.is_unavailable
    assert "alembic upgrade head" in str(ready.body["detail"])
    assert any(
        line["level"] == "error" and "alembic upgrade head" in str(line["message"]) for line in instance.logged()
    )
    run([f"{project}/.venv/bin/alembic", "upgrade", "head"], project, **environment(store))
    assert instance.get(READY).status == 200


def chunked(port: int, header: str, trailer: str) -> bytes:
    """The head of the response to a chunked request for the key's owner."""
    request = f"GET {ME} HTTP/1.1\r\nHost: a\r\n{header}Transfer-Encoding: chunked\r\n\r\n0\r\n{trailer}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(request.encode())
        return connection.recv(65_536).partition(b"\r\n\r\n")[0]


FORGED = "X-Forwarded-For: 10.1.1.1\r\n"


def behind_haproxy(instance: Instance, folder: Path, rule: str) -> HAProxy:
    if not shutil.which("haproxy"):
        pytest.skip("haproxy is not installed")
    return HAProxy(folder, instance.port, rule)


def test_behind_a_proxy_that_forwards_trailer_fields_they_are_not_headers(
    sqlite_store: SqliteStore, serve: Serve, tmp_path: Path
) -> None:
    instance = serve(sqlite_store, TRUSTED_PROXIES="127.0.0.1", FAILED_AUTH_LIMIT="5/hour")
    elsewhere = instance.create_key(allowed_cidrs=["10.0.0.0/8"]).body["api_key"]
    header = f"Authorization: Bearer {elsewhere}\r\n"
    assert f"`{PROXY_RULE}`" in OPERATIONS.read_text("utf-8")
    proxy = behind_haproxy(instance, tmp_path, PROXY_RULE)
    with proxy.running():
        assert b" 403 " in chunked(proxy.port, header, FORGED)
        assert b" 403 " in chunked(proxy.port, header + FORGED, "")
        assert b" 401 " in chunked(proxy.port, "", f"Authorization: Bearer {sqlite_store.key}\r\n")
        guess = "Authorization: Bearer guess\r\n"
        answers = [chunked(proxy.port, guess, FORGED.replace("1.1.1", f"1.1.{n}")) for n in range(7)]
        assert [answer.split()[1] for answer in answers] == [b"401"] * 5 + [b"429"] * 2


def test_a_proxy_that_adds_a_second_forwarded_address_is_noticed(
    sqlite_store: SqliteStore, serve: Serve, tmp_path: Path
) -> None:
    instance = serve(sqlite_store, TRUSTED_PROXIES="127.0.0.1")
    header = f"Authorization: Bearer {sqlite_store.key}\r\n"
    proxy = behind_haproxy(instance, tmp_path, "option forwardfor")
    with proxy.running():
        assert b" 200 " in chunked(proxy.port, header, "")
        assert b" 400 " in chunked(proxy.port, header + FORGED, "")


def test_gunicorn_ignores_trailer_fields(bake: Bake, sqlite_store: SqliteStore, tmp_path: Path) -> None:
    project = bake()
    lend_environment(project, next(iter(PYTHONS.values())), "gunicorn", "uvicorn-worker")
    port = free_port()
    command = [".venv/bin/python", "-m", "gunicorn", "--worker-class=uvicorn_worker.UvicornWorker", "app.main:app"]
    key = f"Authorization: Bearer {sqlite_store.key}\r\n"
    with running([*command, f"--bind=127.0.0.1:{port}"], project, environment(sqlite_store), tmp_path / "log", port):
        assert b" 200 " in chunked(port, key, "")
        assert b" 401 " in chunked(port, "", key)
