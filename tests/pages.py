"""Follows the instructions of a page of docs/.

An `sh` block is run. A `python` block is the content of the file that starts the paragraph before
it. A `diff` block names the files to edit after `@@`, and docs/delete-a-feature.md explains its
format.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.bakery import run

BLOCK = re.compile(r"(?P<before>(?:^.+\n)*)\n?^```(?P<language>\w+)\n(?P<text>(?:.*\n)*?)^```$", re.MULTILINE)
FILE = re.compile(r"`([\w./]+)`")
REST = "…"


def follow(page: str, project: Path, variables: Mapping[str, str], *, passing_over: bool = False) -> None:
    """`passing_over` skips what the project does not have, after another page was followed."""
    for block in BLOCK.finditer(page):
        if block["language"] == "sh":
            os.utime(project / "pyproject.toml", (0, 0))  # older than the .venv, or make would build it anew
            run(["bash", "-euo", "pipefail", "-c", block["text"]], project, **variables)
        write(block[0], project, passing_over=passing_over)


def write(page: str, project: Path, *, passing_over: bool) -> None:
    """Edit the files, without running the commands."""
    for path, text in created(page).items():
        (project / path).write_text(text, "utf-8")
    for path, changes in diffs(page).items():
        if not passing_over or (project / path).exists():
            change(project / path, changes, passing_over=passing_over)


def created(page: str) -> dict[str, str]:
    """The files whose whole content the page shows."""
    blocks = [block for block in BLOCK.finditer(page) if block["language"] == "python"]
    return {path[1]: block["text"] for block in blocks if (path := FILE.match(block["before"]))}


def diffs(page: str) -> dict[str, list[str]]:
    """The files that the page edits, and the lines of each edit."""
    blocks = [block["text"] for block in BLOCK.finditer(page) if block["language"] == "diff"]
    parts = (part.splitlines() for block in blocks for part in re.split("^@@ ", block, flags=re.MULTILINE)[1:])
    return {path: changes for path, *changes in parts}


def change(path: Path, changes: list[str], *, passing_over: bool) -> None:
    """From top to bottom: each line that is shown is the next such line of the file.

    If a line is skipped, the lines that replace it are skipped too.
    """
    lines, at, is_there = path.read_text("utf-8").splitlines(), 0, True
    for sign, shown, following in _with_following(changes):
        if sign == "+":
            if is_there:
                lines.insert(at, shown)
                at += 1
        elif shown.strip() == REST:
            if is_there and sign == "-":
                end = _end(lines, at, shown.removesuffix(REST), following, passing_over=passing_over)
                assert end is not None, f"{path}, from line {at + 1} on, does not contain: {following}"
                del lines[at:end]
        else:
            found = _find(lines, at, shown)
            is_there = found is not None
            assert is_there or passing_over, f"{path}, from line {at + 1} on, does not contain: {shown}"
            if found is not None:
                at = found
                if sign == "-":
                    del lines[at]
                else:
                    at += 1
    path.write_text("\n".join(lines).rstrip("\n") + "\n", "utf-8")


def _with_following(changes: list[str]) -> Iterator[tuple[str, str, str]]:
    """The sign, the line, and the next line that the file already contains."""
    for number, line in enumerate(changes, start=1):
        following = next((one for one in changes[number:] if not one.startswith("+")), "")
        yield line[:1], line[1:], following[1:]


def _end(lines: list[str], start: int, indent: str, following: str, *, passing_over: bool) -> int | None:
    """Where `…` ends: with the indented block, before the line that follows, or with the file."""
    if indent:
        is_outside = (bool(line) and not line.startswith(indent) for line in lines[start:])
        return next((start + n for n, outside in enumerate(is_outside) if outside), len(lines))
    end = _find(lines, start, following) if following else len(lines)
    return len(lines) if end is None and passing_over else end


def _find(lines: list[str], start: int, shown: str) -> int | None:
    beginning = shown.removesuffix(REST)
    for at in range(start, len(lines)):
        if lines[at] == shown or (beginning != shown and lines[at].startswith(beginning)):
            return at
    return None
