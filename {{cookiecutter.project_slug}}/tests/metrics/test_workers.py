"""Several workers share their metrics through the files of prometheus_client."""

import os
import re
import sys
from pathlib import Path

import pytest
from httpx import ASGITransport, AsyncClient

from app.core.database import Database
from app.main import create_app
from app.metrics.workers import delete_old_files
from app.settings import Settings

CPU = re.compile(r'^process_cpu_seconds_total\{pid="(\d+)"\} ', re.MULTILINE)
NO_PROCESS = 2**22 + 1  # more than any pid on Linux


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


def test_another_worker_may_delete_an_old_file_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted = [tmp_path / f"counter_{NO_PROCESS}.db"]
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(deleted))
    delete_old_files(tmp_path)


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
