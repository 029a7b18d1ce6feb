"""What `make watch` runs after a change."""

from pathlib import Path

import pytest

from tests.bakery import PROJECT
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
        (["app/pagination.py"], ["tests"]),  # it has no tests of its own
        (["app/users/service.py", "pyproject.toml"], ["tests"]),
        (["migrations/env.py"], ["tests"]),
    ],
)
def test_a_change_runs_the_tests_that_it_touches(changed: list[str], tests: list[str]) -> None:
    assert touched(Path(PROJECT.name, path) for path in changed) == tests


@pytest.mark.parametrize("path", ["hooks/answers.py", "cookiecutter.json"])
def test_what_makes_every_file_runs_every_test(path: str) -> None:
    assert touched([Path(path)]) == ["tests"]
