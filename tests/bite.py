"""Proof that the generated project's tests bite: they reach every line and branch of a baked project, and fail when it
is broken, one way at a time.

The ways are listed in `tests/mutants.py`. Where a mutant survives, a test is missing.
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
PATIENCE = 120  # seconds for the tests of one mutant
FAILED = re.compile(r"^(?:FAILED|ERROR) tests/([^\s\[]+)", re.MULTILINE)


class Verdict(NamedTuple):
    killed_by: str | None
    seconds: float


def main() -> None:
    started = time.monotonic()
    shutil.rmtree(BITE, ignore_errors=True)
    project = bake(BITE, "database=sqlite")
    lend_environment(project, next(iter(PYTHONS.values())))
    if stale := [mutant for mutant in MUTANTS if (project / mutant.file).read_text("utf-8").count(mutant.old) != 1]:
        lines = (f"- {mutant.file}, for the one that {mutant.what}:\n{mutant.old}" for mutant in stale)
        sys.exit("\n".join(["These mutants need a text that is in their file exactly once:", *lines]))
    run(["make", "coverage"], project)
    print(f"Unbroken, it passes its tests, and they reach all of it. Now {len(MUTANTS)} projects that …", flush=True)

    width = max(len(mutant.what) for mutant in MUTANTS)
    killed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, verdict in zip(MUTANTS, pool.map(partial(judge, project), MUTANTS), strict=True):
            killed += verdict.killed_by is not None
            print(f"{mutant.what:{width}} {verdict.seconds:5.1f} s  {verdict.killed_by or 'SURVIVED'}", flush=True)
    print(f"{len(MUTANTS)} mutants, {killed} killed in {time.monotonic() - started:.0f} s")
    sys.exit(killed != len(MUTANTS))


def judge(project: Path, mutant: Mutant) -> Verdict:
    started = time.monotonic()
    with TemporaryDirectory(dir=BITE) as folder:
        # What is compiled comes along, and saves time. Of the broken file it isn't used: it is for another date.
        copy = shutil.copytree(project, Path(folder, "project"), symlinks=True)
        file = copy / mutant.file
        file.write_text(file.read_text("utf-8").replace(mutant.old, mutant.new), "utf-8")
        # What the tests write goes beside the copy, to be removed with it.
        options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={copy}.tmp"]
        done = subprocess.run(
            [".venv/bin/python", "-m", "pytest", *options, f"tests/{mutant.tests}"],
            cwd=copy,
            env=user_environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
    failed = FAILED.search(done.stdout)
    if done.returncode not in {0, 1} or (done.returncode == 1) is not bool(failed):
        sys.exit(f"The mutant that {mutant.what} is none, pytest ended with {done.returncode}:\n{done.stdout}")
    return Verdict(failed[1] if failed else None, time.monotonic() - started)


if __name__ == "__main__":
    main()
