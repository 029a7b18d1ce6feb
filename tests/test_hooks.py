import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bakery import ROOT, run
from tests.conftest import Bake

HOOK = ROOT / "hooks/post_gen_project.py"


def run_hook(project: Path) -> subprocess.CompletedProcess[str]:
    # A file without an encoding would have another one on Windows.
    command = [sys.executable, "-W", "error", "-X", "warn_default_encoding", str(HOOK)]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60)


def imports(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("hook", sorted((ROOT / "hooks").glob("*.py")), ids=lambda hook: hook.name)
def test_a_hook_needs_nothing_but_python_and_what_runs_it(hook: Path) -> None:
    needed = imports(hook)
    assert needed <= sys.stdlib_module_names | {"cookiecutter", "jinja2"}
    assert not needed & {"http", "socket", "ssl", "subprocess", "urllib"}


TWO_VERSIONS = """
from pathlib import Path
from jinja2 import Environment

ANSWERS = "hooks.answers.Answers"
Environment(extensions=[ANSWERS])
file = Path("hooks/answers.py")
file.write_text(file.read_text("utf-8") + "\\n\\ndef added() -> None: ...\\n", "utf-8")
file.write_text(file.read_text("utf-8").replace("filters = (", "filters = (added, "), "utf-8")
assert "added" in Environment(extensions=[ANSWERS]).filters
"""


def test_two_versions_in_one_process_each_have_their_own_filters(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "hooks", tmp_path / "hooks")
    run([sys.executable, "-c", TWO_VERSIONS], tmp_path)


def test_hooks_need_no_shell_and_lines_end_alike_on_every_system() -> None:
    assert {path.suffix for path in (ROOT / "hooks").iterdir() if path.is_file()} == {".py"}
    for hook in (ROOT / "hooks").glob("*.py"):
        assert not re.search(r"\bos\.(?:system|popen|exec|spawn|path)", hook.read_text("utf-8"))
    assert json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))["_new_lines"] == "\n"


def test_the_env_is_the_example_with_a_pepper(bake: Bake) -> None:
    project = bake()
    example = (project / ".env.example").read_text("utf-8").splitlines()
    env = (project / ".env").read_text("utf-8").splitlines()
    (place,) = [number for number, line in enumerate(example) if line == "API_KEY_PEPPERS="]
    name, _, pepper = env.pop(place).partition("=1:")
    assert name == "API_KEY_PEPPERS"
    assert len(pepper) == 43
    del example[place]
    assert env == example


def test_nobody_else_reads_the_env(bake: Bake) -> None:
    project = bake()
    (project / ".env").unlink()
    before = os.umask(0)
    try:
        run_hook(project)
    finally:
        os.umask(before)
    assert (project / ".env").stat().st_mode & 0o777 == 0o600


def test_git_ignores_the_env(bake: Bake) -> None:
    project = bake()
    run(["git", "init", "--quiet"], project)
    assert run(["git", "check-ignore", ".env"], project) == ".env\n"


def test_a_second_run_leaves_the_env_alone(bake: Bake) -> None:
    project = bake()
    before = (project / ".env").read_bytes()
    assert run_hook(project).returncode == 0
    assert (project / ".env").read_bytes() == before


MINE = (
    ".github/workflows/ci.yml",
    ".github/workflows/mine.yml",
    ".gitlab-ci.yml",
    "Caddyfile",
    "Dockerfile",
    "app/users/mine.py",
    "compose.yaml",
    "docs/mine.md",
    "kubernetes/deployment.yaml",
    "kubernetes/mine.yaml",
    "migrations/versions/mine.py",
    "tests/users/mine.py",
)


@pytest.mark.parametrize("options", [["-f"], ["-f", "-s"]])
def test_baking_over_a_project_keeps_the_files_that_are_not_of_the_template(
    bake: Bake, template: Path, options: list[str]
) -> None:
    project = bake(ci="none")
    for name in MINE:
        (project / name).parent.mkdir(exist_ok=True, parents=True)
        (project / name).write_text(f"mine: {name}")
    before = set(project.rglob("*"))
    command = [sys.executable, "-m", "cookiecutter", "--no-input", f"--output-dir={project.parent}", *options]
    run([*command, str(template), "ci=none"], project.parent)
    assert set(project.rglob("*")) == before
    assert [name for name in MINE if (project / name).read_text() != f"mine: {name}"] == []


def test_baking_again_with_another_answer_adds_its_files(bake: Bake, template: Path) -> None:
    project = bake(deployment="kubernetes")
    command = [sys.executable, "-m", "cookiecutter", "--no-input", "-f", f"--output-dir={project.parent}"]
    run([*command, str(template), "deployment=compose"], project.parent)
    assert (project / "compose.yaml").exists()
    assert (project / "kubernetes/deployment.yaml").exists()  # it may have been edited


@pytest.mark.parametrize("answers", [{}, {"deployment": "kubernetes", "ci": "gitlab"}], ids=["defaults", "others"])
def test_baking_again_changes_nothing(bake: Bake, template: Path, answers: dict[str, str]) -> None:
    project = bake(**answers)
    before = snapshot(project)
    command = [sys.executable, "-m", "cookiecutter", "--no-input", "-f", f"--output-dir={project.parent}"]
    run([*command, str(template), *(f"{name}={answer}" for name, answer in answers.items())], project.parent)
    assert snapshot(project) == before


def snapshot(project: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in project.rglob("*")}


def test_an_example_without_a_place_for_the_pepper_is_refused(bake: Bake) -> None:
    project = bake()
    (project / ".env").unlink()
    (project / ".env.example").write_text("API_KEY_EXPIRE_DAYS=15\n")
    hook = run_hook(project)
    assert hook.returncode == 1
    assert hook.stderr == ".env.example must contain the line API_KEY_PEPPERS= once.\n"
    assert not (project / ".env").exists()
