"""What a bake holds, and what the template itself may hold."""

import ast
import itertools
import json
import re
import shutil
import sys
import tomllib
from pathlib import Path

import editorconfig
import pytest

from hooks.answers import CHOICES, DEPENDENCIES, QUESTIONS
from tests.bakery import PROJECT, PYTHONS, ROOT, lend_environment, run
from tests.conftest import Bake, Cookies

BRACES = re.compile(r"(?<!\$)\{\{|\{%|\{#")  # not the ${{ … }} of GitHub's workflows

OPTIONS = {name: choices for name, choices in CHOICES.items() if name != "license"}
ALL = [dict(zip(OPTIONS, answers, strict=True)) for answers in itertools.product(*OPTIONS.values())]
VARIES_WITH = {".env.example": "database", "README.md": "database", ".github/dependabot.yml": "deployment"}
NOT_ON_WINDOWS = re.compile(r'[<>:"|?*\\]|[. ](?:/|$)|(?:^|/)(?:aux|con|nul|prn|com\d|lpt\d)(?:[./]|$)', re.IGNORECASE)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nine_questions_each_with_a_prompt_and_none_of_them_secret() -> None:
    template = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))
    questions = [name for name in template if not name.startswith("_")]
    assert questions == [*QUESTIONS]
    assert list(template["__prompts__"]) == questions
    for name, choices in CHOICES.items():
        assert template[name] == [*choices]
        assert [*template["__prompts__"][name]] == ["__prompt__", *choices]


def test_a_project_records_what_it_was_generated_from(bake: Bake, template: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    metadata = tomllib.loads((bake() / "pyproject.toml").read_text("utf-8"))
    assert metadata["tool"]["app"]["template"] == {"address": str(template), "commit": "", "version": version}
    assert metadata["tool"]["cruft"] == {"skip": [".env"]}


def test_the_newest_version_in_the_changelog_is_that_of_the_template() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))["_version"] == version
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == version


@pytest.mark.parametrize("license_id", CHOICES["license"])
def test_the_license_is_a_file_and_in_the_metadata(bake: Bake, license_id: str) -> None:
    project = bake(license=license_id, author="Ann & Co.")
    text = (project / "LICENSE").read_text("utf-8")
    assert "Copyright (c) Ann & Co." in text or "Copyright Ann & Co." in text
    assert "AUTHOR" not in text.replace("AUTHORS", "")
    metadata = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    assert metadata["license"] == {"proprietary": "LicenseRef-Proprietary"}.get(license_id, license_id)


def test_python_is_copied_as_it_is(bake: Bake, template: Path) -> None:
    source = contents(template / PROJECT.name)
    project = contents(bake())
    modules = [name for name in source if name.endswith(".py")]
    assert modules
    for name in modules:
        assert project[name] == source[name]
        ast.parse(source[name], name)


def test_only_these_files_hold_jinja_and_at_most_five_conditions(template: Path) -> None:
    rendered = {
        name: text.decode() for name, text in contents(template / PROJECT.name).items() if b"cookiecutter." in text
    }
    assert set(rendered) <= {
        ".cruft.json",
        ".env.example",
        ".github/dependabot.yml",
        ".gitleaks.toml",
        "LICENSE",
        "README.md",
        "pyproject.toml",
    }
    assert sum(len(re.findall(r"\{%-?\s*(?:if|elif)\b", text)) for text in rendered.values()) <= 5


def test_all_combinations_bake_and_share_what_they_have_in_common(bake: Bake, template: Path) -> None:
    versions: dict[tuple[str, str], set[bytes]] = {}
    for answers in ALL:
        project = contents(bake(**answers))
        assert_is_rendered(project)
        assert f"\nDATABASE_URL={answers['database']}://" in project.pop(".env").decode()
        for name, text in project.items():
            versions.setdefault((name, answers.get(VARIES_WITH.get(name, ""), "any")), set()).add(text)
    assert [name for name, texts in versions.items() if len(texts) > 1] == []
    assert {name for name, _ in versions} == contents(template / PROJECT.name).keys() - {".cruft.json"}


ACTIVE = re.compile(r"^([A-Z_]+)=", re.MULTILINE)


def test_only_what_a_project_must_set_is_active_in_its_env(bake: Bake) -> None:
    for answers in ALL:
        project = bake(**answers)
        for name in (".env.example", ".env"):
            active = ACTIVE.findall((project / name).read_text("utf-8"))
            assert active == ["DATABASE_URL", "API_KEY_PEPPERS"]


def test_a_new_default_in_the_settings_takes_effect(bake: Bake) -> None:
    project = bake()
    lend_environment(project, next(iter(PYTHONS.values())))
    settings = project / "app/settings.py"
    text = settings.read_text("utf-8")
    assert text.count('"600/minute"') == 1
    settings.write_text(text.replace('"600/minute"', '"7/second"'), "utf-8")
    print_limit = "from app.settings import get_settings; print(get_settings().rate_limit)"
    assert run([".venv/bin/python", "-c", print_limit], project) == "7/second\n"


