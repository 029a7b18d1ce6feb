"""Contestants take turns, burst by burst, so that whatever else the machine does hits all of them alike."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from operator import attrgetter
from statistics import median, quantiles
from typing import NamedTuple, TypeAlias

from tests.bench.load import Burst, Load, Request, WrongAnswer
from tests.bench.servers import Server, used


class Pace(NamedTuple):
    """How long a burst takes, how many rounds there are, and after how many seconds no further round begins."""

    burst: float
    rounds: int
    limit: float
    warm_up: int  # requests


FULL = Pace(0.15, 20, 60, 1000)
QUICK = Pace(0.05, 3, 5, 100)
FEWEST_ROUNDS = 3
LONGEST_WARM_UP = 600  # seconds


@dataclass(frozen=True)
class Sample:
    """What one burst came to, a request."""

    seconds: float
    cpu: float
    database_cpu: float


Figure: TypeAlias = Callable[[Sample], float]
seconds, cpu, database_cpu = attrgetter("seconds"), attrgetter("cpu"), attrgetter("database_cpu")


@dataclass(eq=False)
class Contestant:
    name: str
    server: Server
    request: Request
    warm_up: int = 0  # requests, if it takes more than usual
    samples: list[Sample] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    load_share: list[float] = field(default_factory=list)  # of its core, that the load generator used
    megabytes: float = 0

    def prepare(self, pace: Pace) -> None:
        self.load = Load(self.server.connections[:1], self.request)
        self.burst(0)  # one request alone: if there is a cache, the rest find it filled
        self.load = Load(self.server.connections, self.request)
        self.burst(LONGEST_WARM_UP, max(self.warm_up, pace.warm_up))

    def burst(self, seconds: float, most: int = 10**9) -> Burst:
        try:
            return self.load.burst(seconds, most)
        except WrongAnswer as wrong:
            raise WrongAnswer(f"{self.name}: {wrong}") from None

    def measured_burst(self, seconds: float) -> Burst:
        return self.burst(seconds)

    def run(self, seconds: float) -> None:
        before, database_before, own_before = self.server.cpu(), self.server.database_cpu(), time.thread_time()
        burst = self.measured_burst(seconds)
        own_after, after, database_after = time.thread_time(), self.server.cpu(), self.server.database_cpu()
        requests = len(burst.latencies)
        figures = burst.seconds, used(before, after), used(database_before, database_after)
        self.samples.append(Sample(*(figure / requests for figure in figures)))
        self.load_share.append((own_after - own_before) / burst.seconds)
        self.latencies += burst.latencies
        self.megabytes = self.server.megabytes()

    def typical(self, figure: Figure) -> float:
        return median(map(figure, self.samples))

    def latency(self, percent: int) -> float:
        return quantiles(self.latencies, n=100)[percent - 1]


class Row(NamedTuple):
    """A line of the table: one contestant, as compared with another one in the same rounds."""

    case: str
    contestant: Contestant
    against: Contestant

    def ratio(self, figure: Figure) -> tuple[float, float]:
        """How many times less it takes than the other: the median of the rounds, and half of what half of them span."""
        pairs = zip(self.contestant.samples, self.against.samples, strict=True)
        ratios = [figure(other) / figure(own) for own, other in pairs]
        low, _, high = quantiles(ratios)
        return median(ratios), (high - low) / 2


class Section(NamedTuple):
    title: str
    rows: Sequence[Row]
    notes: Sequence[str] = ()


def measure(rows: Sequence[Row], pace: Pace) -> None:
    contestants = list(dict.fromkeys(one for row in rows for one in (row.against, row.contestant)))
    for contestant in contestants:
        contestant.prepare(pace)
    started = time.monotonic()
    for number in count():
        is_late = time.monotonic() - started > pace.limit and number >= FEWEST_ROUNDS
        if number == pace.rounds or is_late:
            return
        for contestant in contestants if number % 2 else contestants[::-1]:
            contestant.run(pace.burst)
