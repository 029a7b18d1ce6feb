"""docs/add-a-resource.md and docs/delete-a-feature.md do what they say: each step is done in a new project."""

import ast
import http.client
import itertools
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.bakery import FRUGAL, PYTHONS, ROOT, lend_environment, run
from tests.conftest import Bake
from tests.demo import PATIENCE, free_port, running
from tests.pages import BLOCK, created, diffs, follow, write

DOCS = ROOT / "{{cookiecutter.project_slug}}" / "docs"
ADD = (DOCS / "add-a-resource.md").read_text("utf-8")
DELETE = (DOCS / "delete-a-feature.md").read_text("utf-8")
SECTIONS = {text.partition("\n")[0]: text for text in DELETE.split("\n## ")[1:]}


@pytest.fixture
def project(bake: Bake) -> Path:
    """With the files of every deployment and of both kinds of CI."""
    project = bake(deployment="compose")
    shutil.copytree(DOCS.parent / "kubernetes", project / "kubernetes")
    shutil.copy(DOCS.parent / ".gitlab-ci.yml", project)
    lend_environment(project, next(iter(PYTHONS.values())))
    return project


def ask(port: int, key: str, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or "{}")


def test_a_resource_is_added_and_served(project: Path) -> None:
    follow(ADD, project, FRUGAL)
    port = free_port()
    with running(project, port):
        [create] = re.findall(r"`python (-m app keys create .*?)`", ADD)
        key = run([".venv/bin/python", *create.split()], project).strip()
        status, item = ask(port, key, "POST", "/v1/items", {"name": "Lamp"})
        assert (status, item["name"]) == (201, "Lamp")
        path = f"/v1/items/{item['id']}"
        assert ask(port, key, "PATCH", path, {"name": "Desk lamp"})[1]["name"] == "Desk lamp"
        assert ask(port, key, "GET", path)[1]["name"] == "Desk lamp"
        assert ask(port, key, "GET", "/v1/items")[1]["next_cursor"] is None
        assert ask(port, key, "DELETE", path)[0] == 204
        assert ask(port, key, "GET", path)[0] == 404


def test_the_page_says_how_much_it_makes_people_type() -> None:
    files, changes = created(ADD), diffs(ADD)
    added = [line for lines in changes.values() for line in lines if line.startswith("+")]
    lines = sum(text.count("\n") for text in files.values()) + len(added)
    of_tests = files["tests/items/test_router.py"].count("\n")
    assert f"{lines} lines, {of_tests} of them tests: {len(files)} new files, and {len(changes)} that change" in ADD


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS.keys())
def test_a_feature_is_deleted(project: Path, section: str) -> None:
    before = named_once(project / "app")
    follow(section, project, FRUGAL)
    assert named_once(project / "app") <= before, "what nothing uses any more is left behind"


def test_all_features_are_deleted_one_after_another(project: Path) -> None:
    """On the way only imports are tidied; in the end everything is checked."""
    before = lines(project / "app")
    for section in SECTIONS.values():
        follow(section.replace(" check test\n", "\n"), project, FRUGAL, passing_over=True)
    run(["make", "check", "test"], project, **FRUGAL)
    said = f"`app/` has {before:,} lines, and {lines(project / 'app'):,}\nonce every feature"
    assert said in (ROOT / "README.md").read_text("utf-8")


def lines(folder: Path) -> int:
    """To the next hundred."""
    return round(sum(path.read_bytes().count(b"\n") for path in folder.rglob("*.py")), -2)


def test_it_makes_no_difference_which_of_two_features_is_deleted_first(project: Path, tmp_path: Path) -> None:
    def written(*sections: str) -> dict[Path, str]:
        copy = Path(shutil.copytree(project, tmp_path / "copy", symlinks=True))
        for section in sections:
            write(section, copy, passing_over=True)
        texts = {path: (copy / path).read_text("utf-8") for section in sections for path in map(Path, diffs(section))}
        shutil.rmtree(copy)
        return texts

    for one, other in itertools.combinations(SECTIONS.values(), 2):
        assert written(one, other) == written(other, one)


def named_once(app: Path) -> set[str]:
    """What is defined in the app, and nowhere else in it spoken of."""
    text = "\n".join(path.read_text("utf-8") for path in app.rglob("*.py"))
    words = Counter(re.findall(r"\w+", text))
    return {name for name in defined(text) if words[name] == 1}


def defined(text: str) -> Iterator[str]:
    """But for what a decorator with arguments passes on, such as a route's function: nobody has to name that."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                if not any(isinstance(decorator, ast.Call) for decorator in node.decorator_list):
                    yield node.name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name


def test_every_section_looks_for_what_is_left() -> None:
    for section in SECTIONS.values():
        *_, last = BLOCK.finditer(section)
        assert "! grep -rnIiE" in last["text"]


@pytest.mark.parametrize("page", [ADD, DELETE], ids=["add", "delete"])
def test_what_the_pages_name_is_there(project: Path, page: str) -> None:
    commands = re.findall(r"^(?:rm|touch|mkdir) (.*)$", page, re.MULTILINE)
    typed = {word for command in commands for word in command.split() if not word.startswith("-")}
    named = typed | diffs(page).keys() | {*re.findall(r"`([\w./-]+(?:/|\.(?:md|py|yaml)))`", page)}
    made = created(page).keys() | (typed if page is ADD else set())
    assert {name for name in named if not (project / name).exists()} <= made
    settings = {*re.findall(r"`([A-Z_]+)(?:=\w*)?`", page)}
    assert settings <= {*re.findall(r"^([A-Z_]+)=", (project / ".env.example").read_text("utf-8"), re.MULTILINE)}
    assert {*re.findall(r"\]\(#([\w-]+)\)", page)} <= {name.lower().replace(" ", "-") for name in SECTIONS}
