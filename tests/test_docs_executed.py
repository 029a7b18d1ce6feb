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
from without import commands, deleted, diffs, plan, sections, write

from tests.bakery import FRUGAL, PYTHONS, ROOT, lend_environment, lend_make, run
from tests.conftest import Bake
from tests.demo import PATIENCE, free_port, running
from tests.pages import BLOCK, execute

DOCS = ROOT / "{{cookiecutter.project_slug}}" / "docs"
ADD = (DOCS / "add-a-resource.md").read_text("utf-8")
DELETE = (DOCS / "delete-a-feature.md").read_text("utf-8")
SECTIONS = sections(DELETE)

MAX_PAGE_LINES = 200
MAX_LINES_TO_ADD = 120
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
    """The page shows excerpts of the files that its commands write."""
    for block in BLOCK.finditer(ADD):
        if block["language"] == "sh":
            execute(block["text"], project, FRUGAL)
        elif block["language"] == "python":
            folders = [*project.glob("app/items/*.py"), *project.glob("tests/items/*.py")]
            assert any(block["text"] in path.read_text("utf-8") for path in folders), block["text"]
    run(["make", "check"], project, **lend_make(project), **FRUGAL)
    run([".venv/bin/pytest", "tests/items"], project, **FRUGAL)
    port = free_port()
    with running(project, port):
        create = "-m app keys create admin@example.com --name items --all-scopes"
        key = run([".venv/bin/python", *create.split()], project).strip()
        status, item = ask(port, key, "POST", "/v1/items", {"name": "Lamp"})
        assert (status, item["name"]) == (201, "Lamp")
        path = f"/v1/items/{item['id']}"
        assert ask(port, key, "PATCH", path, {"name": "Desk lamp"})[1]["name"] == "Desk lamp"
        assert ask(port, key, "GET", path)[1]["archived"] is False
        assert ask(port, key, "GET", "/v1/items")[1]["next_cursor"] is None
        assert ask(port, key, "DELETE", path)[0] == 204
        assert ask(port, key, "GET", path)[0] == 404


def test_add_a_resource_is_short() -> None:
    assert ADD.count("\n") < MAX_LINES_TO_ADD


def test_delete_a_feature_is_short() -> None:
    assert DELETE.count("\n") <= MAX_PAGE_LINES


def without(project: Path, feature: str, *options: str) -> str:
    command = ["make", "--silent", "without", f"feature={feature}", *options]
    return run(command, project, **lend_make(project), **FRUGAL)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_feature_is_deleted(project: Path, name: str) -> None:
    before, unused = contents(project), named_once(project / "app")
    without(project, name)
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
    page = project / "docs/delete-a-feature.md"
    page.write_text(DELETE.replace(" check test\n", "\n"), "utf-8")
    for name in SECTIONS:
        without(project, name)
    page.write_text(DELETE, "utf-8")
    run(["make", "fix", "check", "test"], project, **lend_make(project), **FRUGAL)
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
        if not generated & {*path.parts} and not re.search(r"_cache/|\.pyc$|\.db|\.png$", str(path))
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
    def left(*names: str) -> dict[str, str]:
        copy = Path(shutil.copytree(project, tmp_path / "copy", symlinks=True))
        for name in names:
            write(plan(SECTIONS[name], copy), copy)
        texts = contents(copy)
        shutil.rmtree(copy)
        return texts

    for names in itertools.combinations(SECTIONS, 2):
        assert left(*names) == left(*reversed(names))


@pytest.mark.parametrize("name", SECTIONS)
def test_a_dry_run_shows_what_would_be_changed_and_changes_nothing(project: Path, tmp_path: Path, name: str) -> None:
    before = contents(project)
    patch = tmp_path / "patch"
    patch.write_text(without(project, name, "dry=1"), "utf-8")
    assert contents(project) == before
    expected = Path(shutil.copytree(project, tmp_path / "expected", symlinks=True))
    write(plan(SECTIONS[name], expected), expected)
    run(["git", "apply", patch], project)
    for path in re.findall(r"^(?:Binary|Empty) file (.*) is deleted$", patch.read_text("utf-8"), re.MULTILINE):
        (project / path).unlink()
    assert contents(project) == contents(expected)
    assert not [path for path in deleted(SECTIONS[name]) if (project / path).is_file()]


