from tests.cli.conftest import Run, as_json


def test_usage_is_listed_by_day(started: Run) -> None:
    key_id = as_json(started, "keys", "list")[0]["id"]
    days = as_json(started, "keys", "usage", key_id)
    assert len(days) == 31
    assert days == sorted(days, key=lambda day: str(day["start"]))
    assert {(day["requests"], day["errors"]) for day in days} == {(0, 0)}


def test_the_usage_of_an_unknown_key_is_one_sentence(started: Run) -> None:
    result = started("keys", "usage", "0000000000000000")
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
