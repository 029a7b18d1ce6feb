"""Does what a page of docs/ says, word by word.

A block of `sh` is typed. One of `python` is the whole of the file that the paragraph before it begins with. One of
`diff` names the files that it changes after `@@`; docs/delete-a-feature.md explains the rest of it to people.
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
    """`passing_over`: what the project does not have, as somebody does who has been on another page before."""
    for block in BLOCK.finditer(page):
        if block["language"] == "sh":
            os.utime(project / "pyproject.toml", (0, 0))  # older than the .venv, or make would build it anew
            run(["bash", "-euo", "pipefail", "-c", block["text"]], project, **variables)
        write(block[0], project, passing_over=passing_over)


def write(page: str, project: Path, *, passing_over: bool) -> None:
    """Only what is changed in files, without what is typed."""
    for path, text in created(page).items():
        (project / path).write_text(text, "utf-8")
    for path, changes in diffs(page).items():
        if not passing_over or (project / path).exists():
            change(project / path, changes, passing_over=passing_over)


def created(page: str) -> dict[str, str]:
    """The files that are new, and what is in them."""
    blocks = [block for block in BLOCK.finditer(page) if block["language"] == "python"]
    return {path[1]: block["text"] for block in blocks if (path := FILE.match(block["before"]))}


def diffs(page: str) -> dict[str, list[str]]:
    """The files that change, and how."""
    blocks = [block["text"] for block in BLOCK.finditer(page) if block["language"] == "diff"]
    parts = (part.splitlines() for block in blocks for part in re.split("^@@ ", block, flags=re.MULTILINE)[1:])
    return {path: changes for path, *changes in parts}


def change(path: Path, changes: list[str], *, passing_over: bool) -> None:
    """From top to bottom: each line that is shown is the next such line of the file.

    Of a line that is passed over, neither the rest is removed, nor does another one come in its place.
    """
    lines, at, is_there = path.read_text("utf-8").splitlines(), 0, True
    for sign, shown, following in _with_following(changes):
        if sign == "+":
            if is_there:
                lines.insert(at, shown)
                at += 1
        elif shown.strip() == REST:
            if is_there and sign == "-":
                indent = shown.removesuffix(REST)
                end = _end_of_block(lines, at, indent) if indent else _find(lines, at, following)
                assert end is not None, f"{path}, from line {at + 1} on, does not hold: {following}"
                del lines[at:end]
        else:
            found = _find(lines, at, shown)
            is_there = found is not None
            assert is_there or passing_over, f"{path}, from line {at + 1} on, does not hold: {shown}"
            if found is not None:
                at = found
                if sign == "-":
                    del lines[at]
                else:
                    at += 1
    path.write_text("\n".join([*lines, ""]), "utf-8")


def _with_following(changes: list[str]) -> Iterator[tuple[str, str, str]]:
    for line, following in zip(changes, [*changes[1:], ""], strict=True):
        yield line[:1], line[1:], following[1:]


def _find(lines: list[str], start: int, shown: str) -> int | None:
    beginning = shown.removesuffix(REST)
    for at in range(start, len(lines)):
        if lines[at] == shown or (beginning != shown and lines[at].startswith(beginning)):
            return at
    return None


def _end_of_block(lines: list[str], start: int, indent: str) -> int:
    beyond = (at for at in range(start, len(lines)) if lines[at] and not lines[at].startswith(indent))
    return next(beyond, len(lines))
