"""Servers that are measured: each with its cores, its connections, and what it has used of CPU and memory."""

import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests import servers
from tests.bench.load import CONNECTIONS, connect
from tests.servers import port_of_its_own

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
SERVES = b"Application startup complete"


@contextmanager
def on_cores(*cores: int) -> Iterator[None]:
    """Only on these, for this process and what it starts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Server(servers.Server):
    """An ASGI app on uvicorn: one worker on one core, or several on all."""

    def __init__(
        self, folder: Path, app: str, environment: Mapping[str, str], *, workers: int = 1, database: str = ""
    ) -> None:
        self.folder, self.port, self.workers = folder, port_of_its_own(), workers
        self.log = folder.parent / f"server-{self.port}.log"
        # --timeout-keep-alive: connections stay while others are measured.
        options = f"--no-access-log --timeout-keep-alive 3600 --port {self.port} --workers {workers}"
        self.command = [f"{folder}/.venv/bin/uvicorn", *app.split(), *options.split()]
        self.environment = {**environment, "PYTHONHASHSEED": "0"}
        self._database = database
        self.connections: list[socket.socket] = []

    def launch(self) -> None:
        with on_cores(*(CORES if self.workers > 1 else [SERVER_CORE])):
            super().launch()

    def answers(self) -> bool:
        return self.log.read_bytes().count(SERVES) >= self.workers and super().answers()

    def start(self) -> None:
        super().start()
        for pid in self.serving:
            # Whoever is first takes them all: while the others are frozen, each worker is.
            with self.frozen_but(pid):
                self.connections += connect(self.port, CONNECTIONS // self.workers)
                time.sleep(0.2)

    def kill(self) -> None:
        for connection in self.connections:
            connection.close()
        super().kill()

    def cpu(self) -> dict[int, float]:
        return cpu_seconds(self.serving)

    def database_cpu(self) -> dict[int, float]:
        """Of the PostgreSQL processes that work for it; none if they are on another machine, or it has SQLite."""
        return cpu_seconds(backends(self._database)) if self._database else {}

    def megabytes(self) -> float:
        """Resident memory."""
        statuses = "".join(Path(f"/proc/{pid}/status").read_text() for pid in self.serving)
        return sum(map(int, re.findall(r"VmRSS:\s+(\d+) kB", statuses))) / 1024


def cpu_seconds(pids: Sequence[int]) -> dict[int, float]:
    """By process, to the microsecond: the clock that clock_getcpuclockid(3) names. /proc/<pid>/stat counts in 10 ms."""
    seconds = {}
    for pid in pids:
        with suppress(OSError):  # it has ended
            seconds[pid] = time.clock_gettime((~pid << 3) | 2)
    return seconds


def used(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def backends(database: str) -> list[int]:
    """PostgreSQL names each process for the database that it serves."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = file.read_bytes().split()
            if words[:1] == [b"postgres:"] and database.encode() in words:
                found.append(int(file.parent.name))
    return found
