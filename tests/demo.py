"""Bake a project with the defaults, start it, send it a request with a key, and stop it: a new user's first minute.

With DEMO=stay, it stays up with data to look at in the console, until Ctrl+C.
"""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bakery import BUILD, ROOT, bake, user_environ
from tests.seed import seed

DEMO = BUILD / "demo"
KEY = re.compile(r"[a-z][a-z0-9]{1,9}_test_\w+\n")
PATIENCE = 60  # seconds for the server to start, and again for it to stop


def main() -> None:
    shutil.rmtree(DEMO, ignore_errors=True)

    print("$ cookiecutter --no-input .", flush=True)
    project = bake(DEMO)
    print(f"$ cd {project.relative_to(ROOT)}\n$ make run", flush=True)
    port = free_port()
    with running(project, port) as key:
        print(key)
        print(f'$ curl --include --header "Authorization: Bearer {key}" http://127.0.0.1:{port}/v1/users/me')
        status, answer = ask(port, key)
        print(answer, flush=True)
        print(f"The console: http://127.0.0.1:{port}/console/", flush=True)
        if os.environ.get("DEMO") == "stay":
            stay(project, port, key)
    print("Stopped.")
    if status != 200:
        sys.exit(f"The answer should have been 200, not {status}.")


def stay(project: Path, port: int, key: str) -> None:
    seed(port, key, project / "app.db")
    print("It has two users, twelve keys and a week of usage. Paste the key there. Ctrl+C stops it.", flush=True)
    with suppress(KeyboardInterrupt):
        signal.pause()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def running(project: Path, port: int) -> Iterator[str]:
    """The key that `make run` prints, while it serves; what it says besides goes to a log."""
    log = project.with_suffix(".log")
    with (
        log.open("w") as talk,
        subprocess.Popen(
            ["make", "--silent", "run", f"PORT={port}", f"PYTHON={sys.executable}"],
            cwd=project,
            env=user_environ(),
            stdout=subprocess.PIPE,
            stderr=talk,
            text=True,
            start_new_session=True,  # make, uvicorn and its reloader make up a group, to be stopped together
        ) as make,
    ):
        try:
            key = next(filter(KEY.fullmatch, make.stdout or ()), None)
            if not key or not serves(make, port):
                sys.exit(f"make run did not start a server; {log} says why.")
            yield key.strip()
        finally:
            stop(make)


def serves(make: subprocess.Popen[str], port: int) -> bool:
    deadline = time.monotonic() + PATIENCE
    while make.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return True
    return False


def stop(make: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):  # it ended by itself
        os.killpg(make.pid, signal.SIGINT)
        try:
            make.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(make.pid, signal.SIGKILL)
            raise


def ask(port: int, key: str) -> tuple[int, str]:
    """The status, and the whole answer as `curl --include` shows it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/v1/users/me", headers={"Authorization": f"Bearer {key}"})
    response = connection.getresponse()
    head = [
        f"HTTP/1.1 {response.status} {response.reason}",
        *(f"{name}: {value}" for name, value in response.getheaders()),
    ]
    return response.status, "\n".join([*head, "", response.read().decode()])


if __name__ == "__main__":
    main()
