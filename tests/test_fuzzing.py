"""Random requests to the generated project. They need packages that the project does not need."""

import shutil
from pathlib import Path

import pytest

from tests.bakery import PYTHONS, ROOT, lend_environment, run
from tests.conftest import Bake

FUZZERS = ("hypothesis>=6.170", "schemathesis>=4.32")
ADDED = sorted((ROOT / "tests/project").glob("*.py"))
# The plugins of these packages are not needed, and take seconds to start.
PYTEST = [".venv/bin/python", "-m", "pytest", "-p", "no:schemathesis", "-p", "no:hypothesispytest"]


@pytest.fixture
def fuzzed(bake: Bake) -> Path:
    project = bake()
    lend_environment(project, next(iter(PYTHONS.values())), *FUZZERS)
    for file in ADDED:
        assert not (project / "tests" / file.name).exists()
        shutil.copy(file, project / "tests")
    return project


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("name", ["test_stateful", "test_schemathesis"])
def test_responses_are_as_documented(fuzzed: Path, request: pytest.FixtureRequest, database: str, name: str) -> None:
    server = request.getfixturevalue("postgresql") if database == "postgresql" else None
    variables = {"TEST_DATABASE_URL": server} if server else {}
    run([*PYTEST, f"tests/{name}.py"], fuzzed, **variables)


def test_the_added_tests_pass_the_type_checks_of_the_project(fuzzed: Path) -> None:
    files = [f"tests/{file.name}" for file in ADDED]
    run([".venv/bin/python", "-m", "mypy", *files], fuzzed)
