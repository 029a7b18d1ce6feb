"""Several workers share their metrics through the files of prometheus_client."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from httpx import ASGITransport, AsyncClient

from app.core.database import Database
from app.main import create_app
from app.metrics.workers import delete_old_files
from app.settings import Settings
from tests.conftest import MakeDatabase
from tests.test_server import UVICORN, create_admin_key, running

ME = "/v1/users/me"
COUNTED = '\nhttp_requests_total{method="GET",path="/v1/users/me",status="200"} 2.0\n'
POOL = re.compile(r'^database_pool_in_use\{pid="(\d+)"\} ', re.MULTILINE)
CPU = re.compile(r'^process_cpu_seconds_total\{pid="(\d+)"\} ', re.MULTILINE)
NO_PROCESS = 2**22 + 1  # more than any pid on Linux


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


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METRICS_ENABLED", "true")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return tmp_path


async def test_the_metrics_of_each_running_process_have_its_pid(
    settings: Settings, real_database: Database, shared: Path
) -> None:
    app = create_app(settings, real_database)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        await client.get("/nothing")
    for pid in (os.getpid(), os.getppid(), NO_PROCESS):
        (shared / f"histogram_{pid}.db").write_bytes(bytes(8))
        (shared / f"counter_{pid}.db").touch()  # so far, its process has only created it
        (shared / f"gauge_live_{pid}.db").symlink_to("deleted")  # a moment ago
    pids = {*map(int, CPU.findall(app.state.metrics.render().decode()))}
    assert pids == ({os.getpid(), os.getppid()} if sys.platform == "linux" else set())


@pytest.mark.parametrize("another_runs", [False, True])
def test_old_files_are_deleted_at_the_start(tmp_path: Path, another_runs: bool) -> None:
    names = {f"counter_{NO_PROCESS}.db", f"gauge_liveall_{NO_PROCESS}.db", "counter.db", "app.db"}
    if another_runs:
        names.add(f"counter_{os.getppid()}.db")
    for name in names:
        (tmp_path / name).touch()
    delete_old_files(tmp_path)
    deleted = names - {file.name for file in tmp_path.iterdir()}
    assert deleted == {one for one in names if "gauge" in one or ("_" in one and not another_runs)}


def test_a_process_of_another_user_is_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(_: int, __: int) -> None:
        raise PermissionError

    file = tmp_path / f"counter_{NO_PROCESS}.db"
    file.touch()
    monkeypatch.setattr(os, "kill", deny)
    delete_old_files(tmp_path)
    assert file.exists()


def test_a_restarted_process_does_not_delete_its_files_again(tmp_path: Path) -> None:
    delete_old_files(tmp_path)
    file = tmp_path / f"counter_{os.getpid()}.db"
    file.touch()
    delete_old_files(tmp_path)
    assert file.exists()


def test_the_folder_must_exist(
    settings: Settings, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(shared / "missing"))
    with pytest.raises(SystemExit) as stopped:
        create_app(settings)
    expected = "PROMETHEUS_MULTIPROC_DIR: must be an existing folder that the app can write to."
    assert str(stopped.value) == expected


@pytest.mark.usefixtures("shared")
def test_an_empty_variable_means_that_nothing_is_shared(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    metrics = create_app(settings).state.metrics
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ  # prometheus_client would use the folder ""
    assert b"\ndatabase_pool_in_use 0.0\n" in metrics.render()
