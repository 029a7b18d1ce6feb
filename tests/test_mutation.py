"""`make mutation` takes too long for every commit, so here only its lists are compared with the code."""

from tests.bakery import ROOT
from tests.conftest import Bake
from tests.equivalents import EQUIVALENTS
from tests.mutants import MUTANTS
from tests.mutator import all_mutants

PROJECT = ROOT / "{{cookiecutter.project_slug}}"


def test_each_listed_mutant_changes_the_code() -> None:
    for mutant in MUTANTS:
        assert (PROJECT / mutant.file).read_text("utf-8").count(mutant.old) == 1, mutant


def test_each_equivalent_is_a_mutant(bake: Bake) -> None:
    mutants = {(mutant.file, mutant.change) for mutant in all_mutants(bake())}
    assert {(file, f"-{old}\n+{new}") for file, old, new in EQUIVALENTS} <= mutants
