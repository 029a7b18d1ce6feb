"""Instances of the app in processes of their own: migrations, sockets, metrics and usage counts."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from alembic import command
from sqlmodel import func, select

from app.core.database import Database
from app.settings import ROOT
from app.usage.models import ApiKeyUsage
from tests.conftest import MakeDatabase, alembic_config
from tests.test_server import (
    UVICORN,
    create_admin_key,
    environment_of,
    modules_of,
    running,
    wait_for,
)

ME = "/v1/users/me"
COUNTED = '\nhttp_requests_total{method="GET",path="/v1/users/me",status="200"} 2.0\n'
MEASURED = '\nhttp_request_duration_seconds_count{method="GET",path="/v1/users/me"} 2.0\n'
POOL = re.compile(r'^database_pool_in_use\{pid="(\d+)"\} ', re.MULTILINE)
CPU = re.compile(r'^process_cpu_seconds_total\{pid="(\d+)"\} ', re.MULTILINE)
NO_PROCESS = 2**22 + 1  # more than any pid on Linux


def test_two_instances_can_migrate_at_the_same_time(make_database: MakeDatabase) -> None:
    url = make_database(migrated=False)
    arguments = [sys.executable, "-m", "alembic", "upgrade", "head"]
    instances = [
        subprocess.Popen(arguments, cwd=ROOT, env=environment_of(url), stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    errors = [instance.communicate(timeout=60)[1] for instance in instances]
    assert [instance.returncode for instance in instances] == [0, 0], errors
    command.check(alembic_config(url))


def test_the_check_reports_the_settings_of_all_features(make_database: MakeDatabase) -> None:
    invalid = {"METRICS_ENABLED": "maybe", "USAGE_FLUSH_SECONDS": "often"}
    environment = environment_of(make_database()) | invalid
    command = [sys.executable, "-m", "app", "check"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert all(variable in done.stderr for variable in invalid), done.stderr


@contextmanager
def on_unix_socket(database_url: str, socket: Path, **variables: str) -> Iterator[httpx.Client]:
    """A client with the key of an admin."""
    arguments = [sys.executable, "-m", *UVICORN, "--uds", str(socket)]
    environment = environment_of(database_url) | variables
    headers = {"Authorization": f"Bearer {create_admin_key(database_url)}"}
    process = subprocess.Popen(arguments, cwd=ROOT, env=environment)
    transport = httpx.HTTPTransport(uds=str(socket))
    try:
        with httpx.Client(base_url="http://test", headers=headers, transport=transport) as client:
            while not socket.exists():  # if nobody listens, httpx does not close its socket
                time.sleep(0.1)
            wait_for(client)
            yield client
    finally:
        process.terminate()
        process.wait(timeout=30)


# httpcore does not close the sockets of its attempts before the server listens.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("proxies", "allowed", "rejected"),
    [("unix", 200, [401, 429, 429]), ("127.0.0.1,::1", 403, [401, 401, 401]), ("", 403, [401] * 3)],
)
def test_a_unix_socket_is_a_trusted_proxy_if_the_settings_say_so(
    make_database: MakeDatabase, tmp_path: Path, proxies: str, allowed: int, rejected: list[int]
) -> None:
    variables = {"TRUSTED_PROXIES": proxies, "FAILED_AUTH_LIMIT": "1/minute"}
    with on_unix_socket(make_database(), tmp_path / "app.sock", **variables) as client:
        forwarded = {"X-Forwarded-For": "203.0.113.9"}
        networks = {"allowed_cidrs": ["203.0.113.0/24"]}
        assert client.patch("/v1/api-keys/current", json=networks).status_code == 200
        assert client.get("/v1/users/me", headers=forwarded).status_code == allowed
        assert client.get("/v1/users/me").status_code == 403
        client.headers["Authorization"] = "Bearer invalid"
        statuses = [client.get("/v1/users/me", headers=forwarded).status_code for _ in range(3)]
        assert statuses == rejected


def test_the_server_adds_its_sub_path_to_locations(make_database: MakeDatabase) -> None:
    url = make_database()
    command = [*UVICORN, "--root-path", "/sub"]
    with running(url, command, api_key=create_admin_key(url)) as (client, _):
        created = client.post("/v1/users", json={"email": "ada@example.com"})
        assert created.headers["location"] == f"/sub/v1/users/{created.json()['id']}"
        assert client.delete("/v1/users/me").headers["allow"] == "GET, PATCH"


@contextmanager
def only(pid: int, pids: set[int]) -> Iterator[None]:
    """The other workers are stopped, so this one responds."""
    others = pids - {pid}
    for other in others:
        os.kill(other, signal.SIGSTOP)
    try:
        yield
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)


def get(server: httpx.Client, path: str) -> str:
    """On a new connection, which any worker can accept."""
    response = httpx.get(server.base_url.join(path), headers=server.headers, timeout=30)
    assert response.status_code == 200, response.text
    return response.text


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def workers(server: httpx.Client) -> set[int]:
    return {int(pid) for pid in POOL.findall(get(server, "/metrics"))}


@pytest.mark.skipif(sys.platform != "linux", reason="It reads /proc.")
def test_each_worker_shows_the_metrics_of_all(make_database: MakeDatabase, tmp_path: Path) -> None:
    url = make_database()
    (tmp_path / f"counter_{NO_PROCESS}.db").write_text("of an earlier run")
    (tmp_path / "another.txt").touch()
    command = [*UVICORN, "--workers", "2"]
    key = create_admin_key(url)
    with running(
        url, command, key, METRICS_ENABLED="true", PROMETHEUS_MULTIPROC_DIR=str(tmp_path)
    ) as (server, _):
        wait_until(lambda: len(workers(server)) == 2)
        pids = workers(server)
        for pid in pids:
            with only(pid, pids):
                get(server, ME)
        wait_until(lambda: COUNTED in get(server, "/metrics"))  # a response precedes its count
        for pid in pids:
            with only(pid, pids):
                metrics = get(server, "/metrics")
            assert COUNTED in metrics
            assert MEASURED in metrics
            assert {int(one) for one in CPU.findall(metrics)} == pids
        killed = min(pids)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: len(workers(server) - {killed}) == 2)
        metrics = get(server, "/metrics")
        assert COUNTED in metrics, "a sum of counters must not decrease"
        assert str(killed) not in [*CPU.findall(metrics), *POOL.findall(metrics)]
        assert metrics.count("# TYPE process_cpu_seconds_total") == 1
    names = {file.name for file in tmp_path.iterdir()}
    assert f"counter_{NO_PROCESS}.db" not in names
    assert "another.txt" in names


def count_requests(database_url: str) -> int:
    async def count() -> int:
        database = Database(database_url)
        [[total]] = await database.fetch_all(select(func.sum(ApiKeyUsage.requests)))
        await database.dispose()
        return int(total)

    return asyncio.run(count())


def test_a_crash_loses_the_counts_since_the_last_flush_and_counts_nothing_twice(
    make_database: MakeDatabase,
) -> None:
    url = make_database()
    api_key = create_admin_key(url)
    with running(url, api_key=api_key, USAGE_FLUSH_SECONDS="0.5") as (server, process):
        sent = flushed = 0
        deadline = time.monotonic() + 30
        while flushed < 20 and time.monotonic() < deadline:
            flushed = server.get("/v1/api-keys/current/usage").json()["total"]
            sent += 1
        process.kill()
        process.wait(timeout=30)
    assert 20 <= flushed <= count_requests(url) <= sent


def test_shutdown_writes_the_last_counts(make_database: MakeDatabase) -> None:
    url = make_database()
    api_key = create_admin_key(url)
    with running(url, api_key=api_key, USAGE_FLUSH_SECONDS="3600") as (server, _):
        for _ in range(3):
            server.get("/v1/users/me")
    assert count_requests(url) == 3


def test_metrics_are_not_imported_before_they_are_enabled() -> None:
    assert "prometheus_client" not in modules_of("-c", "import app.main")
