"""Follows the instructions of a page of docs/.

An `sh` block is run. A `python` block is the content of the file that starts the paragraph before
it. A `diff` block names the files to edit after `@@`, as docs/delete-a-feature.md explains.
`*` in a name stands for any text, such as the date of a migration.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from without import diffs, edited

from tests.bakery import lend_make, run

BLOCK = re.compile(r"(?P<before>(?:^(?!```).+\n)*)\n?^```(?P<language>\w+)\n(?P<text>(?:.*\n)*?)^```$", re.MULTILINE)
FILE = re.compile(r"`([\w./]+)`")


def follow(page: str, project: Path, variables: Mapping[str, str]) -> None:
    for block in BLOCK.finditer(page):
        if block["language"] == "sh":
            execute(block["text"], project, variables)
        write(block[0], project)


def execute(commands: str, project: Path, variables: Mapping[str, str]) -> None:
    run(["bash", "-euo", "pipefail", "-c", commands], project, **lend_make(project), **variables)


def write(page: str, project: Path) -> None:
    """Edit the files, without running the commands."""
    for path, text in created(page).items():
        (project / path).write_text(text, "utf-8")
    for path, edits in diffs(page).items():
        file = next(project.glob(path))
        file.write_text(edited(path, file.read_text("utf-8"), edits), "utf-8")


def created(page: str) -> dict[str, str]:
    """The files whose whole content the page shows."""
    blocks = [block for block in BLOCK.finditer(page) if block["language"] == "python"]
    return {path[1]: block["text"] for block in blocks if (path := FILE.match(block["before"]))}
