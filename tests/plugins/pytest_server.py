"""Runs pytest in forks of a process that has imported the libraries, because that takes longer than most tests.

The first line on stdin names the modules to import. Each other line is a job, each line on stdout its exit code.
"""

import importlib
import json
import os
import signal
import sys
from threading import Timer
from typing import Any

import pytest


def serve() -> None:
    for module in sys.stdin.readline().split():
        importlib.import_module(module)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            run(job)
        timer = Timer(job["timeout"], os.killpg, [child, signal.SIGKILL])
        timer.start()
        _, status = os.waitpid(child, 0)
        timer.cancel()
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(job: dict[str, Any]) -> None:
    os.setsid()
    os.chdir(job["folder"])
    os.environ.update(job["variables"])
    sys.path.insert(0, job["folder"])
    output = os.open(job["output"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # pytest cannot rewrite the assertions of plugins that are imported.
    code = pytest.main(["-W", "ignore::pytest.PytestAssertRewriteWarning", *job["arguments"]])
    sys.stdout.flush()
    os._exit(code)


serve()
