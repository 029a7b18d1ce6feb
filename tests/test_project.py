"""Tests of the generated project that need other packages, or guard what only the template promises."""

import re
import shutil
from pathlib import Path

import pytest

from tests.bakery import ADDED_TESTS, PROJECT, PYTHONS, REPORTERS, lend_environment, run
from tests.conftest import Bake
from tests.demo import free_port

FUZZERS = ("hypothesis>=6.170", "schemathesis>=4.32")
ADDED = sorted(ADDED_TESTS.glob("*.py"))
NAMES = [file.stem for file in ADDED if file.stem.startswith("test_")]
# The plugins of these packages are not needed, and take seconds to start.
PYTEST = [".venv/bin/python", "-m", "pytest", "-p", "no:schemathesis", "-p", "no:hypothesispytest"]


@pytest.fixture
def extended(bake: Bake) -> Path:
    project = bake()
    lend_environment(project, next(iter(PYTHONS.values())), *FUZZERS, *REPORTERS)
    for file in ADDED:
        assert not (project / "tests" / file.name).exists()
        shutil.copy(file, project / "tests")
    return project


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("name", NAMES)
def test_the_added_tests_pass(extended: Path, request: pytest.FixtureRequest, database: str, name: str) -> None:
    server = request.getfixturevalue("postgresql") if database == "postgresql" else None
    variables = {"TEST_DATABASE_URL": server} if server else {}
    run([*PYTEST, f"tests/{name}.py"], extended, **variables)


def test_the_added_tests_that_a_page_of_the_project_names_exist() -> None:
    pages = "".join(page.read_text("utf-8") for page in (PROJECT / "docs").glob("*.md"))
    named = re.findall(r"\[the template's `(\w+\.py)::(\w+)`\]", pages)
    assert named
    for file, name in named:
        assert f"def {name}(" in (ADDED_TESTS / file).read_text("utf-8")


def test_the_added_tests_pass_the_type_checks_of_the_project(extended: Path) -> None:
    files = [f"tests/{file.name}" for file in ADDED]
    run([".venv/bin/python", "-m", "mypy", *files], extended)


@pytest.fixture
def project(bake: Bake) -> Path:
    project = bake()
    lend_environment(project, next(iter(PYTHONS.values())))
    edit(project / "schemathesis.toml", "max-examples = 20", "max-examples = 1")
    return project


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), "utf-8")


def fuzz(project: Path) -> str:
    return run(["make", "fuzz", f"PORT={free_port()}"], project)


def test_make_fuzz_keeps_its_key(project: Path) -> None:
    (counts,) = re.findall(r"^Responses by status: \{(.*)\}$", fuzz(project), re.MULTILINE)
    by_status = {int(status): int(number) for status, number in re.findall(r"(\d+): (\d+)", counts)}
    assert {200, 201, 204} <= by_status.keys()
    # Schemathesis itself checks that requests without a key are rejected.
    assert by_status[401] < sum(by_status.values()) / 5


def test_make_fuzz_fails_if_its_key_is_revoked(project: Path) -> None:
    edit(project / "fuzz.py", "if value in own_ids(base_url) and", "if False and")
    with pytest.raises(AssertionError, match=r"The key in \$KEY was rejected"):
        fuzz(project)
