"""The real server, in a process of its own, as it is started in production."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from app.settings import ROOT
from tests.conftest import PEPPER, MakeDatabase


@pytest.fixture
def environment(make_database: MakeDatabase) -> dict[str, str]:
    return {
        **os.environ,
        "ENVIRONMENT": "production",
        "DATABASE_URL": make_database(migrated=False),
        "API_KEY_PEPPERS": f"1:{PEPPER}",
        "API_KEY_PREFIX": "acme",
    }


@contextmanager
def running(environment: dict[str, str]) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    # The socket is made here and handed over: no port to guess, and no request comes before it listens.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app", "--no-access-log"]
        process = subprocess.Popen(
            [*command, "--no-proxy-headers", "--fd", str(listener.fileno())],
            cwd=ROOT,
            env=environment,
            pass_fds=[listener.fileno()],
        )
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
            yield client, process
        process.terminate()
        process.wait(timeout=30)


def command_line(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "app", *arguments]
    return subprocess.check_output(command, cwd=ROOT, env=environment, text=True).strip()


def requests_counted(environment: dict[str, str], key_id: str) -> int:
    return sum(day["requests"] for day in json.loads(command_line(environment, "keys", "usage", key_id, "--json")))


def test_a_key_of_the_command_line_works_until_it_is_revoked(environment: dict[str, str]) -> None:
    with running(environment) as (server, process):
        api_key = command_line(environment, "start", "admin@example.com")
        key_id = api_key.split("_")[2]
        assert api_key.startswith("acme_live_")
        headers = {"Authorization": f"Bearer {api_key}"}

        assert server.get("/health/ready").status_code == 200
        assert server.get("/v1/users/me", headers=headers).json()["email"] == "admin@example.com"
        assert server.get("/v1/users/me").status_code == 401

        command_line(environment, "keys", "revoke", key_id)
        response = server.get("/v1/users/me", headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "api_key_revoked")
    assert process.returncode == -signal.SIGTERM  # it shuts down in order, and then says what it died of
    assert requests_counted(environment, key_id) == 1


def test_a_crash_loses_no_more_than_the_last_interval_and_counts_nothing_twice(environment: dict[str, str]) -> None:
    environment |= {"USAGE_FLUSH_SECONDS": "0.5", "RATE_LIMIT": ""}
    api_key = command_line(environment, "start", "admin@example.com")
    with running(environment) as (server, process):
        server.headers["Authorization"] = f"Bearer {api_key}"
        sent = flushed = 0
        deadline = time.monotonic() + 30
        while flushed < 20 and time.monotonic() < deadline:
            flushed = server.get("/v1/api-keys/current/usage").json()["total"]
            sent += 1
        process.kill()
        process.wait(timeout=30)
    assert 20 <= flushed <= requests_counted(environment, api_key.split("_")[2]) <= sent
