"""The real server, in a process of its own, as it is started in production."""

import asyncio
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
from sqlmodel import func, select

from app.api_keys.cache import BELIEVED_SECONDS
from app.database import Database
from app.settings import ROOT
from app.usage.models import ApiKeyUsage
from tests.conftest import PEPPER, MakeDatabase


@pytest.fixture(scope="module")
def environment(make_database: MakeDatabase) -> dict[str, str]:
    return {
        **os.environ,
        "ENVIRONMENT": "production",
        "DATABASE_URL": make_database(migrated=False),
        "API_KEY_PEPPERS": f"1:{PEPPER}",
        "API_KEY_PREFIX": "acme",
        "USAGE_FLUSH_SECONDS": "0.5",
        "RATE_LIMIT": "",
    }


@pytest.fixture(scope="module")
def api_key(environment: dict[str, str]) -> str:
    return command_line(environment, "start", "admin@example.com")


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
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
                yield client, process
        finally:
            process.terminate()
            process.wait(timeout=30)


def command_line(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "app", *arguments]
    return subprocess.check_output(command, cwd=ROOT, env=environment, text=True).strip()


def requests_counted(environment: dict[str, str]) -> int:
    async def count() -> int:
        database = Database(environment["DATABASE_URL"])
        async with database.session() as session:
            total = (await session.exec(select(func.sum(ApiKeyUsage.requests)))).one()
        await database.dispose()
        return total or 0

    return asyncio.run(count())


def test_a_crash_loses_no_more_than_the_last_interval_and_counts_nothing_twice(
    environment: dict[str, str], api_key: str
) -> None:
    with running(environment) as (server, process):
        server.headers["Authorization"] = f"Bearer {api_key}"
        sent = flushed = 0
        deadline = time.monotonic() + 30
        while flushed < 20 and time.monotonic() < deadline:
            flushed = server.get("/v1/api-keys/current/usage").json()["total"]
            sent += 1
        process.kill()
        process.wait(timeout=30)
    assert 20 <= flushed <= requests_counted(environment) <= sent


def test_a_key_of_the_command_line_works_until_one_is_revoked_there(environment: dict[str, str], api_key: str) -> None:
    counted_before = requests_counted(environment)
    with running(environment) as (server, process):
        assert api_key.startswith("acme_live_")
        owner = {"Authorization": f"Bearer {api_key}"}
        assert server.get("/health/ready").status_code == 200
        assert server.get("/v1/users/me", headers=owner).json()["email"] == "admin@example.com"
        assert server.get("/v1/users/me").status_code == 401

        another = server.post("/v1/api-keys", headers=owner, json={"name": "another", "scopes": []}).json()
        headers = {"Authorization": f"Bearer {another['api_key']}"}
        assert server.get("/v1/users/me", headers=headers).status_code == 200
        command_line(environment, "keys", "revoke", another["id"])
        time.sleep(BELIEVED_SECONDS)
        response = server.get("/v1/users/me", headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "api_key_revoked")
    assert process.returncode == -signal.SIGTERM  # it shuts down in order, and then says what it died of
    assert requests_counted(environment) == counted_before + 3
