"""What authenticating a request costs: a generated project on real servers, against itself without authentication.

No time is asserted. Nothing is printed unless every single response was the expected one.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.bakery import BUILD, PYTHONS, bake, lend_environment, run
from tests.bench import cases, changes, scale, table
from tests.bench.databases import Database
from tests.bench.load import WrongAnswer
from tests.bench.measure import FULL, QUICK, Pace, Row, Section, measure
from tests.bench.peers import APPS, PEERS
from tests.bench.peers import row as peer_row
from tests.bench.servers import CORES, LOAD_CORE, on_cores

PEER_LIMIT = 20  # seconds; at 10 s a round of bcrypt
LONGEST_NOTE = 300  # characters
SIZES, QUICK_SIZES = [1_000, 100_000, 1_000_000], [500, 5_000]
USED, QUICK_USED = 100_000, 1_000  # keys
LARGE, QUICK_LARGE = 1_000_000, 1_000  # users, and as many keys
PACKAGES = ("fastapi", "starlette", "pydantic", "sqlalchemy", "psycopg", "aiosqlite", "uvicorn", "uvloop", "httptools")
VERSIONS = """
import importlib.metadata, platform, sys
versions = [f"{package} {importlib.metadata.version(package)}" for package in sys.argv[1:]]
print(", ".join([f"Python {platform.python_version()}", *versions]))
"""


class Bench(NamedTuple):
    project: Path
    pace: Pace
    only: list[str]
    python: str
    databases: list[str]
    used: int
    sizes: list[int]
    large: int

    def wants(self, *names: str) -> bool:
        return not self.only or not set(names).isdisjoint(self.only)

    def measured(self, title: str, rows: Iterable[Row]) -> Section:
        chosen = [row for row in rows if self.wants(row.case)]
        servers = dict.fromkeys(one.server for row in chosen for one in (row.contestant, row.against))
        tell(title)
        with ExitStack() as stack:
            for server in servers:
                stack.enter_context(server.running())
            measure(chosen, self.pace)
        return Section(title, chosen)

    def peers(self) -> Section:
        """One after the other. That one of them can't be installed, or answers wrongly, is a note."""
        rows: list[Row] = []
        notes: list[str] = []
        slowly = self._replace(pace=self.pace._replace(limit=PEER_LIMIT))
        for peer in PEERS:
            try:
                row = peer_row(peer, self.project.parent / peer.module, self.python)
                rows += slowly.measured(peer.title, [row]).rows
            except AssertionError as error:
                notes.append(f"{peer.title}: skipped, because it could not be started: {str(error).splitlines()[-1]}")
            except WrongAnswer as wrong:
                notes.append(f"{peer.title}: no figures: {' '.join(str(wrong).split())[:LONGEST_NOTE]}")
        return Section("Others, each against its own endpoint without authentication", rows, notes)

    def sections(self) -> Iterator[Section]:
        for server in self.databases:
            with ExitStack() as stack:
                databases: dict[int, Database] = {}
                for size in sorted(self.wanted_sizes()):
                    tell(f"{'PostgreSQL' if server else 'SQLite'} gets {size:,} keys")
                    databases[size] = stack.enter_context(Database(self.project, server, size).ready())
                if self.used in databases:
                    yield from self.with_database(databases[self.used])
                if self.wants("keys"):
                    yield self.sizes_compared([databases[size] for size in self.sizes])
            if "scale" in self.only:
                yield self.scale(server)
        if self.wants("peers"):
            yield self.peers()

    def scale(self, server: str) -> Section:
        tell(f"{'PostgreSQL' if server else 'SQLite'} gets {self.large:,} users")
        with Database(self.project, server, scale.SEEDED).ready() as database:
            scale.fill(database, self.large)
            tell("jobs on the large tables")
            return scale.Scale(database, self.large, 2.0 if self.pace is QUICK else 20.0).section()

    def wanted_sizes(self) -> set[int]:
        used = {self.used} if self.wants(*cases.USUAL, "asked", "changes", "workers") else set()
        return used | set(self.sizes if self.wants("keys") else [])

    def with_database(self, database: Database) -> Iterator[Section]:
        title = f"{database.title}, {database.size:,} keys in the table"
        if self.wants(*cases.USUAL):
            yield self.measured(title, cases.usual(database))
        if self.wants("asked"):
            yield self.measured(f"{title}, API_KEY_CACHE_SECONDS=0", cases.asked(database))
        if self.wants("changes"):
            yield self.while_keys_change(f"{title}, {changes.HOT_KEYS} hot keys while others change", database)
        if self.wants("workers"):
            yield self.measured(f"{title}, workers", cases.workers(database))

    def while_keys_change(self, title: str, database: Database) -> Section:
        pace, idle = (changes.QUICK, changes.QUICK_IDLE) if self.pace is QUICK else (changes.FULL, changes.IDLE)
        section = self._replace(pace=pace).measured(title, changes.rows(database))
        return section._replace(notes=[*changes.notes(database, section.rows, idle)])

    def sizes_compared(self, databases: Sequence[Database]) -> Section:
        title = f"{databases[0].title}, tables of different sizes, API_KEY_CACHE_SECONDS=0"
        return self.measured(title, cases.sizes(databases))


def tell(title: str) -> None:
    print(f"{title} …", file=sys.stderr, flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small tables and few rounds: only checks that it works")
    parser.add_argument("--only", nargs="+", choices=cases.ALL, default=[], metavar="CASE", help=", ".join(cases.ALL))
    parser.add_argument("--keys", nargs="+", type=int, metavar="N", help="how many keys the tables of `keys` hold")
    parser.add_argument(
        "--size", type=int, metavar="N", help="how many users `scale` adds, which only runs with --only"
    )
    parser.add_argument("--database", default=os.environ.get("TEST_DATABASE_URL"), metavar="URL", help="of PostgreSQL")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    if len(CORES) == 1:
        sys.exit("This takes two cores: one for the server, one for the load.")
    BUILD.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=BUILD, prefix="bench-") as folder, on_cores(LOAD_CORE):
        project = bake(Path(folder, "baked"))
        python = [*PYTHONS.values()][-1]
        lend_environment(project, python)
        shutil.copytree(APPS, project, dirs_exist_ok=True)
        bench = Bench(
            project,
            pace=QUICK if options.quick else FULL,
            only=options.only,
            python=python,
            databases=["", *filter(None, [options.database])],
            used=QUICK_USED if options.quick else USED,
            sizes=options.keys or (QUICK_SIZES if options.quick else SIZES),
            large=options.size or (QUICK_LARGE if options.quick else LARGE),
        )
        try:
            sections = list(bench.sections())
        except WrongAnswer as wrong:
            sys.exit(f"No figures, because of a wrong answer. {wrong}")
        versions = run([".venv/bin/python", "-c", VERSIONS, *PACKAGES], project).strip()
    print("\n".join([*table.introduction(bench.pace, versions), "", *table.heading()]))
    for section in sections:
        print("\n".join(table.lines(section)))
    print(f"\n{table.ending(sections)}")


if __name__ == "__main__":
    main()
