import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli import cli
from app.settings import get_settings
from tests import PEPPER
from tests.conftest import MakeDatabase

Run = Callable[..., Result]
ADMIN = "admin@example.com"


@pytest.fixture
def environment(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.MonkeyPatch]:
    """An empty database, and settings from variables."""
    monkeypatch.setenv("DATABASE_URL", make_database(migrated=False))
    monkeypatch.setenv("API_KEY_PEPPERS", f"1:{PEPPER}")
    monkeypatch.setenv("API_KEY_PREFIX", "acme")
    get_settings.cache_clear()
    yield monkeypatch
    get_settings.cache_clear()


@pytest.fixture
def run(environment: pytest.MonkeyPatch) -> Run:
    return lambda *arguments: CliRunner().invoke(cli, arguments)


@pytest.fixture
def started(run: Run, environment: pytest.MonkeyPatch, make_database: MakeDatabase) -> Run:
    environment.setenv("DATABASE_URL", make_database())  # sooner migrated than by `start`
    get_settings.cache_clear()
    run("start", ADMIN)
    return run


def as_json(run: Run, *arguments: str) -> Any:  # Any: a JSON document
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)