def assert_is_rendered(project: dict[str, bytes]) -> None:
    for name, text in project.items():
        if name.endswith(".png"):
            continue
        assert b"cookiecutter." not in text, name
        assert b"\r" not in text, name
        if not name.endswith(".py"):  # there, {{ is a brace in an f-string
            assert not BRACES.search(text.decode()), name


def test_windows_can_hold_every_file(template: Path) -> None:
    names = [path.relative_to(template).as_posix() for path in template.rglob("*")]
    assert [name for name in names if NOT_ON_WINDOWS.search(name)] == []
    assert len({name.casefold() for name in names}) == len(names)
    assert max(map(len, names)) <= 100  # of the 260 that a whole path may have


def test_every_file_is_as_its_editorconfig_says(template: Path) -> None:
    for path in template.rglob("*"):
        text = path.read_text("utf-8") if path.is_file() and path.suffix not in {".png", ".pyc"} else ""
        if text:
            says = editorconfig.get_properties(str(path))
            code = re.sub(r'""".*?"""|/\*.*?\*/', "", text, flags=re.DOTALL)  # prose has lists
            first_indent = re.search(r"^[ \t]+(?=\S)", code, re.MULTILINE)
            indent = "\t" if says["indent_style"] == "tab" else " " * int(says["indent_size"])
            assert path.suffix in {".md", ".txt"} or not first_indent or first_indent[0] == indent, path
            assert text.endswith("\n"), path
            assert not re.search(r"[ \t\r]$", text, re.MULTILINE), path


def targets_of(makefile: str) -> list[str]:
    """Without the lines that only set a variable of a target."""
    return re.findall(r"^([a-z]+):(?!.*:=)", makefile, re.MULTILINE)


@pytest.mark.parametrize("folder", [ROOT, PROJECT], ids=["template", "project"])
def test_make_help_lists_every_target(folder: Path) -> None:
    makefile = (folder / "Makefile").read_text("utf-8")
    targets = targets_of(makefile)
    assert [line.split()[0] for line in run(["make", "help"], folder).splitlines()] == targets
    assert f".PHONY: {' '.join(targets)}\n" in makefile


def test_the_projects_readme_lists_every_target(bake: Bake) -> None:
    project = bake()
    listed = re.findall(r"^\| `make ([a-z]+)", (project / "README.md").read_text("utf-8"), re.MULTILINE)
    assert ["help", *listed] == targets_of((project / "Makefile").read_text("utf-8"))


def test_two_bakes_differ_in_their_env_only(bake: Bake) -> None:
    one, other = (contents(bake(deployment="compose")) for _ in range(2))
    assert one.pop(".env") != other.pop(".env")
    assert one == other


def test_what_linters_leave_in_the_template_does_no_harm(cookies: Cookies, template: Path, tmp_path: Path) -> None:
    used = Path(shutil.copytree(template, tmp_path / "used"))
    for folder in (".ruff_cache/0", "app/__pycache__"):
        (used / PROJECT.name / folder).mkdir(parents=True)
        (used / PROJECT.name / folder / "cache").write_bytes(b"\xff{{")  # cookiecutter would die rendering this
    assert cookies.bake(extra_context={}, template=str(used)).exit_code == 0


def test_deployment_and_ci_are_made_of_whole_files(bake: Bake) -> None:
    plain = set(contents(bake(deployment="none", ci="none")))
    image = {".dockerignore", "Dockerfile"}
    manifests = {f"kubernetes/{file.name}" for file in (PROJECT / "kubernetes").iterdir()}
    added = {
        ("compose", "none"): image | {"Caddyfile", "compose.yaml"},
        ("kubernetes", "none"): image | manifests,
        ("none", "github"): {".github/dependabot.yml", ".github/workflows/ci.yml"},
        ("none", "gitlab"): {".gitlab-ci.yml"},
    }
    for (deployment, ci), files in added.items():
        project = bake(deployment=deployment, ci=ci)
        assert set(contents(project)) - plain == files
        assert (project / ".github").exists() == (ci == "github")
        assert (project / "kubernetes").exists() == (deployment == "kubernetes")


def test_slugs_are_refused_for_the_name_of_every_dependency(bake: Bake) -> None:
    project = bake(project_slug="not-a-dependency")
    run([sys.executable, "-m", "uv", "lock"], project)
    lock = tomllib.loads((project / "uv.lock").read_text("utf-8"))
    names = {package["name"] for package in lock["package"]} - {"not-a-dependency"}
    assert sorted(names - DEPENDENCIES) == [], "add these to DEPENDENCIES in hooks/answers.py"
