"""Proof that the generated project's tests reach every line and branch of it, and fail when it is broken in one way.

The ways are listed in `tests/mutants.py`. If a mutant survives, a test is missing. Those that need PostgreSQL are left
out unless TEST_DATABASE_URL names a server. `python -m tests.bite cache rotate` tries only mutants whose description or
file contains one of the words.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.bakery import BUILD, PYTHONS, bake, lend_environment, run, user_environ
from tests.mutants import MUTANTS, Mutant

BITE = BUILD / "bite"
PATIENCE = 300  # seconds for the tests of one mutant
FAILED = re.compile(r"^(?:FAILED|ERROR) tests/([^\s\[]+)", re.MULTILINE)
POSTGRESQL = os.environ.get("TEST_DATABASE_URL")


class Verdict(NamedTuple):
    killed_by: str | None
    seconds: float


def main() -> None:
    started = time.monotonic()
    if not POSTGRESQL and "SKIP_NOTHING" in os.environ:
        sys.exit("Set TEST_DATABASE_URL: some mutants need PostgreSQL.")
    chosen = [mutant for mutant in MUTANTS if POSTGRESQL or not mutant.on_postgresql]
    if words := sys.argv[1:]:
        chosen = [mutant for mutant in chosen if any(word in f"{mutant.file} {mutant.what}" for word in words)]
    shutil.rmtree(BITE, ignore_errors=True)
    project = bake(BITE, "database=sqlite")
    lend_environment(project, next(iter(PYTHONS.values())))
    if stale := [mutant for mutant in MUTANTS if (project / mutant.file).read_text("utf-8").count(mutant.old) != 1]:
        lines = (f"- {mutant.file}, for the one that {mutant.what}:\n{mutant.old}" for mutant in stale)
        sys.exit("\n".join(["These mutants need a text that is in their file exactly once:", *lines]))
    if not words:
        run(["make", "coverage"], project)
        print("Unbroken, it passes its tests, and they reach all of it.")
    print(f"Now {len(chosen)} projects, each with one of these mutations. A project that …", flush=True)

    width = max((len(mutant.what) for mutant in chosen), default=0)
    killed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, verdict in zip(chosen, pool.map(partial(judge, project), chosen), strict=True):
            killed += verdict.killed_by is not None
            print(f"{mutant.what:{width}} {verdict.seconds:5.1f} s  {verdict.killed_by or 'SURVIVED'}", flush=True)
    print(f"{len(chosen)} mutants, {killed} killed in {time.monotonic() - started:.0f} s")
    if left_out := len(MUTANTS) - len(chosen):
        print(f"{left_out} mutants were left out.")
    sys.exit(killed != len(chosen))


def judge(project: Path, mutant: Mutant) -> Verdict:
    started = time.monotonic()
    with TemporaryDirectory(dir=BITE) as folder:
        # The copy includes compiled files, to save time. That of the broken file is not used: it has another date.
        copy = shutil.copytree(project, Path(folder, "project"), symlinks=True)
        file = copy / mutant.file
        file.write_text(file.read_text("utf-8").replace(mutant.old, mutant.new), "utf-8")
        # The tests write beside the copy, so that it is removed with the copy.
        options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={copy}.tmp"]
        variables = {"TEST_DATABASE_URL": POSTGRESQL} if mutant.on_postgresql and POSTGRESQL else {}
        done = subprocess.run(
            [".venv/bin/python", "-m", "pytest", *options, f"tests/{mutant.tests}"],
            cwd=copy,
            env=user_environ() | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
    failed = FAILED.search(done.stdout)
    if done.returncode not in {0, 1} or (done.returncode == 1) is not bool(failed):
        sys.exit(f"A project that {mutant.what} cannot be tested, pytest exited with {done.returncode}:\n{done.stdout}")
    return Verdict(failed[1] if failed else None, time.monotonic() - started)


if __name__ == "__main__":
    main()
