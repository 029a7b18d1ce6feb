"""What `make watch` runs after a change."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bakery import ENVIRONMENTS, PROJECT, PYTHONS, lend_environment, user_environ
from tests.conftest import Bake
from tests.servers import until
from tests.watch import touched


@pytest.mark.parametrize(
    ("changed", "tests"),
    [
        (["app/users/service.py"], ["tests/users"]),
        (["app/users/service.py", "app/users/models.py"], ["tests/users"]),
        (["app/users/service.py", "app/settings.py"], ["tests/test_settings.py", "tests/users"]),
        (["tests/users/test_router.py"], ["tests/users/test_router.py"]),
        (["tests/test_gone.py"], ["tests"]),
        (["tests/conftest.py"], ["tests"]),
        (["app/core/pagination.py"], ["tests/core"]),
        (["app/__main__.py"], ["tests"]),  # it has no tests of its own
        (["app/users/service.py", "pyproject.toml"], ["tests"]),
        (["migrations/env.py"], ["tests"]),
    ],
)
def test_a_change_runs_the_tests_of_the_changed_files(changed: list[str], tests: list[str]) -> None:
    assert touched(Path(PROJECT.name, path) for path in changed) == tests


@pytest.mark.parametrize("path", ["hooks/answers.py", "cookiecutter.json"])
def test_a_change_of_what_generates_every_file_runs_every_test(path: str) -> None:
    assert touched([Path(path)]) == ["tests"]


def test_a_save_bakes_again_and_runs_the_tests_of_the_saved_file(bake: Bake, template: Path, tmp_path: Path) -> None:
    lend_environment(bake(), next(iter(PYTHONS.values())))  # the copy finds it
    checkout = Path(shutil.copytree(template, tmp_path / "checkout"))
    (checkout / "build").mkdir()
    (checkout / "build/environments").symlink_to(ENVIRONMENTS)
    service = checkout / PROJECT.name / "app/users/service.py"
    saved = service.read_text("utf-8") + "\nSAVED = True\n"
    log = tmp_path / "log"

    def save_until_noticed() -> bool:
        """A save before the watch begins is not noticed."""
        service.write_text(saved, "utf-8")
        return "→" in log.read_text("utf-8")

    with log.open("w") as output:
        command = [sys.executable, "-m", "tests.watch"]
        watch = subprocess.Popen(command, cwd=checkout, env=user_environ(), stdout=output, stderr=output)
        try:
            until(save_until_noticed)
            until(lambda: " passed" in log.read_text("utf-8"))
        finally:
            watch.terminate()
            watch.wait()
    assert "app/users/service.py → tests/users\n" in log.read_text("utf-8")
    assert (checkout / "build/watch/my-api/app/users/service.py").read_text("utf-8") == saved
