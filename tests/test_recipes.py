"""Follows each recipe of docs/recipes.md in a new project, and runs the project's checks and the recipe's tests."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from without import diffs

from tests.bakery import FRUGAL, PROJECT, PYTHONS, lend_environment, lend_make, run
from tests.conftest import Bake
from tests.pages import BLOCK, created, follow
from tests.servers import PostgreSQL, PostgresqlStore, environment, until
from tests.validators import BIN

PAGE = (PROJECT / "docs/recipes.md").read_text("utf-8")
INTRODUCTION, *SECTIONS = PAGE.split("\n## ")
RECIPES = {text.partition("\n")[0]: text for text in SECTIONS}
WITH_TESTS = [name for name, text in RECIPES.items() if any(path.startswith("tests/") for path in created(text))]

UV_ADD = re.compile(r"^\.venv/bin/uv add (.*)$", re.MULTILINE)
PACKAGES = sorted({one for line in UV_ADD.findall(PAGE) for one in line.split()})
PYTHON = ".venv/bin/python"

# Tests of the project that look at all files, and those that look at all routes.
GENERAL = ("tests/test_docs.py", "tests/test_layers.py", "tests/test_main.py")
OF_ROUTES = (
    "tests/test_server.py::test_the_app_starts_without_modules_that_it_may_never_need",
    "tests/auth/test_middleware.py",
    "tests/core/test_errors.py",
    "tests/core/test_openapi.py",
)
MIGRATIONS = "tests/test_migrations.py"


@pytest.fixture
def project(bake: Bake) -> Path:
    return bake()


def follow_recipes(project: Path, *names: str) -> None:
    """If a recipe adds packages, its environment has those of all recipes: one environment serves all tests."""
    recipes = [RECIPES[name] for name in names]
    if UV_ADD.search("".join(recipes)):
        run([sys.executable, "-m", "uv", "add", "--quiet", "--no-sync", *PACKAGES], project)
    lend_environment(project, next(iter(PYTHONS.values())))
    for recipe in recipes:
        follow(recipe, project, FRUGAL)
    make(project, "fix")


def make(project: Path, *targets: str) -> None:
    run(["make", *targets], project, **lend_make(project), **FRUGAL)


@pytest.mark.parametrize("name", WITH_TESTS)
def test_a_recipe_works_alone(project: Path, name: str) -> None:
    follow_recipes(project, name)
    files = created(RECIPES[name])
    for path, text in files.items():
        assert (project / path).read_text("utf-8") == text, f"make fix has changed {path}"
    make(project, "check")
    tests = [path for path in files if path.startswith("tests/")]
    if "make migration" in RECIPES[name]:
        tests.append(MIGRATIONS)
    measured = ["-q", "--cov", "--cov-report=", "--cov-fail-under=0"]
    run([PYTHON, "-m", "pytest", *measured, *tests, *GENERAL], project)
    if app := [path for path in files if path.startswith("app/")]:
        run([PYTHON, "-m", "coverage", "report", f"--include={','.join(app)}", "--fail-under=100"], project)


def test_all_recipes_work_together(project: Path) -> None:
    """With the tests of each module that a recipe edits."""
    follow_recipes(project, *WITH_TESTS)
    make(project, "check")
    tests = [path for name in WITH_TESTS for path in created(RECIPES[name]) if path.startswith("tests/")]
    auth = [f"tests/auth/test_{name}.py" for name in ("credentials", "key_format", "verifier")]
    edited = [*auth, "tests/core/test_middleware.py", "tests/users", MIGRATIONS]
    run([PYTHON, "-m", "pytest", "-q", *tests, *edited, *GENERAL, *OF_ROUTES], project)


def test_a_column_is_renamed_while_two_releases_run(project: Path, tmp_path: Path) -> None:
    lend_environment(project, next(iter(PYTHONS.values())))
    make(project, "migrate")
    database = {"DATABASE_URL": f"sqlite:///{project}/app.db"}
    names: list[str] = []

    def check(release: Path) -> None:
        names.append(f"Name {len(names)}")
        add = ["users", "create", f"{len(names)}@example.com", "--last-name", names[-1]]
        run([PYTHON, "-m", "app", *add], release, **database)
        users = json.loads(run([PYTHON, "-m", "app", "users", "list", "--json"], release, **database))
        assert {user["last_name"] for user in users} == {*names}

    _, *releases = RECIPES["Change or rename a column"].split("**Release ")
    assert len(releases) == 3
    for number, text in enumerate(releases, start=1):
        before = Path(shutil.copytree(project, tmp_path / f"before-{number}", symlinks=True))
        follow(text, project, FRUGAL)
        if number < 3:
            make(project, "migrate")
        for release in (before, project):
            check(release)
        if number == 1:  # an instance of the old version changes a row of the new one
            with closing(sqlite3.connect(project / "app.db")) as connection, connection:
                connection.execute("UPDATE users SET last_name = 'Changed' WHERE last_name = ?", names[-1:])
            names[-1] = "Changed"
    make(project, "migrate")
    check(project)
    make(project, "fix", "check")
    run([PYTHON, "-m", "pytest", "-q", "tests/users", MIGRATIONS, *GENERAL], project)


def test_a_job_is_done_by_a_worker_on_postgresql(project: Path, cluster: PostgreSQL) -> None:
    follow_recipes(project, "Job queue")
    store = PostgresqlStore.create(cluster)
    variables = environment(store)
    run([PYTHON, "-m", "alembic", "upgrade", "head"], project, **variables)
    (apply, work) = re.findall(r"^\$ (.*)$", RECIPES["Job queue"], re.MULTILINE)
    run(f".venv/bin/{apply}".split(), project, **variables)
    run([PYTHON, "-m", "alembic", "check"], project, **variables)
    run([PYTHON, "-c", INVITE], project, **variables)
    log = project / "worker.log"
    with log.open("w") as output:
        command = f".venv/bin/{work}".split()
        with subprocess.Popen(command, cwd=project, env=variables, stdout=output, stderr=output) as worker:
            try:
                until(lambda: "a welcome for ada@example.com" in log.read_text())
            finally:
                worker.terminate()
    assert log.read_text().count("a welcome for") == 1
    assert store.sql("SELECT count(*) FROM procrastinate_jobs") == ["0"]
    store.drop()


INVITE = """
import asyncio

