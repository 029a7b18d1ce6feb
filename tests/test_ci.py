"""The files that have a project checked at every commit: valid, pinned, and saying what the Makefile says."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.bakery import PROJECT, PYTHONS, ROOT, lend_environment, run
from tests.conftest import Bake
from tests.validators import BIN, Validator, copied, expect_refusal

GITHUB = ".github/workflows/ci.yml"
DEPENDABOT = ".github/dependabot.yml"
FORMS = ".github/ISSUE_TEMPLATE"
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


def test_the_files_of_the_template_itself_are_valid(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(ROOT / ".github", tmp_path / ".github")).parent
    zizmor(copy)
    github_schema(copy)
    validate: list[str | Path] = [BIN / "check-jsonschema", "--builtin-schema"]
    run([*validate, "vendor.dependabot", DEPENDABOT], copy)
    run([*validate, "vendor.github-issue-forms", *sorted((copy / FORMS).iterdir())], copy)


def test_the_template_is_checked_with_its_own_command_and_the_servers_of_a_project() -> None:
    own, projects = (yaml.safe_load((folder / GITHUB).read_text("utf-8"))["jobs"] for folder in (ROOT, PROJECT))
    assert [step["run"] for step in own["ci"]["steps"] if "run" in step] == [".ci/run"]
    assert own["ci"]["services"] == projects["check"]["services"]


@pytest.mark.parametrize(
    ("deployment", "ecosystems"),
    [
        ("none", ["uv", "github-actions"]),
        ("compose", ["uv", "github-actions", "docker", "docker-compose"]),
        ("kubernetes", ["uv", "github-actions", "docker", "docker"]),
    ],
)
def test_dependabot_updates_packages_actions_and_images(bake: Bake, deployment: str, ecosystems: list[str]) -> None:
    project = bake(deployment=deployment)
    run([BIN / "check-jsonschema", "--builtin-schema", "vendor.dependabot", DEPENDABOT], project)
    zizmor(project)
    updates = yaml.safe_load((project / DEPENDABOT).read_text("utf-8"))["updates"]
    assert [update["package-ecosystem"] for update in updates] == ecosystems


def test_editors_find_the_interpreter_the_tests_and_the_app(bake: Bake) -> None:
    files = {path.name: path for folder in (".vscode", ".devcontainer") for path in (bake() / folder).iterdir()}
    assert sum(len(path.read_text("utf-8").splitlines()) for path in files.values()) < 60
    found = {name: json.loads(path.read_text("utf-8")) for name, path in files.items()}
    assert found["settings.json"]["python.testing.pytestEnabled"]
    assert found["launch.json"]["configurations"][0]["args"][0] == "app.main:app"
    assert found["devcontainer.json"]["postCreateCommand"] == "make migrate"


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


def test_all_files_and_pages_name_the_same_versions_of_the_servers() -> None:
    named: dict[str, set[str]] = {"postgres": set(), "redis": set()}
    files = [path for path in PROJECT.rglob("*") if path.suffix in {".yml", ".yaml", ".md"}]
    for path in files:
        for server, version in re.findall(r"(postgres|redis)(?:ql)?[: ](\d\d?)\b", path.read_text("utf-8").lower()):
            named[server].add(version)
    assert {server: len(versions) for server, versions in named.items()} == {"postgres": 1, "redis": 1}
    for path in (PROJECT / "compose.yaml", PROJECT / GITHUB, PROJECT / GITLAB, PROJECT / "docs/operations.md"):
        text = path.read_text("utf-8").lower()
        assert all(re.search(rf"{server}(ql)?[: ]{version}\b", text) for server, (version,) in named.items()), path


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
