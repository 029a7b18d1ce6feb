import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests import bakery
from tests.bakery import PYTHONS, ROOT, lend_environment, run
from tests.servers import PostgreSQL, PostgresqlStore, SqliteStore, Store, environment, find_postgresql


class Baked(Protocol):
    exit_code: int | str
    exception: BaseException | None
    project_path: Path | None


class Cookies(Protocol):
    def bake(self, extra_context: dict[str, str], template: str) -> Baked: ...


class Bake(Protocol):
    def __call__(self, **answers: str) -> Path: ...


def pytest_report_header() -> str:
    return f"baked projects run on Python {' and '.join(PYTHONS)}"


collect_ignore = ["project"]  # test_project.py runs these tests in a baked project

LONGEST = ["test_races", "test_update", "test_project", "test_generated_project", "test_docs_executed", "test_resource"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: no worker shall be left with one of them while the others have nothing to do."""
    items.sort(key=lambda item: -LONGEST.index(item.path.stem) if item.path.stem in LONGEST else 1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a developer's machine may skip, because it lacks a server, fails where SKIP_NOTHING is set."""
    report = yield
    if report.skipped and "SKIP_NOTHING" in os.environ:
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as git sees it: cookiecutter would also copy the caches that linters leave there."""
    left_out = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "build", "uv.lock")
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("checkout") / "template", ignore=left_out))


@pytest.fixture
def bake(cookies: Cookies, template: Path) -> Bake:
    def bake(**answers: str) -> Path:
        result = cookies.bake(extra_context=answers, template=str(template))
        assert result.exit_code == 0, result.exception
        assert result.project_path
        return result.project_path

    return bake


@pytest.fixture(scope="session")
def postgresql() -> str:
    return os.environ.get("TEST_DATABASE_URL") or pytest.skip("TEST_DATABASE_URL names no PostgreSQL server")


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = bakery.bake(tmp_path_factory.mktemp("production") / "baked")
    lend_environment(project, next(iter(PYTHONS.values())))
    return project


@pytest.fixture(scope="session")
def cluster() -> Iterator[PostgreSQL]:
    binaries = find_postgresql() or pytest.skip("PostgreSQL is not installed")
    # Not in pytest's folders: PostgreSQL may run as another user, who may not look into them.
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        server = PostgreSQL(binaries, Path(folder))
        with server.running():
            yield server


def seeded(project: Path, store: Store) -> None:
    command = [f"{project}/.venv/bin/python", "-m", "app", "start", "admin@example.com"]
    store.key = run(command, project, **environment(store)).splitlines()[-1]


@pytest.fixture(scope="session")
def sqlite_seed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> SqliteStore:
    store = SqliteStore(tmp_path_factory.mktemp("seed") / "app.db")
    seeded(project, store)
    return store


@pytest.fixture(scope="session")
def postgresql_seed(project: Path, cluster: PostgreSQL) -> PostgresqlStore:
    store = PostgresqlStore.create(cluster)
    seeded(project, store)
    return store


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured and recorded as `figures`."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "figures" and report.when == "call":
                    terminalreporter.write_line(str(value))
