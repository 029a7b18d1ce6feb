import os
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Protocol

import pytest

from tests.bakery import PYTHONS, ROOT


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


LONGEST = {"test_docs_executed", "test_generated_project", "test_update"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: no worker shall be left with one of them while the others have nothing to do."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


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