def test_every_block_that_a_section_does_not_show_has_a_checksum() -> None:
    """Versions of packages change, and the entries of Dependabot depend on the answers."""
    for section in SECTIONS.values():
        hidden = {path for path, lines in diffs(section).items() if any(re.match("-.*…$", line) for line in lines)}
        checked = {path for path, lines in diffs(section).items() if lines[0].startswith("=")}
        assert hidden - checked <= {"pyproject.toml", ".github/dependabot.yml"}


def test_nothing_is_deleted_if_a_block_that_the_section_does_not_show_has_changed(project: Path) -> None:
    command = project / "app/cli/keys.py"
    text = command.read_text("utf-8")
    command.write_text(text.replace("(await usage.read(", "(await  usage.read("), "utf-8")
    before = contents(project)
    with pytest.raises(AssertionError, match=r"because lines to delete in app/cli/keys[.]py have "):
        without(project, "usage")
    assert contents(project) == before


def lines_to_change(section: str) -> list[tuple[str, str]]:
    """The first line that a section edits in each file, and its last."""
    shown = {
        path: [line[1:].removesuffix("…") for line in lines if line[0] in "- " and line[1:].strip("… ")]
        for path, lines in diffs(section).items()
    }
    return [(path, line) for path, lines in shown.items() if lines for line in {lines[0], lines[-1]}]


@pytest.mark.parametrize("name", SECTIONS)
def test_nothing_is_deleted_if_the_project_has_changed_a_line(project: Path, name: str) -> None:
    for path, line in lines_to_change(SECTIONS[name]):
        text = (project / path).read_text("utf-8")
        changed = re.sub(rf"^{re.escape(line)}", f"# mine: {line}", text, flags=re.MULTILINE)
        (project / path).write_text(changed, "utf-8")
        before = contents(project)
        assert before[path] != text
        with pytest.raises(AssertionError, match=f"{name}: nothing was changed, because {path} does not contain "):
            without(project, name)
        assert contents(project) == before
        (project / path).write_text(text, "utf-8")


def test_nothing_is_deleted_if_the_feature_is_unknown_or_already_deleted(project: Path) -> None:
    shutil.rmtree(project / "app/metrics")
    shutil.rmtree(project / "tests/metrics")
    before = contents(project)
    with pytest.raises(AssertionError, match=rf"\nmetric is not a feature. The features are {', '.join(SECTIONS)}\.\n"):
        without(project, "metric")
    with pytest.raises(AssertionError, match="metrics: nothing was changed, because the project contains none of "):
        without(project, "metrics")
    assert contents(project) == before


def test_no_file_outside_the_project_is_deleted(project: Path, tmp_path: Path) -> None:
    outside = Path(shutil.move(project / "app/metrics", tmp_path / "outside"))
    (project / "app/metrics").symlink_to(outside)
    with pytest.raises(AssertionError, match="metrics: nothing was changed, because app/metrics is a symbolic link"):
        without(project, "metrics")
    assert (outside / "service.py").exists()


def test_a_failing_command_is_named_with_the_way_back(project: Path) -> None:
    (project / "tests/test_mine.py").write_text("from app.metrics import router\n\nNAME = router.__name__\n", "utf-8")
    with pytest.raises(AssertionError) as failed:
        without(project, "metrics")
    assert "\nThis command failed: make fix check test\n" in str(failed.value)
    assert "git restore ." in str(failed.value)


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
        assert commands(section)[-1].startswith("! grep -rnI")


@pytest.mark.parametrize("page", [ADD, DELETE], ids=["add", "delete"])
def test_everything_that_the_pages_name_exists(project: Path, page: str) -> None:
    commands = re.findall(r"^rm (.*)$", page, re.MULTILINE)
    typed = {word for command in commands for word in command.split() if not word.startswith("-")}
    quoted = {*re.findall(r"`([\w./-]+(?:/|\.(?:md|py|yaml)))`", page)}
    named = typed | diffs(page).keys() | quoted
    assert {name for name in named if not (project / name).exists() and "/items/" not in name} == set()
    example = (project / ".env.example").read_text("utf-8")
    settings = {*re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE)}
    assert {*re.findall(r"`([A-Z_]+)=\w*`", page)} <= settings
    assert {*re.findall(r"\]\(#([\w-]+)\)", page)} <= SECTIONS.keys()
