"""The generated project's own checks and tests, in what was baked."""

import itertools
import sys
from pathlib import Path

import pytest

from tests.bakery import FRUGAL, PYTHONS, ROOT, lend_environment, run
from tests.conftest import Bake
from tests.demo import free_port, running

oldest_python, *_, newest_python = [next(iter(PYTHONS.values())), *PYTHONS.values()]

# Every answer meets every answer of each other question, and each Python.
PAIRS = [
    ("sqlite", "none", "none", "3.11"),
    ("postgresql", "none", "github", "3.13"),
    ("sqlite", "none", "gitlab", "3.13"),
    ("postgresql", "compose", "none", "3.13"),
    ("sqlite", "compose", "github", "3.11"),
    ("postgresql", "compose", "gitlab", "3.11"),
    ("sqlite", "kubernetes", "none", "3.13"),
    ("postgresql", "kubernetes", "github", "3.11"),
    ("sqlite", "kubernetes", "gitlab", "3.13"),
]

ODD = {
    "project_name": """<b>"Ann's" \\ \N{ROCKET}</b>""",
    "project_slug": "app",
    "description": """'''quotes''' \"\"\"quotes\"\"\" ${HOME} #""",
    "author": """O'Brien, "Bob" <bob@example.com>""",
}

# The tests of a project that read files which contain answers: .env.example and pyproject.toml.
READ_ANSWERS = [f"tests/{name}.py" for name in ("test_docs", "test_main", "core/test_openapi", "test_settings")]


@pytest.mark.parametrize(
    ("database", "python"),
    [("sqlite", newest_python), ("postgresql", oldest_python)],
    ids=["sqlite, newest Python", "postgresql, oldest Python"],
)
def test_its_tests_pass(bake: Bake, request: pytest.FixtureRequest, database: str, python: str) -> None:
    """Without any of the optional files they do so in test_update.py, with all of them in test_docs_executed.py."""
    variables = {"TEST_DATABASE_URL": request.getfixturevalue("postgresql")} if database == "postgresql" else {}
    deployment, ci = ("compose", "github") if database == "sqlite" else ("kubernetes", "gitlab")
    project = bake(database=database, deployment=deployment, ci=ci)
    lend_environment(project, python)
    target = "coverage" if database == "sqlite" else "test"
    run(["make", target], project, **FRUGAL, **variables)


def test_the_pairs_are_all_there() -> None:
    for one, other in itertools.combinations(zip(*PAIRS, strict=True), 2):
        pairs = set(zip(one, other, strict=True))
        assert pairs == set(itertools.product(one, other))


@pytest.mark.parametrize(("database", "deployment", "ci", "python"), PAIRS)
def test_each_pair_of_answers_passes(bake: Bake, database: str, deployment: str, ci: str, python: str) -> None:
    project = bake(database=database, deployment=deployment, ci=ci)
    lend_environment(project, PYTHONS.get(python, oldest_python))
    check_what_depends_on_answers(project)


def test_odd_answers_and_an_odd_folder_make_no_difference(bake: Bake) -> None:
    project = bake(**ODD)
    project = project.rename(project.with_name("100% of $HOME"))
    lend_environment(project, oldest_python)
    check_what_depends_on_answers(project)


def check_what_depends_on_answers(project: Path) -> None:
    run(["make", "check"], project)
    run([".venv/bin/pytest", *READ_ANSWERS], project)


@pytest.mark.parametrize("slug", ["class", "app", "json", "49"])
def test_odd_slugs_can_be_installed(bake: Bake, slug: str) -> None:
    run([sys.executable, "-m", "uv", "lock"], bake(project_slug=slug))


def test_the_commands_printed_last_get_an_answer(bake: Bake) -> None:
    project = bake()
    lend_environment(project, oldest_python)
    folder, serve, ask = run([sys.executable, ROOT / "hooks/post_gen_project.py"], project).splitlines()[-3:]
    assert serve == "make run"
    port = free_port()
    with running(project, port):
        answer = run(["bash", "-c", f"{folder} && {ask.replace('8000', str(port))}"], ROOT)
    assert '"email":"admin@example.com"' in answer
