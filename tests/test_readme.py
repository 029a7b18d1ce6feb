"""Runs the `sh` blocks of the READMEs, in order, in one shell.

A `console` block shows a session and is not run.
"""

import os
import re
import shlex
import shutil
from pathlib import Path

from tests.bakery import PYTHONS, lend_environment, run
from tests.conftest import Bake
from tests.demo import free_port

SH = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVES = re.compile(r"^(?:make run|.*\buvicorn .*)$", re.MULTILINE)

# The commands after `serve` are those of a second terminal. A second server replaces the first. KEY is the key that the
# first start prints.
SESSION = """
stop() { [ -z "${server-}" ] || { kill -INT -- "-$server"; wait "$server" || true; }; }
trap stop EXIT
serve() {
    stop
    set -m  # a background job becomes a process group, so that make's children are stopped with it
    eval "$1" >>served.txt &
    server=$!
    set +m
    until curl --silent --output served.json "http://127.0.0.1:$UVICORN_PORT/health/live"; do
        kill -0 "$server"
        sleep 0.2
    done
    KEY=$(grep -oE '^[a-z0-9]+_test_\\w+$' served.txt)
}
"""


def typed(readme: Path) -> str:
    blocks = SH.findall(readme.read_text("utf-8"))
    assert blocks, f"{readme} contains no ```sh block"
    return "".join(blocks)


def test_the_templates_readme_on_a_machine_with_only_python_pip_and_make(template: Path, tmp_path: Path) -> None:
    checkout = shutil.copytree(template, tmp_path / "checkout")
    outside = tmp_path / "outside"
    (outside / "home").mkdir(parents=True)
    (outside / "tmp").mkdir()
    before = sorted(outside.rglob("*"))
    commands = typed(checkout / "README.md")
    assert "make demo\n" in commands
    transcript = run(
        ["bash", "-euxo", "pipefail", "-c", f"{commands}\n: again\nmake demo"],
        checkout,
        PATH="/usr/bin:/bin",
        PYTHON=next(iter(PYTHONS.values())),
        PYTEST_ADDOPTS="--collect-only --quiet",  # `make test` would come here again
        HOME=str(outside / "home"),
        TMPDIR=str(outside / "tmp"),
        XDG_CACHE_HOME=os.environ.get("XDG_CACHE_HOME", str(Path("~/.cache").expanduser())),
        XDG_CONFIG_HOME=os.environ.get("XDG_CONFIG_HOME", str(Path("~/.config").expanduser())),
    )
    assert '"email":"admin@example.com"' in transcript.rpartition("+ : again")[2]
    assert sorted(outside.rglob("*")) == before


def test_the_projects_readme(bake: Bake) -> None:
    project = bake()
    lend_environment(project, next(iter(PYTHONS.values())))
    port = str(free_port())
    commands = SERVES.sub(lambda line: f"serve {shlex.quote(line[0])}", typed(project / "README.md"))
    commands = commands.replace(":8000", f":{port}")
    run(["bash", "-euxo", "pipefail", "-c", SESSION + commands], project, UVICORN_PORT=port, PORT=port)
