"""AGENTS.md and the pages of docs/ name the tests that prove what they say: here it is seen that these are there."""

import re
from pathlib import Path

import pytest

from app.settings import ROOT, Settings

TEST = re.compile(r"\[`([\w/.]+)::(\w+)`\]")
PAGES = [ROOT / "AGENTS.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    for file, name in TEST.findall(page.read_text("utf-8")):
        found = [path for path in (ROOT / "tests").rglob(Path(file).name) if path.match(file)]
        assert any(f"def {name}(" in path.read_text("utf-8") for path in found), f"{file}::{name}"


def test_every_promise_about_security_names_its_test() -> None:
    text = (ROOT / "docs" / "security.md").read_text("utf-8").partition("## What is not promised")[0]
    promises = re.split(r"\n(?=- |\d\. |\n)", text)
    unproved = [promise for promise in promises if re.match(r"- ", promise) and not TEST.search(promise)]
    assert unproved == []


@pytest.mark.parametrize(
    ("text", "files"), [("commit()", {"database.py"}), ("HTTPException", {"errors.py", "logging.py"})]
)
def test_what_is_done_in_few_places_only(text: str, files: set[str]) -> None:
    app = ROOT / "app"
    assert {str(path.relative_to(app)) for path in app.rglob("*.py") if text in path.read_text("utf-8")} == files


def test_every_setting_is_in_env_example() -> None:
    documented = set(re.findall(r"^(?:# )?([A-Z_]+)=", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE))
    assert documented == {name.upper() for name in Settings.model_fields} - {"PROJECT_NAME"}
