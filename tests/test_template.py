"""What a bake holds, and what the template itself may hold."""

import ast
import itertools
import json
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from hooks.answers import DEPENDENCIES
from tests.bakery import ROOT, run
from tests.conftest import Bake, Cookies

PROJECT = ROOT / "{{cookiecutter.project_slug}}"
BRACES = re.compile(r"(?<!\$)\{\{|\{%|\{#")  # not the ${{ … }} of GitHub's workflows

every_database = pytest.mark.parametrize("database", ["sqlite", "postgresql"])
every_deployment = pytest.mark.parametrize("deployment", ["none", "compose", "kubernetes"])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_seven_questions_each_with_a_prompt_and_none_of_them_secret() -> None:
    template = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))
    questions = [name for name in template if not name.startswith("_")]
    mine = ["project_name", "project_slug", "description", "author"]
    assert questions == [*mine, "api_key_prefix", "database", "deployment"]
    assert list(template["__prompts__"]) == questions


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
    assert set(rendered) <= {".env.example", ".gitleaks.toml", "LICENSE", "README.md", "pyproject.toml"}
    assert sum(len(re.findall(r"\{%-?\s*(?:if|elif)\b", text)) for text in rendered.values()) <= 5


@every_database
@every_deployment
def test_nothing_is_left_unrendered(bake: Bake, database: str, deployment: str) -> None:
    for name, text in contents(bake(database=database, deployment=deployment)).items():
        assert b"cookiecutter" not in text, name
        if not name.endswith(".py"):  # there, {{ is a brace in an f-string
            assert not BRACES.search(text.decode()), name


@every_database
@every_deployment
def test_two_bakes_differ_in_their_env_only(bake: Bake, database: str, deployment: str) -> None:
    one, other = (contents(bake(database=database, deployment=deployment)) for _ in range(2))
    assert one.pop(".env") != other.pop(".env")
    assert one == other


def test_what_linters_leave_in_the_template_does_no_harm(cookies: Cookies, template: Path, tmp_path: Path) -> None:
    used = Path(shutil.copytree(template, tmp_path / "used"))
    for folder in (".ruff_cache/0", "app/__pycache__"):
        (used / PROJECT.name / folder).mkdir(parents=True)
        (used / PROJECT.name / folder / "cache").write_bytes(b"\xff{{")  # cookiecutter would die rendering this
    assert cookies.bake(extra_context={}, template=str(used)).exit_code == 0


@every_database
def test_the_database_is_the_one_asked_for(bake: Bake, database: str) -> None:
    assert f"\nDATABASE_URL={database}://" in (bake(database=database) / ".env").read_text("utf-8")


def test_a_deployment_is_made_of_whole_files(bake: Bake) -> None:
    bakes = {name: contents(bake(deployment=name)) for name in ("none", "compose", "kubernetes")}
    plain = set(bakes["none"])
    image = {".dockerignore", "Dockerfile"}
    assert set(bakes["compose"]) - plain == image | {"Caddyfile", "compose.yaml"}
    manifests = set(bakes["kubernetes"]) - plain - image
    assert manifests == {f"kubernetes/{file.name}" for file in (PROJECT / "kubernetes").iterdir()}
    for one, other in itertools.combinations(bakes.values(), 2):
        assert {name for name in one.keys() & other.keys() if one[name] != other[name]} == {".env"}


def test_slugs_are_refused_for_the_name_of_every_dependency(bake: Bake) -> None:
    project = bake(project_slug="not-a-dependency")
    run([sys.executable, "-m", "uv", "lock"], project)
    lock = tomllib.loads((project / "uv.lock").read_text("utf-8"))
    names = {package["name"] for package in lock["package"]} - {"not-a-dependency"}
    assert sorted(names - DEPENDENCIES) == [], "add these to DEPENDENCIES in hooks/answers.py"
