"""Real servers for tests to start, stop, freeze and kill: PostgreSQL, Redis, and instances of what was baked."""

import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from email.message import Message
from functools import partial
from itertools import count
from pathlib import Path
from threading import Event, Semaphore
from typing import Protocol, TypeVar
from uuid import uuid4

from tests.bakery import ROOT, run, user_environ
from tests.demo import PATIENCE

T = TypeVar("T")
README = ROOT / "{{cookiecutter.project_slug}}" / "README.md"
SERVE = re.compile(r"`uvicorn (app.main:app) --reload (.*?)`")
GRACE = 10  # seconds that an instance has to finish what it has begun
PEPPER = "1:gZ0b-3m1Qe7xU9fWc5sKt8yRj2vHnL4aPdXo6iTuEMk"


def until(condition: Callable[[], T], seconds: float = PATIENCE) -> T:
    """What the condition gives as soon as that is true; an AssertionError if it never becomes so."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return result


def port_of_its_own() -> int:
    """Below those that the system gives to clients: while a server is stopped, no connection takes its port."""
    for port in random.sample(range(10_000, 30_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


class Server:
    """A process and its children, with a log beside its folder."""

    command: list[str]
    folder: Path
    log: Path
    port: int
    environment: dict[str, str]
    user: str | None = None
    process: subprocess.Popen[bytes]

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def launch(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=self.user,
                group=self.user,
                extra_groups=() if self.user else None,
            )

    def start(self) -> None:
        self.launch()
        until(lambda: self.process.poll() is not None or self.answers())
        assert self.process.returncode is None, self.log.read_text()

    def send(self, number: signal.Signals) -> None:
        """To the process and all that it started, itself first, so that it starts no more."""
        for pid in family(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.send(signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # those that outlived it
        self.process.wait(PATIENCE)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send(signal.SIGCONT)

    @property
    def serving(self) -> list[int]:
        """The processes of uvicorn that serve; where there are several, two more watch over them."""
        first, *children = family(self.process.pid)
        spawned = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return spawned or [first]

    @contextmanager
    def frozen_but(self, pid: int) -> Iterator[None]:
        """Only this one of those that serve can answer."""
        others = [other for other in self.serving if other != pid]
        try:
            for other in others:
                os.kill(other, signal.SIGSTOP)
            yield
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self.stop(signal.SIGINT)
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def running(self) -> Iterator[None]:
        try:
            self.start()
            yield
        finally:
            self.kill()


def family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


class Redis(Server):
    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.port = folder, folder / "redis.log", port_of_its_own()
        self.environment = user_environ()
        self.command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", "."]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen proxy
    bind 127.0.0.1:{port}
    {rule}
    server app 127.0.0.1:{app}
"""


class HAProxy(Server):
    """A proxy that forwards trailer fields. `rule` says what becomes of X-Forwarded-For."""

    def __init__(self, folder: Path, app: int, rule: str) -> None:
        self.folder, self.log, self.port = folder, folder / "haproxy.log", port_of_its_own()
        self.environment = user_environ()
        (folder / "haproxy.cfg").write_text(HAPROXY.format(port=self.port, rule=rule, app=app))
        self.command = ["haproxy", "-f", "haproxy.cfg"]


