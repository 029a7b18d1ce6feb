"""What docs/operations.md says about OpenTelemetry and Sentry, with a server that receives what they send."""

import gzip
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.bakery import PROJECT, PYTHONS, lend_environment
from tests.conftest import Bake
from tests.pages import write
from tests.servers import Instance, SqliteStore, until

PAGE = (PROJECT / "docs/operations.md").read_text("utf-8")
ME = "/v1/users/me"
FAILS = """
from app.auth.dependencies import CurrentCaller


async def fails(caller: CurrentCaller) -> None:
    raise LookupError(f"on purpose, for {caller.key_id}")


app.add_api_route("/fails", fails)
"""


class Receiver:
    """Keeps the bodies that are posted to each path."""

    def __init__(self) -> None:
        self.received: dict[str, list[bytes]] = {}
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                received.setdefault(self.path, []).append(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"

    def text(self, path: str) -> str:
        return b"".join(self.received.get(path, [])).decode("latin-1")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = Thread(target=receiver.server.serve_forever)
    thread.start()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()
    thread.join()


def section(heading: str) -> str:
    (found,) = re.findall(rf"^### {heading}\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def variables(text: str) -> dict[str, str]:
    """What the page tells people to export."""
    (line,) = re.findall(r"^\$ export (.*)$", text, re.MULTILINE)
    return dict(pair.split("=", 1) for pair in line.split())


def instance_of(project: Path, store: SqliteStore, settings: dict[str, str]) -> Instance:
    instance = Instance(project, store, workers=1, **settings)
    instance.command[:1] = [".venv/bin/python", "-m", "uvicorn"]
    return instance


def test_traces_metrics_and_logs_arrive(
    bake: Bake, sqlite_seed: SqliteStore, receiver: Receiver, tmp_path: Path
) -> None:
    text = section("OpenTelemetry")
    project = bake()
    (package,) = re.findall(r'^\$ uv add "(.*)"$', text, re.MULTILINE)
    lend_environment(project, next(iter(PYTHONS.values())), package)
    settings = variables(text)
    assert settings["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4318"
    settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{receiver.address}"
    instance = instance_of(project, sqlite_seed.copy(tmp_path / "app.db"), settings)
    with instance.running():
        assert instance.get(ME).status == 200
        assert instance.ask("POST", "/v1/users", {"email": "x"}).status == 422
        (line,) = [line for line in instance.logged() if line.get("path") == ME]
        instance.stop()  # sends the remaining events
    assert {"/v1/traces", "/v1/metrics", "/v1/logs"} == receiver.received.keys()
    assert f"GET {ME}" in receiver.text("/v1/traces")
    assert "http.server.request.duration" in receiver.text("/v1/metrics")
    logs = receiver.text("/v1/logs")
    for value in ("my-api", "app.access", str(line["request_id"]), "code=invalid_input"):
        assert value in logs
    trace_id = bytes.fromhex(str(line["trace_id"])).decode("latin-1")
    assert trace_id in logs
    assert trace_id in receiver.text("/v1/traces")
    assert instance.store.key.rpartition("_")[2] not in f"{receiver.received}"


def test_errors_arrive_at_sentry(bake: Bake, sqlite_seed: SqliteStore, receiver: Receiver, tmp_path: Path) -> None:
    text = section("Sentry")
    project = bake()
    lend_environment(project, next(iter(PYTHONS.values())))  # the tests need the SDK, so it is there
    write(text, project)
    with (project / "app/main.py").open("a", encoding="utf-8") as main:
        main.write(FAILS)
    settings = variables(text) | {"SENTRY_DSN": f"http://public@{receiver.address}/1"}
    instance = instance_of(project, sqlite_seed.copy(tmp_path / "app.db"), settings)
    with instance.running():
        failed = instance.get("/fails")
        assert (failed.status, failed.code) == (500, "internal_error")
        until(lambda: "on purpose" in receiver.text("/api/1/envelope/"))
        instance.stop()
    assert instance.store.key.rpartition("_")[2] not in receiver.text("/api/1/envelope/")
