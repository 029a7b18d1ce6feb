import sys
from pathlib import Path
from uuid import uuid4

import pytest
from fastapi import APIRouter
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from app.check import find_problems
from app.core import health
from app.settings import EnvSettings
from tests import PEPPER
from tests.conftest import TEST_DATABASE_URL, MakeDatabase

needs_postgresql = pytest.mark.skipif(TEST_DATABASE_URL is None, reason="needs PostgreSQL")


@pytest.fixture
def environment(database_url: str, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Valid settings, and a migrated database."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("API_KEY_PEPPERS", f"1:{PEPPER}")
    monkeypatch.setenv("REDIS_URL", "")
    return monkeypatch


@pytest.mark.usefixtures("environment")
def test_nothing_is_wrong_with_a_migrated_database_and_valid_settings() -> None:
    assert find_problems() == []


def test_each_invalid_setting_is_a_problem_also_those_of_features(
    environment: pytest.MonkeyPatch,
) -> None:
    class ItemSettings(EnvSettings):
        item_limit: int = 1

    environment.setenv("LOG_LEVEL", "loud")
    environment.setenv("RATE_LIMIT", "fast")
    environment.setenv("ITEM_LIMIT", "many")
    variables = [problem.partition(":")[0] for problem in find_problems()]
    assert variables == ["RATE_LIMIT", "LOG_LEVEL", "ITEM_LIMIT"]


def test_a_problem_of_several_kinds_of_settings_is_named_once(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class ItemSettings(EnvSettings): ...

    env_file = tmp_path / ".env"
    env_file.write_text("LOG_LEVEL", "utf-8")
    for kind in EnvSettings.__subclasses__():
        environment.setitem(kind.model_config, "env_file", env_file)
    [problem] = find_problems()
    assert problem.startswith(f"{env_file}, line 1: ")


def test_a_route_that_needs_no_key_is_a_problem(environment: pytest.MonkeyPatch) -> None:
    router = APIRouter()
    router.add_api_route("/open", lambda: None)
    environment.setattr(health, "router", router)
    environment.delitem(sys.modules, "app.main")
    [problem] = find_problems()
    assert problem.startswith("/open needs no API key")


def test_a_database_that_is_not_migrated_is_a_problem(
    environment: pytest.MonkeyPatch, make_database: MakeDatabase
) -> None:
    environment.setenv("DATABASE_URL", make_database(migrated=False))
    sentence = "DATABASE_URL: The database is not migrated. Run `alembic upgrade head`."
    assert find_problems() == [sentence]


@pytest.mark.parametrize(
    ("variable", "url", "reason"),
    [
        ("DATABASE_URL", "sqlite:////nothing/app.db", "No such file or directory"),
        ("DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/db", "Connection refused"),
        ("REDIS_URL", "redis://:secret@127.0.0.1:1", "connecting to 127.0.0.1:1"),
    ],
)
def test_a_server_that_does_not_respond_is_one_sentence_without_secrets(
    environment: pytest.MonkeyPatch, variable: str, url: str, reason: str
) -> None:
    environment.setenv(variable, url)
    [problem] = find_problems()
    assert problem.startswith(f"{variable}: ")
    assert reason in problem
    assert "migrate" not in problem
    assert "secret" not in problem
    assert "\n" not in problem


def test_a_replica_that_does_not_respond_is_a_problem_too(environment: pytest.MonkeyPatch) -> None:
    names = ["DATABASE_URL", "DATABASE_REPLICA_URL"]
    for name in names:
        environment.setenv(name, "postgresql://me@127.0.0.1:1/db")
    assert [problem.partition(":")[0] for problem in find_problems()] == names


@needs_postgresql
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_must_be_able_to_hold_every_character(
    environment: pytest.MonkeyPatch, encoding: str
) -> None:
    server = make_url(TEST_DATABASE_URL or "").set(drivername="postgresql+psycopg")
    name = f"test_{uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(
            text(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
        )
        try:
            url = server.set(database=name).render_as_string(hide_password=False)
            environment.setenv("DATABASE_URL", url)
            [problem] = find_problems()
            assert problem.startswith(f"DATABASE_URL: The encoding of the database is {encoding}")
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()
