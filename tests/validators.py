"""What the validators of plain files share: each is run on a copy, and on copies that are broken on purpose."""

import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.bakery import PROJECT

BIN = Path(sys.executable).parent  # where the validators are

Validator = Callable[[Path], None]


def copied(files: Iterable[Path], folder: Path) -> Path:
    for file in files:
        target = folder / file.relative_to(PROJECT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return folder


def expect_refusal(validate: Validator, copy: Path, file: str, good: str, bad: str) -> None:
    """The validator refuses the file with something bad in place of something good."""
    text = (copy / file).read_text("utf-8")
    assert good in text
    (copy / file).write_text(text.replace(good, bad), "utf-8")
    with pytest.raises(AssertionError, match="ended with"):
        validate(copy)
