"""Type checkers that a developer's editor may use find no errors in the generated project."""

import sys
from pathlib import Path

import pytest

from tests.bakery import PYTHONS, lend_environment, run
from tests.conftest import Bake


@pytest.fixture
def project(bake: Bake) -> Path:
    project = bake()
    lend_environment(project, next(iter(PYTHONS.values())))
    return project


def basedpyright(project: Path) -> str:
    return run([Path(sys.executable).parent / "basedpyright", "--level", "error"], project)


def test_basedpyright_finds_no_errors(project: Path) -> None:
    """It is pyright with more rules, and needs no node.js."""
    assert basedpyright(project).startswith("0 errors")


def test_basedpyright_reads_the_settings_of_the_project(project: Path) -> None:
    with (project / "app/main.py").open("a", encoding="utf-8") as main:
        main.write('number: int = "one"\n')
    with pytest.raises(AssertionError, match="1 error,"):
        basedpyright(project)
