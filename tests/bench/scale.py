"""What grows with the tables: jobs on a large database, while a key is changed through the API again and again."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from statistics import median
from threading import Event, Thread

from tests.bakery import run
from tests.bench import changes
from tests.bench.databases import Database
from tests.bench.load import WrongAnswer
from tests.bench.measure import Section
from tests.bench.servers import Server, used
from tests.containers import ask

SEEDED = 1000  # keys that can be used
SLOW_REQUESTS = 64
MAX_COUNTERS = 100_000  # which the app keeps
REPEATS = 5
LONGEST_JOB = 3600  # seconds
LISTS = {
    "first page of all keys": "/v1/api-keys",
    "first page of a user with many keys": "/v1/api-keys?user_id={user}",
    "q, nothing matches": "/v1/api-keys?q=nothing+has+this+name",
    "q, nothing of a user with many keys matches": "/v1/api-keys?user_id={user}&q=nothing+has+this+name",
    "expires_before, nothing matches": "/v1/api-keys?expires_before=2000-01-01T00:00:00Z",
    "unused_since, nothing matches": "/v1/api-keys?unused_since=2000-01-01T00:00:00Z",
    "users, q, nothing matches": "/v1/users?q=nothing+has+this+name",
}


class Writer:
    """Changes one key after the other of those that no job changes, and notes how long each change takes."""

    def __init__(self, scale: "Scale") -> None:
        self._scale = scale
        self._stopping = Event()
        self._thread = Thread(target=self._run)
        self.seconds: list[float] = []
        self.failures: list[int] = []
        self.megabytes = 0.0

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        for number in count(1):
            started = time.perf_counter()
            change = {"rate_limit": f"{number}/day"}
            status, _ = self._scale.send("PATCH", self._scale.changed, change, self._scale.writer_headers)
            self.seconds.append(time.perf_counter() - started)
            if status != 200:
                self.failures.append(status)
            self.megabytes = max(self.megabytes, self._scale.server.megabytes())
            if self._stopping.wait(0.02):
                return


class Scale:
    def __init__(self, database: Database, size: int, seconds: float) -> None:
        self.database, self.size, self.seconds = database, size, seconds
        self.headers = {"Authorization": f"Bearer {database.keys['admin']}", "Content-Type": "application/json"}
        self.environment = database.environment(REQUEST_TIMEOUT_SECONDS=f"{LONGEST_JOB}", LOG_LEVEL="warning")
        self.server = self._serve("bench_scale:app")
        even = database.keys["even"]
        self.changed = f"/v1/api-keys/{key_id(even[-1])}"

    def _serve(self, app: str) -> Server:
        name = self.database.name if self.database.title == "PostgreSQL" else ""
        return Server(self.database.project, f"{app} --no-proxy-headers", self.environment, database=name)

    def send(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        text = None if body is None else json.dumps(body)
        headers = headers or self.headers
        status, _, answer = ask(self.server.port, path, method=method, body=text, headers=headers, timeout=LONGEST_JOB)
        return status, answer

    def expect(self, method: str, path: str, body: object = None) -> str:
        status, answer = self.send(method, path, body)
        if status not in {200, 201}:
            raise WrongAnswer(f"{method} {path}: expected 200, and got {status}: {answer}")
        return answer

    def section(self) -> Section:
        title = f"{self.database.title}, {self.size:,} users and keys, {10 * self.size:,} hours of usage, "
        return Section(f"{title}{5 * self.size:,} events", [], [*self.lines()])

    def lines(self) -> Iterator[str]:
        bare = self._serve("app.main:app")
        with bare.running():
            time.sleep(1)
            yield changes.idle(bare, self.seconds)
        yield changes.cpu_of("import app.main", changes.IMPORT, self.database)
        yield changes.cpu_of("python -m app --help", changes.HELP, self.database)
        with self.server.running():
            key = json.loads(self.expect("GET", f"/v1/api-keys/{key_id(self.database.keys['even'][0])}"))
            self.user = key["user_id"]
            self.writer_headers = self.headers | {"Authorization": f"Bearer {self.another_admin()}"}
            yield from self.lists()
            yield self.last_admin()
            with Writer(self) as alone:
                time.sleep(self.seconds)
            self.alone = median(alone.seconds)
            longest = milliseconds(max(alone.seconds))
            yield f"changes of a key, nothing else: {milliseconds(self.alone)} each, at most {longest}"
            yield self.command_line()
            yield self.readiness()
            counters = min(self.size, MAX_COUNTERS)
            yield self.job(f"flush of {counters:,} counters", "POST", f"/bench/flush?counters={counters}")
            yield self.job("purge", "POST", "/bench/purge")
            yield self.job("revoke all keys of a user", "DELETE", f"/v1/users/{self.user}/api-keys")

    def lists(self) -> Iterator[str]:
        for name, path in LISTS.items():
            yield f"list, {name}: {milliseconds(self.typical('GET', path.format(user=self.user)))}"

    def typical(self, method: str, path: str, *bodies: object) -> float:
        taken = []
        for body in (bodies or (None,)) * REPEATS:
            started = time.perf_counter()
            self.expect(method, path, body)
            taken.append(time.perf_counter() - started)
        return median(taken)

    def last_admin(self) -> str:
        taken = self.typical("PATCH", f"/v1/users/{self.user}", {"is_active": False}, {"is_active": True})
        return f"last-admin check, in a change of a user: {milliseconds(taken)}"

    def another_admin(self) -> str:
        """The key of a user whose row no job locks."""
        admin = self.expect("POST", "/v1/users", {"email": "another@example.com", "is_admin": True})
        key = {"name": "writer", "scopes": ["admin", "api_keys:write"], "user_id": json.loads(admin)["id"]}
        return str(json.loads(self.expect("POST", "/v1/api-keys", key))["api_key"])

    def command_line(self) -> str:
        """What the command took is in the line, too: the memory is that of the process at its largest."""
        command = [".venv/bin/python", "-m", "app", "keys", "list"]
        project = self.database.project
        with Writer(self) as writer, Path(os.devnull).open("wb") as nothing:
            started = time.perf_counter()
            process = subprocess.Popen(command, cwd=project, env=self.environment, stdout=nothing)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            taken = time.perf_counter() - started
        if process.returncode:
            raise WrongAnswer(f"keys list ended with {process.returncode}")
        memory = f"{usage.ru_utime + usage.ru_stime:.1f} s of CPU, {usage.ru_maxrss / 1024:.0f} MB"
        return f"keys list: {taken:.1f} s, {memory}, {self.others(writer)}"

    def readiness(self) -> str:
        with ThreadPoolExecutor(SLOW_REQUESTS) as pool:
            slow = [pool.submit(self.send, "GET", "/bench/slow") for _ in range(SLOW_REQUESTS)]
            time.sleep(0.5)
            ready = [self.send("GET", "/health/ready")[0] for _ in range(REPEATS)]
            served = [one.result()[0] for one in slow].count(200)
        counted = f"{ready.count(200)} of {REPEATS} responses are 200"
        return f"/health/ready during {SLOW_REQUESTS} slow requests ({served} of them served): {counted}"

    def job(self, name: str, method: str, path: str) -> str:
        before = self.server.megabytes()
        cpu, database_cpu = self.server.cpu(), self.server.database_cpu()
        self.expect("GET", "/bench/stall")
        with Writer(self) as writer:
            started = time.perf_counter()
            status, answer = self.send(method, path)
            taken = time.perf_counter() - started
        own, of_database = used(cpu, self.server.cpu()), used(database_cpu, self.server.database_cpu())
        stall = json.loads(self.expect("GET", "/bench/stall"))
        stalls = f"longest stall {milliseconds(stall['seconds'])} (CPU {milliseconds(stall['cpu'])})"
        done = f"{name}: {status} {answer} in {taken:.1f} s, CPU {own:.1f} s (database {of_database:.1f} s)"
        return f"{done}, {stalls}, {writer.megabytes - before:+.0f} MB, {self.others(writer)}"

    def others(self, writer: Writer) -> str:
        ratio = median(writer.seconds) / self.alone
        failed = f", {len(writer.failures)} failed" if writer.failures else ""
        return f"other changes × {ratio:.1f}, at most {milliseconds(max(writer.seconds))}{failed}"


def key_id(key: str) -> str:
    return key.split("_")[2]


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def fill(database: Database, size: int) -> None:
    command = [".venv/bin/python", "bench_fill.py", str(size), key_id(database.keys["even"][0])]
    run(command, database.project, **database.environment())
