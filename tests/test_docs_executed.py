"""Follows docs/add-a-resource.md and docs/delete-a-feature.md in new projects, and checks the result."""

import ast
import http.client
import itertools
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from difflib import SequenceMatcher
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

MAX_PAGE_LINES = 200
MAX_EDITED_FILES = 8
MAX_EDITED_LINES = 40


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


def test_add_a_resource_says_how_many_lines_to_write() -> None:
    files, edits = created(ADD), diffs(ADD)
    added = [line for lines in edits.values() for line in lines if line.startswith("+")]
    lines = sum(text.count("\n") for text in files.values()) + len(added)
    of_tests = files["tests/items/test_router.py"].count("\n")
    stated = f"{lines} lines, {of_tests} of them tests: {len(files)} new files and {len(edits)}\nedited files"
    assert stated in ADD


def test_delete_a_feature_is_short() -> None:
    assert DELETE.count("\n") <= MAX_PAGE_LINES


@pytest.mark.parametrize("name", SECTIONS)
def test_a_feature_is_deleted(project: Path, name: str) -> None:
    before, unused = contents(project), named_once(project / "app")
    follow(SECTIONS[name], project, FRUGAL)
    assert named_once(project / "app") <= unused, "nothing uses what is left"
    edits = edited_lines(before, contents(project))
    with running(project, free_port()) as key:
        assert key.startswith("myapi_test_")
    print(f"\n{name}: {len(edits)} files, {sum(edits.values())} lines: {edits}")
    assert len(edits) <= MAX_EDITED_FILES
    assert sum(edits.values()) <= MAX_EDITED_LINES


def test_all_features_are_deleted_one_after_another(project: Path) -> None:
    """Between the features only imports are tidied. At the end everything is checked."""
    before, unused = count_lines(project / "app"), named_once(project / "app")
    for section in SECTIONS.values():
        follow(section.replace(" check test\n", "\n"), project, FRUGAL, passing_over=True)
    run(["make", "fix", "check", "test"], project, **FRUGAL)
    assert named_once(project / "app") <= unused, "nothing uses what is left"
    stated = f"`app/` has {before:,} lines, and {count_lines(project / 'app'):,} without"
    assert stated in (ROOT / "README.md").read_text("utf-8").replace("\n", " ")


def contents(project: Path) -> dict[str, str]:
    """The files that people edit. `make` writes the lock, and Alembic the migrations."""
    paths = [path.relative_to(project) for path in project.rglob("*") if path.is_file()]
    generated = {".venv", "uv.lock", "check.db", "app.db", ".env", ".coverage", "versions"}
    return {
        str(path): (project / path).read_text("utf-8")
        for path in paths
        if not generated & {*path.parts} and not re.search(r"_cache/|\.pyc$|\.db", str(path))
    }


def edited_lines(before: dict[str, str], after: dict[str, str]) -> dict[str, int]:
    """How many lines are deleted or added in each file that was not deleted. Blank lines are free."""
    edits = {}
    for name, text in after.items():
        old, new = ([line for line in one.splitlines() if line.strip()] for one in (before.get(name, ""), text))
        codes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        lines = sum(i2 - i1 + j2 - j1 for tag, i1, i2, j1, j2 in codes if tag != "equal")
        if lines:
            edits[name] = lines
    return edits


def count_lines(folder: Path) -> int:
    """Rounded to hundreds."""
    return round(sum(path.read_bytes().count(b"\n") for path in folder.rglob("*.py")), -2)


def test_the_order_in_which_features_are_deleted_makes_no_difference(project: Path, tmp_path: Path) -> None:
    def written(*sections: str) -> dict[Path, str]:
        copy = Path(shutil.copytree(project, tmp_path / "copy", symlinks=True))
        for section in sections:
            write(section, copy, passing_over=True)
        paths = {Path(path) for section in sections for path in diffs(section)}
        texts = {path: (copy / path).read_text("utf-8") for path in paths}
        shutil.rmtree(copy)
        return texts

    for one, other in itertools.combinations(SECTIONS.values(), 2):
        assert written(one, other) == written(other, one)


def named_once(app: Path) -> set[str]:
    """Names that are defined in the app, and used nowhere in it."""
    text = "\n".join(path.read_text("utf-8") for path in app.rglob("*.py"))
    words = Counter(re.findall(r"\w+", text))
    return {name for name in defined(text) if words[name] == 1}


def defined(text: str) -> Iterator[str]:
    """Without functions whose decorator has arguments: it registers them, as that of a route does."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                if not any(isinstance(decorator, ast.Call) for decorator in node.decorator_list):
                    yield node.name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name


def test_every_section_searches_for_what_is_left() -> None:
    for section in SECTIONS.values():
        *_, last = BLOCK.finditer(section)
        assert "! grep -rnIiE" in last["text"]


@pytest.mark.parametrize("page", [ADD, DELETE], ids=["add", "delete"])
def test_everything_that_the_pages_name_exists(project: Path, page: str) -> None:
    commands = re.findall(r"^(?:rm|touch|mkdir) (.*)$", page, re.MULTILINE)
    typed = {word for command in commands for word in command.split() if not word.startswith("-")}
    quoted = {*re.findall(r"`([\w./-]+(?:/|\.(?:md|py|yaml)))`", page)}
    new = created(page).keys() | (typed if page is ADD else set())
    named = typed | diffs(page).keys() | quoted
    assert {name for name in named if not (project / name).exists()} <= new
    example = (project / ".env.example").read_text("utf-8")
    settings = {*re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE)}
    assert {*re.findall(r"`([A-Z_]+)=\w*`", page)} <= settings
    anchors = {name.lower().replace(" ", "-") for name in SECTIONS}
    assert {*re.findall(r"\]\(#([\w-]+)\)", page)} <= anchors
