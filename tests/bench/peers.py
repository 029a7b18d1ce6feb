"""What others do, each in an environment of its own, and against its own endpoint without authentication."""

import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from tests.bakery import ENVIRONMENTS, run, user_environ
from tests.bench.cases import ITEM, NO_AUTHENTICATION
from tests.bench.load import Request
from tests.bench.measure import Contestant, Row
from tests.bench.servers import Server

APPS = Path(__file__).parent / "apps"


class Peer(NamedTuple):
    title: str
    module: str  # in apps/
    header: str
    packages: list[str]


PEERS = [
    Peer("fastapi-simple-security 1.3.0", "peer_simple_security", "api-key:", ["fastapi-simple-security==1.3.0"]),
    Peer(
        "fastapi-sqlmodel-security 1.0.1", "peer_sqlmodel_security", "x-api-key:", ["fastapi-sqlmodel-security==1.0.1"]
    ),
    Peer(
        "keyshield 2.0.1, cached, not sleeping",
        "peer_keyshield",
        "Authorization: Bearer",
        ["keyshield[core,fastapi]==2.0.1", "aiosqlite", "greenlet"],
    ),
    Peer("bcrypt at each request", "peer_bcrypt", "X-API-Key:", ["bcrypt"]),
]


def install(peer: Peer, python: str) -> Path:
    """The environment of a peer. Raises AssertionError with what the installer says."""
    folder = ENVIRONMENTS / f"{peer.module}-{Path(python).name}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        uv = Path(sys.executable).with_name("uv")
        folder.mkdir(parents=True)
        run([uv, "venv", "--quiet", "--python", python, ".venv"], folder)
        run(
            [
                uv,
                "pip",
                "install",
                "--quiet",
                "--python",
                ".venv/bin/python",
                "fastapi",
                "uvicorn[standard]",
                *peer.packages,
            ],
            folder,
        )
        (folder / "complete").touch()
    return folder / ".venv"


def row(peer: Peer, folder: Path, python: str) -> Row:
    """In a folder that is yet to be made."""
    folder.mkdir()
    (folder / ".venv").symlink_to(install(peer, python))
    for name in ("bench_item", peer.module):
        shutil.copy(APPS / f"{name}.py", folder)
    key = run([".venv/bin/python", f"{peer.module}.py"], folder).splitlines()[-1]
    server = Server(folder, f"{peer.module}:app", user_environ())
    bare, guarded = (
        Contestant(name, server, Request(path, [key], 200, ITEM, peer.header))
        for name, path in ((NO_AUTHENTICATION, "/open"), (peer.title, "/guarded"))
    )
    return Row("peers", guarded, bare)
