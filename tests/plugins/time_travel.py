"""A plugin of pytest: the tests run at the moment in TEST_NOW. Databases and other processes keep their own clocks."""

import os

import pytest
import time_machine


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop() -> object:
    with time_machine.travel(os.environ["TEST_NOW"]):
        return (yield)
