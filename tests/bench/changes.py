"""Hot keys while other keys change, and what the key cache costs a process that has nothing to do."""

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count, cycle
from statistics import median
from threading import Timer

from tests.bakery import run
from tests.bench.cases import GUARDED, ITEM, serve
from tests.bench.databases import Database
from tests.bench.load import Burst, Load, Request, WrongAnswer, connect
from tests.bench.measure import LONGEST_WARM_UP, Contestant, Pace, Row
from tests.bench.servers import Server, used
from tests.containers import ask

RATES = (0, 1, 4, 20)  # changes per second
HOT_KEYS = 500
OTHER_KEYS = 50
SETTLE = 4 * HOT_KEYS  # requests until each key has been looked up and the audit log has been read
FULL, QUICK = Pace(1, 20, 150, SETTLE), Pace(1, 3, 10, SETTLE)  # a burst has to contain a change
CONCURRENT = 500  # requests with one key
IDLE, QUICK_IDLE = 20.0, 2.0  # seconds
IMPORTS = 5
IMPORT = "import time, app.main; print(time.process_time())"
HELP = """
import atexit, runpy, sys, time
atexit.register(lambda: print(time.process_time()))
sys.argv = ["app", "--help"]
runpy.run_module("app", run_name="__main__")
"""


class Changing(Contestant):
    """Some keys are used while others change through the API, so many times per second."""

    def __init__(self, server: Server, database: Database, rate: int) -> None:
        even = database.keys["even"]
        request = Request(GUARDED, even[:HOT_KEYS], 200, ITEM)
        super().__init__(f"hot keys, {number(rate, 'change')}/s", server, request)
        self.rate = rate
        self.lookups = 0
        self._others = cycle(even[-OTHER_KEYS:])
        self._rate_limits = count(1)  # a different one each time, so that each request is a change
        self._headers = {
            "Authorization": f"Bearer {database.keys['admin']}",
            "Content-Type": "application/json",
        }

    def run(self, seconds: float) -> None:
        query = f"keys={HOT_KEYS}&changes_per_second={self.rate}"
        send(self.server, "POST", f"/bench/steady-state?{query}")
        self.burst(LONGEST_WARM_UP, SETTLE)
        before = lookups(self.server)
        super().run(seconds)
        self.lookups += lookups(self.server) - before

    def measured_burst(self, seconds: float) -> Burst:
        """Ends with the last change, because the CPU time of the changes counts."""
        changes = round(seconds * self.rate)
        started = time.monotonic()
        with ThreadPoolExecutor(changes or 1) as pool:
            moments = (started + (one + 0.5) / self.rate for one in range(changes))
            changing = [pool.submit(self._change, moment) for moment in moments]
            burst = self.burst(seconds)
            for one in changing:
                one.result()
        return burst

    def _change(self, moment: float) -> None:
        time.sleep(max(0, moment - time.monotonic()))
        key_id = next(self._others).split("_")[2]
        body = f'{{"rate_limit": "{next(self._rate_limits)}/day"}}'
        send(self.server, "PATCH", f"/v1/api-keys/{key_id}", body, self._headers)


def number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def send(
    server: Server,
    method: str,
    path: str,
    body: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> str:
    status, _, text = ask(server.port, path, method=method, body=body, headers=headers)
    if status != 200:
        raise WrongAnswer(f"{method} {path}: expected 200, and got {status}: {text}")
    return text


def lookups(server: Server) -> int:
    return int(send(server, "GET", "/bench/lookups"))


def rows(database: Database) -> list[Row]:
    server = serve(database)
    contestants = [Changing(server, database, rate) for rate in RATES]
    return [Row("changes", one, contestants[0]) for one in contestants]


def notes(database: Database, measured: Sequence[Row], seconds: float) -> Iterator[str]:
    """What is a number and not a ratio."""
    for row in measured:
        if isinstance(row.contestant, Changing):
            one = row.contestant
            yield f"{one.name}: {number(one.lookups, 'lookup')} for {len(one.latencies):,} requests"
    server = serve(database)
    with server.running():
        found = number(lookups_of_one_cold_key(server, database), "lookup")
        yield f"{CONCURRENT} concurrent requests with one key that is not cached: {found}"
        time.sleep(1)
        yield idle(server, seconds)
    yield cpu_of("import app.main", IMPORT, database)


def idle(server: Server, seconds: float) -> str:
    before = server.cpu()
    time.sleep(seconds)
    return f"idle worker: {used(before, server.cpu()) / seconds * 1000:.1f} ms of CPU per second"


def cpu_of(name: str, program: str, database: Database) -> str:
    """A program prints the CPU time that it has taken, in its last line."""
    command = [".venv/bin/python", "-c", program]
    outputs = [run(command, database.project, **database.environment()) for _ in range(IMPORTS)]
    return f"{name}: {median(float(output.split()[-1]) for output in outputs):.2f} s of CPU"


def lookups_of_one_cold_key(server: Server, database: Database) -> int:
    """The server is stopped until all requests are in its sockets."""
    before = lookups(server)
    with ExitStack() as stack:
        connections = [stack.enter_context(one) for one in connect(server.port, CONCURRENT)]
        load = Load(connections, Request(GUARDED, database.keys["even"][:1], 200, ITEM))
        server.send(signal.SIGSTOP)
        Timer(0.5, server.send, [signal.SIGCONT]).start()
        burst = load.burst(0)
    assert len(burst.latencies) == CONCURRENT
    return lookups(server) - before
