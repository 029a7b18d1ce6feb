"""The generated project behind PgBouncer in transaction mode, where each transaction can get another connection."""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.bakery import run
from tests.servers import PGBOUNCER, Instance, PgBouncer, PostgreSQL, PostgresqlStore, at_once, environment, until

ME, KEYS = "/v1/users/me", "/v1/api-keys"
ADMIN = "admin@example.com"
SENTENCE = "set DATABASE_POOLER=true"
CLIENTS, ROUNDS = 12, 5  # of five requests: 300


def prepared_statements() -> list[str]:
    """What max_prepared_statements can be. PgBouncer 1.18, which Debian 12 has, does not know it."""
    version = re.search(r"PgBouncer (\d+)\.(\d+)", run([PGBOUNCER, "--version"], Path("/"))) if PGBOUNCER else None
    if version and (int(version[1]), int(version[2])) >= (1, 21):
        return ["max_prepared_statements = 0\n", "max_prepared_statements = 100\n"]
    return [""]


@pytest.fixture(params=prepared_statements())
def prepared(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["", "ignore_startup_parameters = options\n"], ids=["rejects options", "drops options"])
def pooled(request: pytest.FixtureRequest, cluster: PostgreSQL, prepared: str) -> Iterator[PostgresqlStore]:
    """An empty database behind the pooler."""
    if not PGBOUNCER:
        pytest.skip("pgbouncer is not installed")
    store = PostgresqlStore.create(cluster)
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        pooler = PgBouncer(Path(folder), cluster, request.param + prepared)
        with pooler.running():
            store.url = store.url.replace(f":{cluster.port}/", f":{pooler.port}/")
            yield store
    store.drop()


@contextmanager
def serving(project: Path, store: PostgresqlStore, **settings: Any) -> Iterator[Instance]:  # Any: see Instance
    instance = Instance(project, store, **settings)
    try:
        with instance.running():
            yield instance
    finally:
        print(instance.log.read_text())  # for pytest to show if the test failed


def mixed_requests(instance: Instance) -> list[int]:
    """The statuses of five requests: create a key, use it, list, rotate and revoke it."""
    created = instance.create_key()
    key, path = str(created.body.get("api_key")), f"{KEYS}/{created.body.get('id')}"
    answers = [instance.get(ME, key), instance.get(KEYS), instance.ask("POST", f"{path}/rotate")]
    return [created.status, *(answer.status for answer in answers), instance.ask("DELETE", path).status]


def test_with_the_setting_everything_works(project: Path, pooled: PostgresqlStore) -> None:
    def command(program: str, *arguments: str) -> list[str]:
        variables = environment(pooled, DATABASE_POOLER="true")
        return run([f".venv/bin/{program}", *arguments], project, **variables).splitlines()

    at_once(*[partial(command, "alembic", "upgrade", "head")] * 2)
    pooled.key = command("python", "-m", "app", "start", ADMIN)[-1]
    settings = {"DATABASE_POOLER": "true", "API_KEY_MAX_PER_USER": 1000, "USAGE_FLUSH_SECONDS": 0.2}
    with (
        serving(project, pooled, **settings) as one,
        serving(project, pooled, **settings, API_KEY_CACHE_SECONDS=0) as other,
    ):
        assert [instance.get("/health/ready").status for instance in (one, other)] == [200, 200]
        clients = [one, other] * (CLIENTS // 2)

        def requests(instance: Instance) -> list[int]:
            return [status for _ in range(ROUNDS) for status in mixed_requests(instance)]

        statuses = at_once(*[partial(requests, instance) for instance in clients])
        expected = {201: 2 * CLIENTS * ROUNDS, 200: 2 * CLIENTS * ROUNDS, 204: CLIENTS * ROUNDS}
        assert Counter(status for client in statuses for status in client) == expected
        counted = [f"{5 * CLIENTS * ROUNDS}"]
        until(lambda: pooled.sql("SELECT sum(requests) FROM api_key_usage") == counted)
    assert len(command("python", "-m", "app", "keys", "list")) == 1 + 2 * CLIENTS * ROUNDS
    command("python", "-m", "app", "purge")


def test_without_the_setting_readiness_and_commands_name_it(
    project: Path, cluster: PostgreSQL, pooled: PostgresqlStore, postgresql_seed: PostgresqlStore
) -> None:
    for command in (["alembic", "upgrade", "head"], ["python", "-m", "app", "start", ADMIN]):
        done = subprocess.run(
            [f"{project}/.venv/bin/{command[0]}", *command[1:]],
            cwd=project,
            env=environment(pooled),
            capture_output=True,
            text=True,
        )
        assert done.returncode
        assert SENTENCE in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    pooled.key = postgresql_seed.key
    with serving(project, pooled) as instance:
        ready = instance.get("/health/ready")
        assert ready.is_unavailable
        assert SENTENCE in str(ready.body["detail"])
        assert any(line["level"] == "error" and SENTENCE in str(line["message"]) for line in instance.logged())
        answers = at_once(*[partial(instance.get, ME)] * 20, *[instance.create_key] * 20)
        assert all(answer.is_unavailable for answer in answers)
