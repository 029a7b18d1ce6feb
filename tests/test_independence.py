"""The generated project's tests pass in any order, alone, and in other environments. Others in `independence.py`."""

from pathlib import Path

import pytest

from tests import independence
from tests.bakery import PYTHONS, lend_environment
from tests.conftest import Bake


@pytest.fixture
def project(bake: Bake) -> Path:
    project = bake()
    lend_environment(project, next(iter(PYTHONS.values())), independence.RANDOMLY)
    return project


def test_in_a_random_order_in_another_time_zone_and_locale_where_files_are_private(project: Path) -> None:
    independence.run_elsewhere(project, seed=20261127)  # not today's: the result must depend only on the commit


@pytest.mark.parametrize("moment", [independence.LEAP_DAY, independence.NEW_YEAR])
def test_on_special_days(project: Path, moment: str) -> None:
    independence.run_at(project, moment)


def test_single_tests(project: Path) -> None:
    for test in independence.sample_of_tests(project, 5):
        independence.run_tests(project, test)
