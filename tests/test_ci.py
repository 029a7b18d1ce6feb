"""The files that have a project checked at every commit: valid, pinned, and saying what the Makefile says."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.bakery import PROJECT, PYTHONS, lend_environment, run
from tests.conftest import Bake
from tests.validators import BIN, Validator, copied, expect_refusal

GITHUB = ".github/workflows/ci.yml"
GITLAB = ".gitlab-ci.yml"
PRE_COMMIT = ".pre-commit-config.yaml"


def zizmor(project: Path) -> None:
    run([BIN / "zizmor", "--offline", "--pedantic", "--no-progress", ".github"], project)


def github_schema(project: Path) -> None:
    run([BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", GITHUB], project)


def gitlab_schema(project: Path) -> None:
    run([BIN / "check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", GITLAB], project)


def prek(project: Path) -> None:
    run([BIN / "prek", "validate-config", PRE_COMMIT], project, **prek_home(project))


def prek_home(folder: Path) -> dict[str, str]:
    return {"PREK_HOME": str(folder / ".prek")}


VALIDATORS = [zizmor, github_schema, gitlab_schema, prek]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return copied([PROJECT / file for file in (GITHUB, GITLAB, PRE_COMMIT)], tmp_path)


@pytest.mark.parametrize("validate", VALIDATORS)
def test_it_is_valid(copy: Path, validate: Validator) -> None:
    validate(copy)


@pytest.mark.parametrize(
    ("validate", "file", "good", "bad"),
    [
        (zizmor, GITHUB, "persist-credentials: false", "fetch-depth: 1"),
        (zizmor, GITHUB, "permissions: {}", "permissions: write-all"),
        (zizmor, GITHUB, "run: make check", "run: make ${{ github.head_ref }}"),
        (zizmor, GITHUB, "pull_request:", "pull_request_target:"),
        (github_schema, GITHUB, "timeout-minutes", "timeout"),
        (github_schema, GITHUB, "fail-fast", "failfast"),
        (gitlab_schema, GITLAB, "interruptible: true", "interruptible: sometimes"),
        (gitlab_schema, GITLAB, "alias: redis", "aliases: redis"),
        (prek, PRE_COMMIT, "entry:", "entries:"),
    ],
)
def test_a_broken_copy_is_not(copy: Path, validate: Validator, file: str, good: str, bad: str) -> None:
    expect_refusal(validate, copy, file, good, bad)


def test_actions_are_pinned_by_commit_with_their_version_beside_it() -> None:
    uses = re.findall(r"uses: (.*)", (PROJECT / GITHUB).read_text("utf-8"))
    assert uses
    for action in uses:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def commands(file: str) -> list[str]:
    """What a pipeline runs, but for saying where its servers are."""
    pipeline = yaml.safe_load((PROJECT / file).read_text("utf-8"))
    if file == GITLAB:
        return [line for line in pipeline["check"]["script"] if not line.startswith("export ")]
    return [step["run"] for step in pipeline["jobs"]["check"]["steps"] if "run" in step]


@pytest.mark.parametrize("file", [GITHUB, GITLAB])
def test_both_run_the_same_targets_and_start_servers_for_the_tests_that_need_them(file: str) -> None:
    assert commands(file) == ["make check", "make coverage", "make coverage"]
    text = (PROJECT / file).read_text("utf-8")
    makefile = (PROJECT / "Makefile").read_text("utf-8")
    tests = "".join(path.read_text("utf-8") for path in (PROJECT / "tests").rglob("*.py"))
    assert re.findall(r"^(?:check|coverage):", makefile, re.MULTILINE) == ["coverage:", "check:"]
    assert set(re.findall(r"TEST_\w+_URL", text)) == set(re.findall(r"\"(TEST_\w+_URL)\"", tests))
    oldest = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["requires-python"]
    assert f'["{oldest.removeprefix(">=")}", ' in text


def test_a_commit_is_checked_as_make_check_does_and_needs_nothing_fetched(bake: Bake) -> None:
    (repository,) = yaml.safe_load((PROJECT / PRE_COMMIT).read_text("utf-8"))["repos"]
    (hook,) = repository["hooks"]
    assert (repository["repo"], hook["entry"], hook["language"]) == ("local", "make check", "system")
    project = bake()
    lend_environment(project, next(iter(PYTHONS.values())))
    run(["git", "init", "--quiet"], project)
    run(["git", "add", "--all"], project)
    variables = prek_home(project.parent)
    run([BIN / "prek", "run", "--all-files"], project, **variables)
    with (project / "app/main.py").open("a", encoding="utf-8") as file:
        file.write("unsorted = 1\nimport os\n")
    with pytest.raises(AssertionError, match="E402"):
        run([BIN / "prek", "run", "--all-files"], project, **variables)
