"""The real server, in a process of its own, as it is started in production."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

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


@pytest.fixture
def server(environment: dict[str, str]) -> Iterator[httpx.Client]:
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
            yield client
        process.terminate()
        assert process.wait(timeout=30) == -signal.SIGTERM  # it shuts down in order, and then says what it died of


def command_line(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "app", *arguments]
    return subprocess.check_output(command, cwd=ROOT, env=environment, text=True).strip()


def test_a_key_of_the_command_line_works_until_it_is_revoked(environment: dict[str, str], server: httpx.Client) -> None:
    api_key = command_line(environment, "start", "admin@example.com")
    assert api_key.startswith("acme_live_")
    headers = {"Authorization": f"Bearer {api_key}"}

    assert server.get("/health/ready").status_code == 200
    assert server.get("/v1/users/me", headers=headers).json()["email"] == "admin@example.com"
    assert server.get("/v1/users/me").status_code == 401

    command_line(environment, "keys", "revoke", api_key.split("_")[2])
    response = server.get("/v1/users/me", headers=headers)
    assert (response.status_code, response.json()["code"]) == (401, "api_key_revoked")
