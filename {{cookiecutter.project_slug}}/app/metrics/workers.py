"""What prometheus_client leaves to the application if several processes share a folder."""

import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

from prometheus_client import Metric, ProcessCollector
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

FILE = re.compile(r"(counter|histogram|gauge_\w+)_(?P<pid>\d+)\.db")


class WorkerMetrics(Collector):
    """The metrics of all workers. MultiProcessCollector fails while a worker creates its files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        files = [str(file) for file in _pids_by_file(self._folder) if _has_content(file)]
        merge: Any = MultiProcessCollector.merge  # Any: it has no types
        return cast(list[Metric], merge(files, accumulate=True))


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # another worker has just deleted it
        return False


class WorkerProcesses(Collector):
    """The `process_*` metrics of each worker, told apart by the label `pid`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        metrics: dict[str, Metric] = {}
        for pid in sorted(set(_pids_by_file(self._folder).values())):
            for one in _process(pid).collect():
                metric = metrics.setdefault(one.name, Metric(one.name, one.documentation, one.type))
                for sample in one.samples:
                    metric.add_sample(sample.name, {"pid": str(pid)}, sample.value)
        yield from metrics.values()


def _process(pid: int) -> ProcessCollector:
    return ProcessCollector(pid=lambda: pid, registry=None)


@cache  # once per process: later, it would delete its own files
def delete_old_files(folder: Path) -> None:
    """Delete the gauges of dead processes, and at the start of the first worker, all their files.

    Later, the counters of a dead worker stay: a sum of counters must not decrease.
    """
    pids = _pids_by_file(folder)
    old = {file for file, pid in pids.items() if not _is_other_process(pid)}
    is_first = len(old) == len(pids)
    for file in old:
        if is_first or file.name.startswith("gauge"):
            file.unlink(missing_ok=True)  # another worker does the same


def _pids_by_file(folder: Path) -> dict[Path, int]:
    matches = {file: FILE.fullmatch(file.name) for file in folder.iterdir()}
    return {file: int(match["pid"]) for file, match in matches.items() if match}


def _is_other_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # of another user
        return True
    except OSError:
        return False
    return pid != os.getpid()