def find_postgresql() -> Path | None:
    """The folder of initdb, postgres and psql."""
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    folders = sorted(versions, key=lambda path: int(path.parent.name.partition(".")[0]), reverse=True)
    if config := shutil.which("pg_config"):
        folders.append(Path(subprocess.check_output([config, "--bindir"], text=True).strip()))
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class PostgreSQL(Server):
    """A cluster that nothing else uses. It does not run as root; as root, it runs as the user `postgres`."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries, self.folder, self.log, self.port = binaries, folder, folder / "log", port_of_its_own()
        self.environment = user_environ() | {"LC_ALL": "C", "PGCONNECT_TIMEOUT": "5"}
        self.data = folder / "data"
        if os.geteuid() == 0:
            self.user = "postgres"
            shutil.chown(folder, "postgres", "postgres")
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        self.command = [f"{binaries}/initdb", *options, f"{self.data}"]
        self.launch()
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 200,
        }
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        self.command = [f"{binaries}/postgres", "-D", f"{self.data}", *arguments]

    def answers(self) -> bool:
        """Not before it has read its log: until then it refuses connections."""
        return (
            subprocess.run([*self.psql("postgres"), "-c", ""], capture_output=True, env=self.environment).returncode
            == 0
        )

    def psql(self, database: str) -> list[str]:
        options = ["-XAtq", "--set=ON_ERROR_STOP=1", "--host=127.0.0.1", f"--port={self.port}", "--username=postgres"]
        return [f"{self.binaries}/psql", *options, database]

    def sql(self, statement: str, database: str = "postgres") -> list[str]:
        return run([*self.psql(database), "-c", statement], self.folder, **self.environment).splitlines()

    @contextmanager
    def replicated(self, folder: Path) -> Iterator["PostgreSQL"]:
        """A streaming replica of the cluster."""
        replica = copy(self)
        replica.folder, replica.log, replica.port = folder, folder / "log", port_of_its_own()
        replica.data = folder / "data"
        source = ["--host=127.0.0.1", f"--port={self.port}", "--username=postgres"]
        options = ["--checkpoint=fast", "--no-sync", "--write-recovery-conf"]
        replica.command = [f"{self.binaries}/pg_basebackup", *source, *options, f"--pgdata={replica.data}"]
        if self.user:
            shutil.chown(folder, self.user, self.user)
        replica.launch()
        assert replica.process.wait(PATIENCE) == 0, replica.log.read_text()
        moved = {f"{self.data}": f"{replica.data}", f"--port={self.port}": f"--port={replica.port}"}
        replica.command = [moved.get(part, part) for part in self.command]
        with replica.running():
            yield replica


PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin") or ""
PGBOUNCER_CONFIG = """
[databases]
* = host=127.0.0.1 port={postgresql} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
max_client_conn = 500
{options}
"""


class PgBouncer(Server):
    """A pooler in transaction mode: each transaction of a client can get another connection."""

    def __init__(self, folder: Path, server: PostgreSQL, options: str) -> None:
        self.folder, self.log, self.port = folder, folder / "pgbouncer.log", port_of_its_own()
        self.environment, self.user = user_environ(), server.user
        if self.user:
            shutil.chown(folder, self.user, self.user)
        config = PGBOUNCER_CONFIG.format(postgresql=server.port, port=self.port, options=options)
        (folder / "pgbouncer.ini").write_text(config)
        self.command = [PGBOUNCER, "pgbouncer.ini"]


class Store(Protocol):
    """A database with an admin in it, and the admin's key."""

    url: str
    key: str

    def sql(self, statement: str) -> list[str]: ...

    def locked(self) -> AbstractContextManager[None]:
        """Nobody writes to user_api_keys meanwhile."""


class SqliteStore:
    def __init__(self, path: Path, key: str = "") -> None:
        self.path, self.url, self.key = path, f"sqlite:///{path}", key

    def copy(self, path: Path) -> "SqliteStore":
        with self.connected() as old, sqlite3.connect(path) as new:
            old.backup(new)
        new.close()
        return SqliteStore(path, self.key)

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()

    def sql(self, statement: str) -> list[str]:
        with self.connected() as connection:
            return ["|".join(map(str, row)) for row in connection.execute(statement)]

    @contextmanager
    def locked(self) -> Iterator[None]:
        with self.connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield


class PostgresqlStore:
    def __init__(self, server: PostgreSQL, name: str, key: str = "") -> None:
        self.server, self.name, self.key = server, name, key
        self.url = f"postgresql://postgres@127.0.0.1:{server.port}/{name}"

    @classmethod
    def create(cls, server: PostgreSQL, options: str = "", key: str = "") -> "PostgresqlStore":
        store = cls(server, f"test_{uuid4().hex}", key)
        server.sql(f"CREATE DATABASE {store.name} {options}")
        return store

    def copy(self, options: str = "") -> "PostgresqlStore":
        return self.create(self.server, f"TEMPLATE {self.name} {options}", self.key)

    def drop(self) -> None:
        self.server.sql(f"DROP DATABASE {self.name} WITH (FORCE)")

    def sql(self, statement: str) -> list[str]:
        return self.server.sql(statement, self.name)

    @contextmanager
    def holding(self, statement: str) -> Iterator[None]:
        """The locks of a statement, held by a connection of its own."""
        command, pipe = self.server.psql(self.name), subprocess.PIPE
        with subprocess.Popen(command, env=self.server.environment, stdin=pipe, stdout=pipe, text=True) as psql:
            assert psql.stdin
            assert psql.stdout
            print(f"BEGIN; {statement}; SELECT 'held';", file=psql.stdin, flush=True)
            assert "held\n" in psql.stdout
            yield

    def locked(self) -> AbstractContextManager[None]:
        return self.holding("LOCK TABLE user_api_keys IN EXCLUSIVE MODE")

    def end_connections(self) -> None:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        self.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")  # noqa: S608 - a constant


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: dict[str, object]
    started: float  # time.time()
    seconds: float

    @property
    def code(self) -> object:
        return self.body.get("code")

    @property
    def is_unavailable(self) -> bool:
        return (self.status, self.code, int(self.headers.get("Retry-After", "0")) > 0) == (503, "unavailable", True)


