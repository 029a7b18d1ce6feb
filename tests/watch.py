"""Bake again whenever the template is saved, and run the project's tests of the changed files."""

import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from watchfiles import watch

from tests.bakery import BUILD, PROJECT, PYTHONS, ROOT, bake, lend_environment, user_environ

WATCHED = [PROJECT, ROOT / "hooks", ROOT / "cookiecutter.json"]
FOLDER = BUILD / "watch"


def main() -> None:
    print("Save a file of the template, and its tests run here. Stop with Ctrl-C.", flush=True)
    for changes in watch(*WATCHED):
        changed = {Path(path).relative_to(ROOT) for _, path in changes}
        tests = touched(changed)
        print(f"\n{', '.join(map(str, sorted(changed)))} → {' '.join(tests)}", flush=True)
        run_tests(tests)


def touched(changed: Iterable[Path]) -> list[str]:
    """The tests of the files. If one of the files has none, all tests."""
    tests = {tests_of(path) for path in changed}
    return ["tests"] if "tests" in tests else sorted(tests)


def tests_of(path: Path) -> str:
    match path.parts:
        case (PROJECT.name, "tests", *_, name) if name.startswith("test_"):
            tests = path.relative_to(PROJECT.name)
        case (PROJECT.name, "app", name):
            tests = Path("tests", f"test_{name}")
        case (PROJECT.name, "app", feature, *_):
            tests = Path("tests", feature)
        case _:
            return "tests"
    return tests.as_posix() if (PROJECT / tests).exists() else "tests"


def run_tests(tests: list[str]) -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    try:
        project = bake(FOLDER)
        lend_environment(project, next(iter(PYTHONS.values())))
    except AssertionError as error:  # the file is incomplete: the next save may complete it
        print(error, flush=True)
    else:
        subprocess.run([".venv/bin/pytest", "-q", *tests], cwd=project, env=user_environ(), check=False)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
