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
    assert needed <= sys.stdlib_module_names | {"jinja2"}
    assert not needed & {"http", "socket", "ssl", "subprocess", "urllib"}


TWO_VERSIONS = """
from pathlib import Path
from jinja2 import Environment

ANSWERS = "hooks.answers.Answers"
Environment(extensions=[ANSWERS])
file = Path("hooks/answers.py")
file.write_text(file.read_text("utf-8").replace('"toml": toml', '"toml": toml, "added": toml'), "utf-8")
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


def test_another_answer_removes_the_files_of_the_first_and_no_others(bake: Bake, tmp_path: Path) -> None:
    project = bake(deployment="kubernetes")
    mine = project / "kubernetes/mine.yaml"
    mine.touch()
    before = set(project.rglob("*"))
    hook = tmp_path / "hook.py"
    for answer in ("kubernetes", "compose", "none", "none"):
        hook.write_text(HOOK.read_text("utf-8").replace("{{ cookiecutter.deployment }}", answer), "utf-8")
        run([sys.executable, hook], project)
        removed = before - set(project.rglob("*"))
        assert (project / "Dockerfile" in removed) == (answer == "none")
        assert (project / "kubernetes/deployment.yaml" in removed) == (answer != "kubernetes")
        assert not removed & {mine, project / ".env", project / "README.md"}


@pytest.mark.parametrize("answers", [{}, {"deployment": "kubernetes", "ci": "gitlab"}], ids=["defaults", "others"])
def test_a_second_run_changes_nothing(bake: Bake, tmp_path: Path, answers: dict[str, str]) -> None:
    project = bake(**answers)
    before = snapshot(project)
    text = HOOK.read_text("utf-8")
    for name, answer in ({"deployment": "none", "ci": "github"} | answers).items():
        text = text.replace(f"{{{{ cookiecutter.{name} }}}}", answer)
    assert "cookiecutter" not in text
    hook = tmp_path / "hook.py"
    hook.write_text(text, "utf-8")
    run([sys.executable, hook], project)
    assert snapshot(project) == before


def snapshot(project: Path) -> dict[Path, tuple[int, bytes]]:
    """What is there, and when it was changed."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in project.rglob("*")
    }


def test_an_example_without_a_place_for_the_pepper_is_refused(bake: Bake) -> None:
    project = bake()
    (project / ".env").unlink()
    (project / ".env.example").write_text("API_KEY_EXPIRE_DAYS=15\n")
    hook = run_hook(project)
    assert hook.returncode == 1
    assert hook.stderr == ".env.example must hold the line API_KEY_PEPPERS= once, to be filled in.\n"
    assert not (project / ".env").exists()
