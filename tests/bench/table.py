"""What was measured, as text."""

import os
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from statistics import median

from tests.bench.load import CONNECTIONS
from tests.bench.measure import Figure, Pace, Row, Section, cpu, database_cpu, seconds

NAME = 39
HEADS = (
    ("", f"{'':{NAME}}{'':{NAME}}", "throughput", "CPU", "req/s", "CPU", "DB CPU", "p50", "p99", "memory"),
    ("", f"{'':{NAME}}{'against':{NAME}}", "×", "×", "", "µs", "µs", "ms", "ms", "MB"),
)


METHOD = """\
{0} connections; bursts of {1:.0f} ms by turns, up to {2} rounds. × is the median of the rounds' ratios to what
a line is against: more is better; ± is half the span of their middle half. CPU and DB CPU: of one request.
"""


def introduction(pace: Pace, versions: str) -> Iterator[str]:
    cores = len(os.sched_getaffinity(0))
    yield METHOD.format(CONNECTIONS, pace.burst * 1000, pace.rounds).strip()
    yield f"{datetime.now(UTC):%Y-%m-%d}; {cores} cores, {platform.machine()}, {platform.system()}; {versions}"


def heading() -> Iterator[str]:
    for _, names, *columns in HEADS:
        yield (names + _columns(*columns)).rstrip()


def lines(section: Section) -> Iterator[str]:
    yield ""
    yield section.title
    for row in section.rows:
        own = row.contestant
        against = "" if row.against is own else row.against.name
        yield f"{own.name:{NAME}}{against:{NAME}}" + _columns(
            _ratio(row, seconds),
            _ratio(row, cpu),
            f"{1 / own.typical(seconds):,.0f}",
            f"{own.typical(cpu) * 1e6:,.0f}",
            f"{own.typical(database_cpu) * 1e6:,.0f}" if own.typical(database_cpu) else "–",
            f"{own.latency(50) * 1000:,.1f}",
            f"{own.latency(99) * 1000:,.1f}",
            f"{own.megabytes:.0f}",
        )
    yield from section.notes


def _columns(throughput: str, cpu_ratio: str, *others: str) -> str:
    return f"{throughput:>13}{cpu_ratio:>13}" + "".join(f"{one:>9}" for one in others)


def _ratio(row: Row, figure: Figure) -> str:
    ratio, spread = row.ratio(figure)
    return f"{ratio:.2f} ±{spread:.2f}" if ratio >= 0.1 else f"{ratio:.4f}"


def ending(sections: Sequence[Section]) -> str:
    shares = [one.load_share for section in sections for row in section.rows for one in (row.contestant, row.against)]
    busiest = max((median(share) for share in shares), default=0)
    return f"The load generator was busy for {busiest:.0%} of its time at most."
