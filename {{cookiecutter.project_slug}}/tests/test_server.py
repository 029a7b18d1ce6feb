"""The real server in a separate process, as in production."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import IO, NamedTuple

import httpx
import pytest

from app.api_keys import service as api_keys
from app.api_keys.schemas import ApiKeyCreate
from app.auth.scopes import Scope
from app.core.database import Database
from app.settings import ROOT
from app.users import service as users
from app.users.schemas import UserCreate
from tests import PEPPER
from tests.conftest import MakeDatabase, make_settings

UVICORN = ["uvicorn", "app.main:app", "--no-access-log", "--no-proxy-headers"]


def create_admin_key(database_url: str) -> str:
    settings = make_settings(environment="production")

    async def create() -> str:
        database = Database(database_url)
        async with database.session() as session:
            admin = UserCreate(email="admin@example.com", is_admin=True)
            owner = await users.create(session, admin, None)
            new = ApiKeyCreate(name="server", scopes=[*Scope], user_id=owner.id)
            _, text = await api_keys.create(session, settings, new, None)
        await database.dispose()
        return text.get_secret_value()

    return asyncio.run(create())


def environment_of(database_url: str) -> dict[str, str]:
    return {
        **os.environ,
        "ENVIRONMENT": "production",
        "DATABASE_URL": database_url,
        "API_KEY_PEPPERS": f"1:{PEPPER}",
        "API_KEY_PREFIX": "acme",
        "RATE_LIMIT": "",
    }


@contextmanager
def running(
    database_url: str,
    command: list[str] = UVICORN,
    api_key: str = "",
    output: IO[bytes] | None = None,
    **variables: str,
) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    arguments = [sys.executable, "-m", *command, "--port", str(port)]
    environment = environment_of(database_url) | variables
    process = subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=output, stderr=output)
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    base_url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=base_url, headers=headers) as client:
            wait_for(client)
            yield client, process
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(client: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            client.get("/health/live")
        except httpx.ConnectError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


def modules_of(*arguments: str) -> set[str]:
    """The modules that Python imports with these arguments."""
    command = [sys.executable, "-X", "importtime", *arguments]
    environment = environment_of("sqlite:///./never-opened.db")
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_the_app_starts_without_modules_that_it_may_never_need() -> None:
    modules = modules_of("-c", "import app.main")
    assert "sqlalchemy" in modules
    assert not modules & {"alembic", "redis", "rich"}


class Server(NamedTuple):
    client: httpx.Client  # without a key
    api_key: str
    log: Path

    @property
    def with_key(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"}


@contextmanager
def logging_to(log: Path, database_url: str, command: list[str]) -> Iterator[Server]:
    api_key = create_admin_key(database_url)
    with (
        log.open("wb") as output,
        running(database_url, command, output=output) as (client, _),
    ):
        yield Server(client, api_key, log)


@pytest.fixture(scope="module")
def server(
    make_database: MakeDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One for all tests, because a server takes seconds to start."""
    log = tmp_path_factory.mktemp("server") / "log"
    with logging_to(log, make_database(), ["uvicorn", "app.main:app"]) as server:
        yield server


def test_the_server_accepts_only_requests_with_a_key(server: Server) -> None:
    assert server.client.get("/health/ready").status_code == 200
    assert server.client.get("/v1/users/me").status_code == 401
    response = server.client.get("/v1/users/me", headers=server.with_key)
    assert response.json()["email"] == "admin@example.com"


def test_a_trailer_field_is_not_a_header(server: Server) -> None:
    key = f"Authorization: Bearer {server.api_key}\r\n"
    head = "GET /v1/users/me HTTP/1.1\r\nHost: a\r\n"
    chunks = "Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n0\r\n"
    trailer = "Host: b\r\nX-Forwarded-For: 192.0.2.1\r\nX-Request-ID: trailer\r\n"
    port = server.client.base_url.port or 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        for sent_key, trailer_key, status in (("", key, 401), (key, key, 200), ("", "", 401)):
            connection.sendall(f"{head}{sent_key}{chunks}{trailer_key}{trailer}\r\n".encode())
            response = HTTPResponse(connection)
            response.begin()
            assert response.status == status, response.read()
            assert response.headers["X-Request-ID"] != "trailer"
            response.read()


def test_a_process_on_the_same_machine_cannot_forge_its_address(server: Server) -> None:
    new = {"name": "local", "scopes": [], "allowed_cidrs": ["127.0.0.0/8"]}
    created = server.client.post("/v1/api-keys", json=new, headers=server.with_key).json()
    forged = {"Authorization": f"Bearer {created['api_key']}", "X-Forwarded-For": "203.0.113.9"}
    assert server.client.get("/v1/users/me", headers=forged).status_code == 200


UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def test_the_log_of_the_server_redacts_keys(server: Server) -> None:
    secret = "7" * 49
    query = {"api_key": f"acme_live_{'0' * 16}_{secret}", "q": f"acme_test_{'1' * 16}_{secret}"}
    for headers in ({}, UPGRADE):
        server.client.get("/v1/users/me", params=query, headers=headers)
    text = server.log.read_text()
    assert text.count(f"api_key=acme_live_{'0' * 16}_***") == 2
    assert text.count(f"q=acme_test_{'1' * 16}_***") == 2
    assert secret not in text
