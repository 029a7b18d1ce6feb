"""A plugin of pytest: it runs the tests named in nearest.json first, or only them."""

import json
from pathlib import Path

import pytest

NEAREST: list[list[str]] = json.loads(Path("nearest.json").read_text("utf-8"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--only-nearest", action="store_true")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ranks = {test: rank for rank, tests in reversed([*enumerate(NEAREST)]) for test in tests}
    items.sort(key=lambda item: ranks.get(item.nodeid, len(NEAREST)))
    if config.getoption("--only-nearest"):
        items[:] = [item for item in items if item.nodeid in ranks]