from app.core.database import Database
from app.core.errors import Conflict
from app.core.logging import configure_logging
from app.jobs.service import add_job, send_welcome
from app.settings import get_settings
from app.users import service as users
from app.users.schemas import UserCreate


async def main() -> None:
    database = Database(get_settings().database_url)
    for email in ("ada@example.com", "rolled-back@example.com"):
        try:
            async with database.session() as session:
                user = await users.create(session, UserCreate(email=email), None)
                await add_job(session, send_welcome, user_id=str(user.id))
                if email.startswith("rolled"):
                    raise Conflict
        except Conflict:
            pass
    await database.dispose()


asyncio.run(main())
"""


def test_the_client_is_generated_from_the_document(project: Path) -> None:
    follow_recipes(project, "Generated client")
    (command,) = re.findall(r"^\$ uvx (openapi-python-client .*)$", PAGE, re.MULTILINE)
    path = f"{BIN}:/usr/bin:/bin"  # the generator formats its code with ruff
    run([f"{BIN}/{command.split()[0]}", *command.split()[1:], "--output-path", "client"], project, PATH=path)
    assert "def sync(" in next((project / "client").glob("*/api/users/read_me.py")).read_text("utf-8")


def test_the_page_lists_every_recipe_and_each_says_what_the_reader_gets() -> None:
    anchors = {name.lower().replace(" ", "-") for name in RECIPES}
    assert {*re.findall(r"\]\(#([\w-]+)\)", INTRODUCTION)} == anchors
    assert {*re.findall(r"\]\(#([\w-]+)\)", PAGE)} == anchors
    for name, text in RECIPES.items():
        assert text.startswith((f"{name}\n\nYou get ", f"{name}\n\nYou rename ")), name


def test_every_file_that_a_recipe_writes_is_in_a_block_with_its_name() -> None:
    """A python block without a name would be skipped in silence."""
    unnamed = [block["text"] for block in BLOCK.finditer(PAGE) if block["language"] == "python"]
    shown = sum(len(created(text)) for text in RECIPES.values())
    assert len(unnamed) - shown == 2, "the examples of Read replica and Generated client"
    assert all(diffs(text) for name, text in RECIPES.items() if "@@ " in text), "no diff is skipped"
