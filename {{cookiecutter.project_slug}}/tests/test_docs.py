"""AGENTS.md and docs/ name the tests that prove their statements."""

import re
from pathlib import Path

import pytest

from app.settings import ROOT, EnvSettings

TEST = re.compile(r"\[`([\w/.]+)::(\w+)`\]")
PAGES = [ROOT / "AGENTS.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_test_that_a_page_names_exists() -> None:
    named = [one for page in PAGES for one in TEST.findall(page.read_text("utf-8"))]
    assert named
    for file, name in named:
        found = [path for path in (ROOT / "tests").rglob(Path(file).name) if path.match(file)]
        assert any(f"def {name}(" in path.read_text("utf-8") for path in found), f"{file}::{name}"


def test_every_security_guarantee_names_its_test() -> None:
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    guarantees = re.split(r"\n(?=- |\d\. |\n)", text.partition("## What is not promised")[0])
    unproven = [one for one in guarantees if one.startswith("- ") and not TEST.search(one)]
    assert unproven == []


def test_each_line_of_the_review_tables_names_a_test_or_a_reason() -> None:
    text = (ROOT / "docs" / "security.md").read_text("utf-8").partition("## For a review")[2]
    results = re.findall(r"^\| (?:API)?\d.*? \| (.*)$", text, re.MULTILINE)
    assert len(results) == 47
    for result in results:
        assert result.startswith("out of scope, because") or TEST.search(result), result


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("commit()", {"core/database.py"}),
        ("HTTPException", {"core/errors.py", "core/middleware.py"}),
    ],
)
def test_only_core_commits_and_raises_framework_errors(text: str, files: set[str]) -> None:
    app = ROOT / "app"
    found = {path for path in app.rglob("*.py") if text in path.read_text("utf-8")}
    assert {path.relative_to(app).as_posix() for path in found} == files


def test_env_example_lists_every_setting_and_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    example = (ROOT / ".env.example").read_text("utf-8")
    lines = re.findall(r"^(# )?([A-Z_]+)=(.*)$", example, re.MULTILINE)
    kinds = [kind for kind in EnvSettings.__subclasses__() if kind.__module__.startswith("app.")]
    fields = {name.upper(): kind for kind in kinds for name in kind.model_fields}
    assert {variable for _, variable, _ in lines} == fields.keys() - {"PROJECT_NAME"}

    required = {one for one in fields if fields[one].model_fields[one.lower()].is_required()}
    assert {variable for mark, variable, _ in lines if not mark} == required
    defaults = {kind: kind() for kind in kinds}
    for mark, variable, value in lines:
        if mark:
            monkeypatch.setenv(variable, value)
    assert {kind: kind() for kind in kinds} == defaults
