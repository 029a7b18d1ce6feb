"""Runs the generated project's tests in other orders and environments, where they have to pass too.

`python -m tests.independence` tries ten random orders, other places and dates, each file alone, and 100 single tests.
TEST_DATABASE_URL=postgresql://… does so on PostgreSQL.
"""

import os
import random
import shutil
from datetime import UTC, datetime
from pathlib import Path

from tests.bakery import BUILD, PLUGINS, PYTHONS, bake, lend_environment, run

RANDOMLY = "pytest-randomly>=4"
SEED = int(datetime.now(UTC).strftime("%Y%m%d"))
# The offset of this time zone is no whole number of hours, and this locale knows only ASCII.
ELSEWHERE = {"TZ": "Asia/Kathmandu", "LC_ALL": "C"}
LEAP_DAY = "2028-02-29T12:00:00Z"
NEW_YEAR = "2028-12-31T23:59:50Z"  # the year ends during the tests


def main() -> None:
    folder = BUILD / "independence"
    shutil.rmtree(folder, ignore_errors=True)
    project = bake(folder)
    lend_environment(project, next(iter(PYTHONS.values())), RANDOMLY)
    for processes in ("0", "2", "8"):
        run_tests(project, "-n", processes)
    for seed in range(SEED, SEED + 10):
        run_in_random_order(project, seed)
    run_elsewhere(project, SEED)
    for moment in (LEAP_DAY, NEW_YEAR):
        run_at(project, moment)
    for file in sorted((project / "tests").rglob("test_*.py")):
        run_tests(project, str(file.relative_to(project)))
    for test in sample_of_tests(project, 100):
        run_tests(project, test)


def run_in_random_order(project: Path, seed: int) -> None:
    run_tests(project, "-n", "2", "-p", "randomly", f"--randomly-seed={seed}")


def run_elsewhere(project: Path, seed: int) -> None:
    """In a random order, too."""
    tests = pytest("-n", "2", "-p", "randomly", f"--randomly-seed={seed}")
    command = ["sh", "-c", 'umask 077 && exec "$@"', "sh", *tests]
    print(run(command, project, **database(), **ELSEWHERE).splitlines()[-1], command, flush=True)


def run_at(project: Path, moment: str) -> None:
    variables = {"PYTHONPATH": str(PLUGINS), "TEST_NOW": moment}
    # Servers have the real time.
    run_tests(project, "-n", "2", "-p", "time_travel", "--ignore=tests/test_server.py", **variables)


def sample_of_tests(project: Path, number: int) -> list[str]:
    lines = run(pytest("--collect-only"), project).splitlines()
    tests = [line for line in lines if "::" in line]
    return random.Random(SEED).sample(tests, number)  # noqa: S311 (it has to be repeatable)


def run_tests(project: Path, *arguments: str, **variables: str) -> None:
    output = run(pytest(*arguments), project, **database(), **variables)
    print(output.splitlines()[-1], *arguments, *variables.values(), flush=True)


def pytest(*arguments: str) -> list[str]:
    """The plugin pytest-randomly is only active where it is asked for."""
    chosen = [] if "randomly" in arguments else ["-p", "no:randomly"]
    return [".venv/bin/python", "-m", "pytest", "-q", *chosen, *arguments]


def database() -> dict[str, str]:
    url = os.environ.get("TEST_DATABASE_URL")
    return {"TEST_DATABASE_URL": url} if url else {}


if __name__ == "__main__":
    main()
