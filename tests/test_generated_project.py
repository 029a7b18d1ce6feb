"""The generated project's own checks and tests, in what was baked."""

import sys

import pytest

from tests.bakery import PYTHONS, ROOT, lend_environment, run
from tests.conftest import Bake
from tests.demo import free_port, running

every_python = pytest.mark.parametrize("python", PYTHONS.values(), ids=PYTHONS.keys())
every_database = pytest.mark.parametrize("database", ["sqlite", "postgresql"])
one_python = next(iter(PYTHONS.values()))

ODD = {
    "project_name": """<b>"Ann's" \\ \N{ROCKET}</b>""",
    "project_slug": "app",
    "description": """'''quotes''' \"\"\"quotes\"\"\" ${HOME} #""",
    "author": """O'Brien, "Bob" <bob@example.com>""",
}


@every_python
@every_database
def test_its_tests_pass(bake: Bake, request: pytest.FixtureRequest, database: str, python: str) -> None:
    variables = {"TEST_DATABASE_URL": request.getfixturevalue("postgresql")} if database == "postgresql" else {}
    project = bake(database=database)
    lend_environment(project, python)
    run(["make", "test"], project, **variables)


@every_database
def test_every_answer_is_as_the_description_says(bake: Bake, request: pytest.FixtureRequest, database: str) -> None:
    variables = {"TEST_DATABASE_URL": request.getfixturevalue("postgresql")} if database == "postgresql" else {}
    project = bake(database=database)
    lend_environment(project, one_python)
    run([".venv/bin/pytest", "-n0", "tests/test_schemathesis.py"], project, SCHEMATHESIS_EXAMPLES="3", **variables)


@every_python
@every_database
def test_its_checks_pass(bake: Bake, database: str, python: str) -> None:
    project = bake(database=database)
    lend_environment(project, python)
    run(["make", "check"], project)


def test_odd_answers_pass_both(bake: Bake) -> None:
    project = bake(**ODD)
    lend_environment(project, one_python)
    run(["make", "check", "test"], project)


@pytest.mark.parametrize("slug", ["class", "app", "json", "49"])
def test_odd_slugs_can_be_installed(bake: Bake, slug: str) -> None:
    run([sys.executable, "-m", "uv", "lock"], bake(project_slug=slug))


def test_the_commands_printed_last_get_an_answer(bake: Bake) -> None:
    project = bake()
    lend_environment(project, one_python)
    folder, serve, ask = run([sys.executable, ROOT / "hooks/post_gen_project.py"], project).splitlines()[-3:]
    assert serve == "make run"
    port = free_port()
    with running(project, port):
        answer = run(["bash", "-c", f"{folder} && {ask.replace('8000', str(port))}"], ROOT)
    assert '"email":"admin@example.com"' in answer
