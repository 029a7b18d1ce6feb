"""Runs the `sh` blocks of the READMEs, in order, in one shell.

A `console` block shows a session and is not run.
"""

import os
import re
import shlex
import shutil
import socket
import sys
from pathlib import Path

import pytest

from tests.bakery import PROJECT, PYTHONS, ROOT, lend_environment, run
from tests.conftest import Bake
from tests.demo import free_port

SH = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
UNKNOWN_REVISION = """
import sqlite3
with sqlite3.connect("app.db") as database:
    database.execute("UPDATE alembic_version SET version_num = 'deleted'")
"""
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


def test_the_first_commands_generate_a_project(template: Path, tmp_path: Path) -> None:
    """With uvx, and with pip in a virtual environment."""
    with_uv, with_pip = CONSOLE.findall((template / "README.md").read_text("utf-8"))
    assert with_uv.splitlines()[1:] == ["$ cd my-api", "$ make run"]
    uvx, *with_pip = [line.removeprefix("$ ") for line in (with_uv.splitlines()[0], *with_pip.splitlines())]
    commands = {"uvx": [uvx.replace("uvx", f"{sys.executable} -m uv tool run")], "pip": with_pip}
    for name, lines in commands.items():
        folder, home = tmp_path / name, tmp_path / f"{name}-home"
        folder.mkdir()
        home.mkdir()
        text = "\n".join(lines).replace("gh:OWNER/REPOSITORY", f"{template} --no-input")
        text = text.replace("python3 ", f"{next(iter(PYTHONS.values()))} ")
        config = f"cookiecutters_dir: {home}\nreplay_dir: {home}\n"
        (home / "config").write_text(config, "utf-8")
        run(["bash", "-euxo", "pipefail", "-c", text], folder, COOKIECUTTER_CONFIG=str(home / "config"))
        assert (folder / "my-api/Makefile").exists()


@pytest.mark.parametrize("readme", [ROOT / "README.md", PROJECT / "README.md"], ids=["template", "project"])
def test_the_one_hour_read_has_as_many_lines_as_stated(readme: Path) -> None:
    text = readme.read_text("utf-8").replace("\n", " ")
    found = re.search(r"\*\*The one-hour read\*\* has ([\d,]+) lines: (.*?)[.,] ", text)
    assert found
    paths = [PROJECT / "app" / name for name in re.findall(r"`([\w/.]+)`", text[found.start() : found.end() + 80])]
    files = {file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py"))}
    assert len(paths) == 6
    assert found[1] == f"{round(sum(file.read_bytes().count(10) for file in files), -2):,}"


def complaint(project: Path, command: str, **variables: str) -> str:
    """What the command printed before it failed."""
    with pytest.raises(AssertionError) as failed:
        run(["bash", "-c", command], project, **variables)
    return str(failed.value)


def test_the_messages_in_the_projects_readme_are_those_that_people_see(bake: Bake, tmp_path: Path) -> None:
    project = bake()
    lend_environment(project, next(iter(PYTHONS.values())))
    python = ".venv/bin/python -m"
    unmigrated = complaint(project, f"{python} app check")
    run(["make", "migrate"], project)
    run([".venv/bin/python", "-m", "app", "start", "admin@example.com"], project)
    bare = tmp_path / "bare"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        seen = [
            unmigrated,
            run([".venv/bin/python", "-m", "app", "start", "admin@example.com"], project),
            complaint(project, f"make run PORT={taken.getsockname()[1]}"),
            complaint(project, f"{sys.executable} -m venv --without-pip {bare} && {bare}/bin/python -m app"),
            complaint(project, "nowhere/.venv/bin/pytest"),
            complaint(project, f"{python} app check", RATE_LIMIT="600"),
            complaint(project, f"{python} app check", DATABASE_URL="postgresql://localhost:1/x"),
            (PROJECT / "app/core/postgresql.py").read_text("utf-8"),  # test_pooler.py sees it
            (PROJECT / "app/core/errors.py").read_text("utf-8"),
            "error: externally-managed-environment",  # of pip
            "No module named venv",  # of an old Python
            "error: No interpreter found for Python >=3.11",  # of uv
            complaint(project, f"{python[:-3]} -c {shlex.quote(UNKNOWN_REVISION)} && make migrate"),
        ]
    readme = (project / "README.md").read_text("utf-8").partition("## When something is wrong")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", readme, re.MULTILINE)
    assert len(rows) == 11
    for row in rows:
        for message in re.findall(r"`(.*?)`", row):
            if message != ".venv":
                assert any(message.rstrip("… .") in text for text in seen), message


def test_the_project_without_uv(bake: Bake) -> None:
    project = bake()
    (block,) = [block for block in CONSOLE.findall((project / "README.md").read_text("utf-8")) if "--group" in block]
    install = re.sub(r"^\$ ", "", block, flags=re.MULTILINE)
    python3 = next(iter(PYTHONS.values()))
    run(["bash", "-euxo", "pipefail", "-c", install.replace("python3", python3)], project)
    run([".venv/bin/pip", "uninstall", "--yes", "uv"], project)
    run(["git", "init", "--quiet"], project)
    run(["git", "add", "."], project)
    assert not {"build", "my_api.egg-info"} & {name.split("/")[0] for name in run(["git", "ls-files"], project).split()}
    run(["make", "migrate"], project)
    run([".venv/bin/pytest", "tests/test_main.py"], project)
    assert "_test_" in run([".venv/bin/python", "-m", "app", "start", "admin@example.com"], project)