class Instance(Server):
    """What the README starts, but for --reload."""

    numbers = count()

    def __init__(self, project: Path, store: Store, *, workers: int = 1, **settings: object) -> None:
        found = SERVE.search(README.read_text("utf-8"))
        assert found, "README.md does not say how to start the app"
        self.folder, self.port = project, port_of_its_own()
        self.log = project.parent / f"instance-{next(self.numbers)}.log"
        self.store = store
        self.workers = workers
        options = f"--port {self.port} --workers {workers} --timeout-graceful-shutdown {GRACE}"
        self.command = [f"{project}/.venv/bin/uvicorn", *f"{found[1]} {found[2]} {options}".split()]
        self.environment = environment(store, **settings)

    def answers(self) -> bool:
        # With workers, the socket is open before one of them serves.
        try:
            served = self.get("/health/live").status == 200
        except (OSError, http.client.HTTPException):
            return False
        return served and self.log.read_text().count("Application startup complete") >= self.workers

    def get(self, path: str, key: str = "") -> Answer:
        return self.ask("GET", path, key=key)

    def ask(
        self, method: str, path: str, body: object = None, *, key: str = "", sent: Callable[[], object] = bool
    ) -> Answer:
        """On a connection of its own. `sent` is called when the request is out and its answer is not yet here."""
        started, began = time.time(), time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            headers = {"Authorization": f"Bearer {key or self.store.key}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            sent()
            response = connection.getresponse()
            content = response.read()
            seconds = time.monotonic() - began
            return Answer(response.status, response.headers, json.loads(content or "{}"), started, seconds)
        finally:
            connection.close()

    def create_key(self, name: str = "a key", **fields: object) -> Answer:
        return self.ask("POST", "/v1/api-keys", {"name": name, "scopes": [], **fields})

    def each_worker(self) -> Iterator[None]:
        """Goes round the workers: each time all but one are frozen, so that this one answers."""
        pids = self.serving
        assert len(pids) == self.workers
        for answering in pids:
            with self.frozen_but(answering):
                yield

    def in_flight(self, call: Callable[[Callable[[], object]], Answer], times: int) -> Sequence[Future[Answer]]:
        """Calls that have all reached a worker. Each is given what to call as soon as its request is sent."""
        sent = Semaphore(0)
        calls = begin(*[partial(call, sent.release)] * times)
        for _ in calls:
            assert sent.acquire(timeout=PATIENCE)
        for _ in self.each_worker():
            # Connections are accepted in order: when the last one is answered, the ones before are accepted.
            assert self.get("/health/live").status == 200
        return calls

    def is_over(self) -> bool:
        """Nothing is left of it but what nobody has asked how it ended."""
        states = subprocess.run(["ps", "-o", "stat=", "-s", f"{self.process.pid}"], capture_output=True, text=True)
        return all(state.startswith("Z") for state in states.stdout.split()) and not self.answers()

    def logged(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


def environment(store: Store, **settings: object) -> dict[str, str]:
    common = {"DATABASE_URL": store.url, "API_KEY_PEPPERS": PEPPER, "ENVIRONMENT": "production", "LOG_FORMAT": "json"}
    return user_environ() | common | {"RATE_LIMIT": ""} | {name: str(value) for name, value in settings.items()}


def at_once(*calls: Callable[[], T]) -> list[T]:
    return [future.result() for future in begin(*calls)]


def begin(*calls: Callable[[], T]) -> Sequence[Future[T]]:
    """The calls, each in a thread of its own."""
    with_threads = ThreadPoolExecutor(len(calls))
    futures = [with_threads.submit(call) for call in calls]
    with_threads.shutdown(wait=False)
    return futures


@contextmanager
def again_and_again(call: Callable[[], T], threads: int = 4) -> Iterator[list[T]]:
    """What the call gives, while threads repeat it until the block ends."""
    results: list[T] = []
    over = Event()

    def repeat() -> None:
        while not over.is_set():
            results.append(call())

    repeating = begin(*[repeat] * threads)
    try:
        yield results
    finally:
        over.set()
        for one in repeating:
            one.result()
