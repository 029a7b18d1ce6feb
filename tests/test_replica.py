"""The generated project with a streaming replica, whose replay a test can pause."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.bakery import run
from tests.servers import Answer, Instance, PostgreSQL, PostgresqlStore, environment, until

ME, KEYS = "/v1/users/me", "/v1/api-keys"
BOUND = 1.0  # seconds until a change takes effect in all processes, as docs/security.md promises


@pytest.fixture
def replica(cluster: PostgreSQL) -> Iterator[PostgreSQL]:
    with (
        tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder,
        cluster.replicated(Path(folder)) as replica,
    ):
        yield replica


@pytest.fixture
def instance(project: Path, postgresql_seed: PostgresqlStore, replica: PostgreSQL) -> Iterator[Instance]:
    store = postgresql_seed.copy()
    url = store.url.replace(f":{store.server.port}/", f":{replica.port}/")
    instance = Instance(project, store, DATABASE_REPLICA_URL=url)
    try:
        with instance.running():
            until(lambda: instance.get(KEYS).status == 200)  # the replica has the database
            yield instance
    finally:
        print(instance.log.read_text())  # for pytest to show if the test failed
    store.drop()


def path_of(created: Answer) -> str:
    assert created.status == 201
    return f"{KEYS}/{created.body['id']}"


def test_get_requests_read_from_the_replica_and_keys_are_verified_on_the_primary(
    project: Path, instance: Instance, replica: PostgreSQL
) -> None:
    early = instance.create_key()
    until(lambda: instance.get(path_of(early)).status == 200)
    assert instance.get(ME, str(early.body["api_key"])).status == 200

    replica.sql("SELECT pg_wal_replay_pause()")
    late = instance.create_key()
    assert instance.get(path_of(late)).status == 404
    assert instance.get(ME, str(late.body["api_key"])).status == 200
    assert instance.ask("PATCH", path_of(late), {"name": "new"}).body["name"] == "new"
    for created in (early, late):  # in another process, which has no replica
        command = [".venv/bin/python", "-m", "app", "keys", "revoke", str(created.body["id"])]
        run(command, project, **environment(instance.store))

    def is_revoked(created: Answer) -> bool:
        return instance.get(ME, str(created.body["api_key"])).code == "api_key_revoked"

    for created in (early, late):
        until(partial(is_revoked, created), BOUND)
    user = instance.ask("POST", "/v1/users", {"email": "ada@example.com"}).body["id"]
    key = str(instance.create_key(user_id=user).body["api_key"])
    assert instance.get(ME, key).is_unavailable

    replica.sql("SELECT pg_wal_replay_resume()")
    until(lambda: instance.get(path_of(late)).status == 200)
    assert instance.get(path_of(late)).body["status"] == "revoked"
    assert instance.get(ME, key).body["id"] == user


def test_without_the_replica_get_requests_get_503_and_all_others_succeed(
    instance: Instance, replica: PostgreSQL
) -> None:
    with replica.stopped():
        assert instance.get(KEYS).is_unavailable
        assert instance.create_key().status == 201
        assert instance.get("/health/ready").status == 200
    until(lambda: instance.get(KEYS).status == 200)
