"""The real server in a separate process, as in production."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

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
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            wait_for(client)
            yield client, process
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(client: httpx.Client) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            client.get("/health/live")
        except httpx.ConnectError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


def test_the_server_accepts_only_requests_with_a_key(make_database: MakeDatabase) -> None:
    url = make_database()
    api_key = create_admin_key(url)
    with running(url) as (server, _):
        assert server.get("/health/ready").status_code == 200
        assert server.get("/v1/users/me").status_code == 401
        server.headers["Authorization"] = f"Bearer {api_key}"
        assert server.get("/v1/users/me").json()["email"] == "admin@example.com"


@pytest.mark.parametrize("command", ["run", "dev"])
def test_fastapi_starts_the_app(make_database: MakeDatabase, command: str) -> None:
    with running(make_database(), ["fastapi", command]) as (server, _):
        assert server.get("/health/live").status_code == 200


def respond(server: socket.socket) -> tuple[str, str]:
    """The head and the body of one response."""
    head, _, body = server.recv(65_536).decode().partition("\r\n\r\n")
    while len(body) < int(head.lower().partition("content-length: ")[2].partition("\r\n")[0]):
        body += server.recv(65_536).decode()
    return head, body


@pytest.mark.parametrize(
    "command",
    [UVICORN, [*UVICORN, "--workers", "2"], ["fastapi", "run"]],
    ids=["1", "2", "fastapi"],
)
@pytest.mark.parametrize("is_split", [False, True])
def test_a_trailer_field_is_not_a_header(
    make_database: MakeDatabase, command: list[str], is_split: bool
) -> None:
    url = make_database()
    key = f"Authorization: Bearer {create_admin_key(url)}\r\n"
    head = "GET /v1/users/me HTTP/1.1\r\nHost: a\r\n"
    chunks = "Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n0\r\n"
    trailer = "Host: b\r\nX-Forwarded-For: 192.0.2.1\r\nX-Request-ID: trailer\r\n"
    with (
        running(url, command, TRUSTED_PROXIES="127.0.0.1") as (client, _),
        socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=30) as server,
    ):
        for sent_key, trailer_key, status in (("", key, 401), (key, key, 200), ("", "", 401)):
            server.sendall(f"{head}{sent_key}{chunks}".encode())
            if is_split:
                time.sleep(0.1)
            server.sendall(f"{trailer_key}{trailer}\r\n".encode())
            response_head, body = respond(server)
            assert response_head.startswith(f"HTTP/1.1 {status} "), body
            assert "trailer" not in response_head


@pytest.mark.parametrize(
    "command", [["uvicorn", "app.main:app"], ["fastapi", "run"]], ids=["uvicorn", "fastapi"]
)
def test_a_process_on_the_same_machine_cannot_forge_its_address(
    make_database: MakeDatabase, command: list[str]
) -> None:
    url = make_database()
    api_key = create_admin_key(url)
    with running(url, command, api_key) as (client, _):
        only_from_here = {"allowed_cidrs": ["127.0.0.0/8"]}
        assert client.patch("/v1/api-keys/current", json=only_from_here).status_code == 200
        forged = {"X-Forwarded-For": "203.0.113.9"}
        assert client.get("/v1/users/me", headers=forged).status_code == 200


UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.mark.parametrize("command", [["uvicorn", "app.main:app"], ["fastapi", "run"]])
@pytest.mark.parametrize("locations", ["bearer", "query"])
def test_the_log_of_the_server_redacts_keys(
    make_database: MakeDatabase, tmp_path: Path, command: list[str], locations: str
) -> None:
    secret = "7" * 49
    query = {"api_key": f"acme_live_{'0' * 16}_{secret}", "q": f"acme_test_{'1' * 16}_{secret}"}
    with (
        (tmp_path / "log").open("wb") as log,
        running(make_database(), command, output=log, API_KEY_LOCATIONS=locations) as (server, _),
    ):
        for headers in ({}, UPGRADE):
            server.get("/v1/users/me", params=query, headers=headers)
    text = (tmp_path / "log").read_text()
    assert text.count(f"api_key=acme_live_{'0' * 16}_***") == 2
    assert text.count(f"q=acme_test_{'1' * 16}_***") == 2
    assert secret not in text
