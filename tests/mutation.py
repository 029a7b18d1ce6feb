"""Proof that the generated project's tests reach every line and branch of it, and fail when it is broken in one way.

All mutants in `tests/mutants.py` must be killed, and 90 % of the random ones of `tests/mutator.py`. If one survives, a
test is missing, or the code is superfluous. Mutants that need PostgreSQL are left out unless TEST_DATABASE_URL names a
server.

    python -m tests.mutation cache rotate                 those listed whose description or file contains a word
    python -m tests.mutation --seed 20261126              the random ones of a day again
    python -m tests.mutation --only app/auth --number 50  random ones of some files
    python -m tests.mutation --number 0                   no random ones
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

from tests.bakery import ADDED_TESTS, BUILD, PLUGINS, PYTHONS, REPORTERS, bake, lend_environment, run, user_environ
from tests.equivalents import EQUIVALENTS
from tests.mutants import MUTANTS, Mutant
from tests.mutator import RandomMutant, all_mutants

FOLDER = BUILD / "mutation"
PATIENCE = 300  # seconds for the tests of one mutant
RANDOM_MUTANTS = 150
REQUIRED_SCORE = 0.9
FAILED = re.compile(r"^(?:FAILED|ERROR) tests/([^\s\[]+)", re.MULTILINE)
POSTGRESQL = os.environ.get("TEST_DATABASE_URL")
PYTHON = ".venv/bin/python"

# By file of app/, then by line: the tests that run it.
Contexts = dict[str, dict[str, list[str]]]
READ_CONTEXTS = """
import json
from coverage import CoverageData
data = CoverageData()
data.read()
print(json.dumps({file: data.contexts_by_lineno(file) for file in data.measured_files()}))
"""
LIST_LIBRARIES = """
import sys
import tests.conftest
own = ("app", "tests", "__main__")
print(*(name for name in sys.modules if name.split(".")[0] not in own))
"""

MutantT = TypeVar("MutantT", Mutant, RandomMutant)
Servers = SimpleQueue["subprocess.Popen[str]"]


class Result(NamedTuple):
    exit_code: int
    output: str

    @property
    def killed_by(self) -> str | None:
        failed = FAILED.search(self.output)
        return failed[1] if failed else None


class Verdict(NamedTuple):
    killed_by: str | None
    seconds: float


def main() -> None:
    started = time.monotonic()
    options = parse_options()
    if not POSTGRESQL and "SKIP_NOTHING" in os.environ:
        sys.exit("Set TEST_DATABASE_URL: some mutants need PostgreSQL.")
    shutil.rmtree(FOLDER, ignore_errors=True)
    project = bake(FOLDER, "database=sqlite")
    lend_environment(project, next(iter(PYTHONS.values())), *REPORTERS)
    is_good = True
    for name in {mutant.tests for mutant in MUTANTS}:
        if (ADDED_TESTS / name).exists():
            shutil.copy(ADDED_TESTS / name, project / "tests")
    contexts = {} if options.words else measure(project)
    with pytest_servers(project) as servers:
        if not options.random_only:
            is_good = try_listed(project, servers, options.words)
        if options.number and not options.words:
            is_good = try_random(project, servers, contexts, options) and is_good
    print(f"{time.monotonic() - started:.0f} s in all")
    sys.exit(not is_good)


def parse_options() -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--only", action="append", metavar="PATH")
    parser.add_argument("--number", type=int, default=RANDOM_MUTANTS)
    options = parser.parse_args()
    options.random_only = bool(options.seed or options.only)
    options.seed = options.seed or int(datetime.now(UTC).strftime("%Y%m%d"))
    return options


def measure(project: Path) -> Contexts:
    """Run the tests of the unbroken project, and return which of them run which line."""
    run([PYTHON, "-m", "pytest", "-n", "auto", "--dist", "worksteal", "--cov", "--cov-context=test"], project)
    print("Unbroken, it passes its tests, and they reach all of it.", flush=True)
    contexts: Contexts = json.loads(run([PYTHON, "-c", READ_CONTEXTS], project))
    return {Path(file).relative_to(project.resolve()).as_posix(): lines for file, lines in contexts.items()}


@contextmanager
def pytest_servers(project: Path) -> Iterator[Servers]:
    """One for each processor."""
    libraries = run([PYTHON, "-c", LIST_LIBRARIES], project)
    command = [project / PYTHON, PLUGINS / "pytest_server.py"]
    servers: Servers = SimpleQueue()
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(command, env=user_environ(), stdin=pipe, stdout=pipe, text=True)
        for _ in range(os.cpu_count() or 1)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.write(libraries)
        servers.put(process)
    yield servers
    for process in processes:
        process.communicate(timeout=PATIENCE)


def try_listed(project: Path, servers: Servers, words: list[str]) -> bool:
    chosen = [mutant for mutant in MUTANTS if POSTGRESQL or not mutant.on_postgresql]
    if words:
        chosen = [mutant for mutant in chosen if any(word in f"{mutant.file} {mutant.what}" for word in words)]
    print(f"Now {len(chosen)} projects, each with one of these mutations. A project that …", flush=True)
    width = max((len(mutant.what) for mutant in chosen), default=0)
    started = time.monotonic()
    killed = 0
    for mutant, verdict in judge_all(chosen, partial(judge_listed, project, servers)):
        killed += verdict.killed_by is not None
        print(f"{mutant.what:{width}} {verdict.seconds:5.1f} s  {verdict.killed_by or 'SURVIVED'}", flush=True)
    print(f"{len(chosen)} mutants, {killed} killed in {time.monotonic() - started:.0f} s")
    if left_out := len(MUTANTS) - len(chosen):
        print(f"{left_out} mutants were left out.")
    return killed == len(chosen)


def try_random(project: Path, servers: Servers, contexts: Contexts, options: Namespace) -> bool:
    mutants = mutants_to_draw(project, options.only or ["app/"])
    generator = random.Random(options.seed)  # noqa: S311 (it has to be repeatable)
    chosen = generator.sample(mutants, min(options.number, len(mutants)))
    print(f"Now {len(chosen)} of {len(mutants)} random mutants. To repeat them: --seed {options.seed}", flush=True)
    started = time.monotonic()
    drawn: Counter[str] = Counter()
    killed: Counter[str] = Counter()
    for mutant, verdict in judge_all(chosen, partial(judge_random, project, servers, contexts)):
        package = "/".join(mutant.file.split("/")[:2])
        drawn[package] += 1
        killed[package] += verdict.killed_by is not None
        if verdict.killed_by is None:
            print(f"SURVIVED after {verdict.seconds:.1f} s: {mutant.file} {mutant.diff}", flush=True)
    for package, number in sorted(drawn.items()):
        print(f"{package:20} {killed[package]:3} of {number:3} killed: {killed[package] / number:4.0%}")
    score = killed.total() / drawn.total()
    seconds = time.monotonic() - started
    print(f"{drawn.total()} random mutants, {killed.total()} killed in {seconds:.0f} s: {score:.1%}", flush=True)
    return score >= REQUIRED_SCORE


def mutants_to_draw(project: Path, paths: list[str]) -> list[RandomMutant]:
    mutants = all_mutants(project)
    equivalents = {(file, f"-{old}\n+{new}") for file, old, new in EQUIVALENTS}
    drawn = [mutant for mutant in mutants if (mutant.file, mutant.change) not in equivalents]
    return [mutant for mutant in drawn if any(mutant.file.startswith(path) for path in paths)]


def judge_all(mutants: list[MutantT], judge: Callable[[MutantT], Verdict]) -> Iterable[tuple[MutantT, Verdict]]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from zip(mutants, pool.map(judge, mutants), strict=True)


def judge_listed(project: Path, servers: Servers, mutant: Mutant) -> Verdict:
    started = time.monotonic()
    text = (project / mutant.file).read_text("utf-8").replace(mutant.old, mutant.new)
    with copied(project, mutant.file, text) as copy:
        result = run_tests(copy, servers, f"tests/{mutant.tests}", on_postgresql=mutant.on_postgresql)
    if result.exit_code not in {0, 1} or (result.exit_code == 1) is (result.killed_by is None):
        sys.exit(f"A project that {mutant.what} cannot be tested, pytest exited with {result}")
    return Verdict(result.killed_by, time.monotonic() - started)


def judge_random(project: Path, servers: Servers, contexts: Contexts, mutant: RandomMutant) -> Verdict:
    """All tests on SQLite, then those that run the mutated file on PostgreSQL, for which some code is separate.

    A mutant is also killed if the app cannot be imported, or if the tests take too long.
    """
    started = time.monotonic()
    nearest = ["-p", "nearest_first", "--timeout=20"]
    with copied(project, mutant.file, mutant.text) as copy:
        (copy / "nearest.json").write_text(json.dumps(nearest_tests(contexts, mutant)), "utf-8")
        result = run_tests(copy, servers, *nearest, on_postgresql=False)
        if result.exit_code == 0 and POSTGRESQL:
            result = run_tests(copy, servers, *nearest, "--only-nearest", on_postgresql=True)
    killed_by = None if result.exit_code == 0 else result.killed_by or f"exit code {result.exit_code}"
    return Verdict(killed_by, time.monotonic() - started)


def nearest_tests(contexts: Contexts, mutant: RandomMutant) -> list[list[str]]:
    """The tests that run the mutated lines, and those that run the file."""
    lines = contexts.get(mutant.file, {})
    in_lines = {test for line in mutant.lines for test in lines.get(str(line), ())}
    in_file = {test for tests in lines.values() for test in tests}
    return [sorted({test.rpartition("|")[0] for test in tests if test}) for tests in (in_lines, in_file)]


@contextmanager
def copied(project: Path, file: str, text: str) -> Iterator[Path]:
    """A copy of the project with one changed file.

    It includes compiled files, to save time. That of the changed file is not used: it has another date.
    """
    with TemporaryDirectory(dir=FOLDER) as folder:
        ignored = shutil.ignore_patterns(".mypy_cache", ".coverage")
        copy = shutil.copytree(project, Path(folder, "project"), symlinks=True, ignore=ignored)
        (copy / file).write_text(text, "utf-8")
        yield copy


def run_tests(copy: Path, servers: Servers, *options: str, on_postgresql: bool) -> Result:
    output = copy.with_suffix(".output")
    # The tests write beside the copy, so that it is removed with the copy.
    arguments = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={copy}.tmp", *options]
    variables = {"TEST_DATABASE_URL": POSTGRESQL} if on_postgresql else {}
    job = {"folder": str(copy), "arguments": arguments, "variables": variables, "output": str(output)}
    server = servers.get()
    assert server.stdin
    assert server.stdout
    print(json.dumps(job | {"timeout": PATIENCE}), file=server.stdin, flush=True)
    exit_code = int(server.stdout.readline())
    servers.put(server)
    return Result(exit_code, output.read_text("utf-8", errors="replace"))


if __name__ == "__main__":
    main()
