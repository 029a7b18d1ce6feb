"""The pages of docs/ name the tests that prove what they promise: here it is seen that there are such tests."""

import re
from pathlib import Path

import pytest

from app.settings import ROOT, Settings

TEST = re.compile(r"\[`([\w/.]+)::(\w+)`\]")
PAGES = sorted((ROOT / "docs").glob("*.md"))


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


def test_every_setting_is_in_env_example() -> None:
    documented = set(re.findall(r"^(?:# )?([A-Z_]+)=", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE))
    assert documented == {name.upper() for name in Settings.model_fields} - {"PROJECT_NAME"}
