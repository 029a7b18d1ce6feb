"""What the tests and the demo share: bakes, virtual environments for them, and commands run as a user would."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parent.parent
PROJECT = ROOT / "{{cookiecutter.project_slug}}"
PLUGINS = ROOT / "tests/plugins"  # of pytest, for the tests of a baked project
ADDED_TESTS = ROOT / "tests/project"  # are copied to the tests of a baked project
REPORTERS = ("opentelemetry-sdk>=1.44", "sentry-sdk>=2.75")  # packages that ADDED_TESTS need
BUILD = ROOT / "build"
ENVIRONMENTS = BUILD / "environments"
TIMEOUT = 600  # seconds; whatever takes longer hangs

# For a project's own tests in tests of ours: one process each, because ours run in several.
FRUGAL = {"PYTEST_XDIST_AUTO_NUM_WORKERS": "0"}

# Set by the make and pytest around us, or for another project; inside a baked project they would change what runs.
OURS = ("COOKIECUTTER_", "DATABASE_URL", "MAKE", "MFLAGS", "PYTEST_", "PYTHON", "TEST_DATABASE_URL", "VIRTUAL_ENV")


def run(command: Sequence[str | Path], folder: Path, **variables: str) -> str:
    """What the command printed; an AssertionError that shows it if the command failed."""
    __tracebackhide__ = True
    done = subprocess.run(
        command,
        cwd=folder,
        env=user_environ() | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def user_environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


def bake(folder: Path, *answers: str) -> Path:
    """A project in the folder, from the command line, like `bake(BUILD / "mine", "database=postgresql")`."""
    folder.mkdir(parents=True)
    # cookiecutter keeps all answers for --replay, in the home folder if nobody says otherwise. JSON is YAML.
    config = folder / "cookiecutter.yaml"
    config.write_text(json.dumps({"cookiecutters_dir": str(folder), "replay_dir": str(folder)}))
    options = ["--no-input", f"--config-file={config}", f"--output-dir={folder}"]
    run([sys.executable, "-m", "cookiecutter", *options, ROOT, *answers], ROOT)
    return next(path for path in folder.iterdir() if path.is_dir())


def find_python(version: str) -> str | None:
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    found = [shutil.which(f"python{version}"), *map(str, pyenv.glob(f"versions/{version}.*/bin/python"))]
    return next(filter(None, (_executable(python) for python in found if python)), None)


def _executable(python: str) -> str:
    """Empty for a python3.13 that pyenv puts on PATH only to say that 3.13 is not selected."""
    command = [python, "-c", "import sys; print(sys.executable)"]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT).stdout.strip()


# Where neither the oldest nor the newest is there, the Python that runs the tests has to do.
PYTHONS = {version: python for version in ("3.11", "3.13") if (python := find_python(version))} or {
    f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable
}


def lend_environment(project: Path, python: str, *packages: str) -> None:
    """Give the project the .venv that its own Makefile made, once per Python and set of dependencies, for a twin.

    And what mypy learned there of the libraries: a copy, because two that run at once would read each other's modules.
    With `packages`, which the project does not depend on, the .venv is a copy of the twin's. Run its programs as
    `.venv/bin/python -m …`, because its scripts start the twin's Python.
    """
    text = (project / "pyproject.toml").read_text("utf-8")
    wanted = tomllib.loads(text)
    dependencies = repr((python, wanted["project"]["dependencies"], wanted["dependency-groups"]))
    twin = ENVIRONMENTS / sha256(dependencies.encode()).hexdigest()[:16]
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{twin}.lock", timeout=TIMEOUT):
        if not (twin / "complete").exists():
            shutil.rmtree(twin, ignore_errors=True)
            shutil.copytree(project, twin)
            run(["make", ".venv/complete", f"PYTHON={python}"], twin)
            run([".venv/bin/mypy"], twin)
            (twin / "complete").touch()
    (project / ".venv").symlink_to(_extended(twin, packages) if packages else twin / ".venv")
    shutil.copytree(twin / ".mypy_cache", project / ".mypy_cache")
    os.utime(project / "pyproject.toml", (0, 0))  # older than the .venv, or make would build it anew


def lend_make(project: Path) -> dict[str, str]:
    """Variables with a make that never builds the lent .venv anew, although pyproject.toml has been edited."""
    folder = project.with_name(f"{project.name}-make")
    if not folder.exists():
        folder.mkdir()
        make = folder / "make"
        make.write_text(f'#!/bin/sh\ntouch -d @0 "{project}/pyproject.toml"\nexec {shutil.which("make")} "$@"\n')
        make.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def _extended(twin: Path, packages: tuple[str, ...]) -> Path:
    """A copy of the twin's .venv with more packages. Hard links make it cheap."""
    copy = twin.with_name(f"{twin.name}-{sha256(repr(packages).encode()).hexdigest()[:16]}")
    with FileLock(f"{copy}.lock", timeout=TIMEOUT):
        if not (copy / "complete").exists():
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(twin / ".venv", copy / ".venv", symlinks=True, copy_function=os.link)
            install = ["uv", "pip", "install", "--quiet", f"--python={copy}/.venv/bin/python"]
            run([sys.executable, "-m", *install, *packages], copy)
            (copy / "complete").touch()
    return copy / ".venv"
