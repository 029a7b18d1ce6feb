"""Follows docs/delete-a-feature.md: `make without feature=usage`, and with `dry=1` only shows it.

All edits are computed before the first file is written. If one does not match, nothing changes.
"""

import difflib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

PAGE = "docs/delete-a-feature.md"
BLOCK = re.compile(r"^```(\w+)\n((?:.*\n)*?)^```$", re.MULTILINE)
REST = "…"
FAILED = f"""This command failed: {{command}}
Repair what it reports, and run the rest of the section in {PAGE}.
Or undo everything since your last commit: git restore .
(Before that, undo a new migration with alembic downgrade -1, and delete its file.)"""


def sections(page: str) -> dict[str, str]:
    parts = page.split("\n## ")[1:]
    return {part.partition("\n")[0].lower().replace(" ", "-"): part for part in parts}


def blocks(text: str, language: str) -> str:
    return "".join(text for found, text in BLOCK.findall(text) if found == language)


def commands(section: str) -> list[str]:
    return re.sub(r"\\\n *", "", blocks(section, "sh")).splitlines()


def deleted(section: str) -> list[str]:
    return commands(section)[0].removeprefix("rm -rf ").split()


def diffs(text: str) -> dict[str, list[str]]:
    """The files to edit, and the lines of each edit: after `=`, the checksum of what is deleted."""
    text = re.sub(r"(\n@@ \S+) (\w+)\n", r"\1\n=\2\n", "\n" + blocks(text, "diff"))
    return {path: lines for path, *lines in map(str.splitlines, text.split("\n@@ ")[1:])}


def edited(path: str, text: str, edits: list[str]) -> str:
    """From top to bottom: each line that is shown is the next such line of the file."""
    lines, at, checksum, gone = text.split("\n"), 0, "", ""
    for number, edit in enumerate(edits, start=1):
        sign, shown, end = edit[:1], edit[1:], at
        if sign == "=":
            checksum = shown
        elif sign == "+":
            lines.insert(at, shown)
            end = at + 1
        elif shown.strip() != REST:
            at = _find(path, lines, at, shown)
            end = at + 1
        elif sign == "-":
            following = next((one[1:] for one in edits[number:] if not one.startswith("+")), "")
            end = _end(path, lines, at, shown.removesuffix(REST), following)
        if sign == "-":
            gone += "\n".join(["", *lines[at:end]])
            del lines[at:end]
        else:
            at = end
    if checksum and checksum != (found := f"{crc32(gone.encode()) % 2**16:04x}"):
        raise ValueError(f"lines to delete in {path} have changed (their checksum is {found})")
    return "\n".join(lines).rstrip("\n") + "\n"


def _find(path: str, lines: list[str], start: int, shown: str) -> int:
    beginning = shown.removesuffix(REST)
    for at in range(start, len(lines)):
        if lines[at] == shown or (beginning != shown and lines[at].startswith(beginning)):
            return at
    raise ValueError(f"{path} does not contain this line, or not in this place: {shown}")


def _end(path: str, lines: list[str], start: int, indent: str, following: str) -> int:
    """Where `…` ends: after an indented block, before the next line shown, or after a paragraph."""
    if not indent and following:
        return _find(path, lines, start, following)
    for at in range(start, len(lines)):
        if (lines[at] and not lines[at].startswith(indent)) if indent else not lines[at]:
            return at
    return len(lines)


def plan(section: str, root: Path) -> dict[str, str | None]:
    """The new text of each file, or None to delete it. Files that do not exist are skipped.

    A ValueError says what the section does not expect.
    """
    paths = [root / path for path in deleted(section) if (root / path).exists()]
    if not paths:
        raise ValueError(f"the project contains none of {', '.join(deleted(section))}")
    files: dict[str, str | None] = {
        path: edited(path, (root / path).read_bytes().decode(), edits)
        for path, edits in diffs(section).items()
        if (root / path).is_file()
    }
    for file in sorted(file for path in paths for file in [path, *path.rglob("*")]):
        if file.is_symlink():
            raise ValueError(f"{file.relative_to(root)} is a symbolic link")
        if file.is_file() and file.suffix != ".pyc":
            files[file.relative_to(root).as_posix()] = None
    return files


def show(files: dict[str, str | None], root: Path) -> Iterator[str]:
    for path, new in files.items():
        old = (root / path).read_bytes()
        if not old or b"\0" in old:
            yield f"{'Binary' if old else 'Empty'} file {path} is deleted\n"
            continue
        name = f"b/{path}" if new else "/dev/null"
        before, after = (text.splitlines(keepends=True) for text in (old.decode(), new or ""))
        yield from difflib.unified_diff(before, after, f"a/{path}", name)


def write(files: dict[str, str | None], root: Path) -> None:
    for path, text in files.items():
        if text is None:
            (root / path).unlink()
        else:
            (root / path).write_bytes(text.encode())


def main(feature: str = "", *options: str) -> str | None:
    """Return why it failed. Any option only shows the changes."""
    root = Path(__file__).parent
    features = sections((root / PAGE).read_text("utf-8"))
    if feature not in features:
        names = ", ".join(features)
        if not feature:
            return f"Name a feature: make without feature=usage. The features are {names}."
        return f"{feature} is not a feature. The features are {names}."
    try:
        files = plan(features[feature], root)
    except ValueError as mismatch:
        return f"{feature}: nothing was changed, because {mismatch}"
    if options:
        sys.stdout.writelines(show(files, root))
        return None
    write(files, root)
    for command in commands(features[feature]):
        print(f"$ {command}", flush=True)
        if subprocess.run(["bash", "-c", command], cwd=root).returncode:
            return FAILED.format(command=command)
    print(f"Deleted: {feature}")
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
