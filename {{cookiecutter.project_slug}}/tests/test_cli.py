import json
import runpy
import subprocess
import sys
from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from app import cli
from app.api_keys import format as key_format
from app.scopes import Scope
from app.settings import ROOT, get_settings
from tests.conftest import PEPPER, MakeDatabase

Run = Callable[..., Result]


@pytest.fixture
def environment(make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """That of the command line: an empty database, and settings from variables."""
    monkeypatch.setenv("DATABASE_URL", make_database(migrated=False))
    monkeypatch.setenv("API_KEY_PEPPERS", f"1:{PEPPER}")
    monkeypatch.setenv("API_KEY_PREFIX", "acme")
    get_settings.cache_clear()
    return monkeypatch


@pytest.fixture
def run(environment: pytest.MonkeyPatch) -> Run:
    """Runs a command in this process."""
    return lambda *arguments: CliRunner().invoke(cli.cli, arguments)


@pytest.fixture
def started(run: Run) -> Run:
    run("start", "admin@example.com")
    return run


def test_start_makes_the_admin_once_and_prints_just_the_key(run: Run) -> None:
    first = run("start", "Admin@Example.com")
    key_id = key_format.parse(first.stdout.strip(), "acme", "test")
    assert key_id is not None
    assert "only time" in first.stderr
    keys = json.loads(run("keys", "list", "admin@example.com", "--json").stdout)
    assert [key["id"] for key in keys] == [key_id]
    assert keys[0]["scopes"] == sorted(Scope)

    second = run("start", "another@example.com")
    assert (second.exit_code, second.stdout) == (0, "")
    assert "nothing was changed" in second.stderr
    assert len(json.loads(run("users", "list", "--json").stdout)) == 1


def test_users_are_created_and_listed(started: Run) -> None:
    created = started("users", "create", "ada@example.com", "--first-name", "Ada", "--admin", "--json")
    assert json.loads(created.stdout)[0]["first_name"] == "Ada"
    listed = json.loads(started("users", "list", "--json").stdout)
    assert {user["email"]: user["is_admin"] for user in listed} == {"ada@example.com": True, "admin@example.com": True}


@pytest.mark.parametrize(("options", "days"), [([], 15), (["--expires-in-days", "3"], 3), (["--never-expires"], None)])
def test_a_key_is_created_with_its_scopes_and_end(started: Run, options: list[str], days: int | None) -> None:
    made = started("keys", "create", "Admin@Example.com", "--name", "ci", "--scope", "users:read", *options)
    key_id = key_format.parse(made.stdout.strip(), "acme", "test")
    key = next(key for key in json.loads(started("keys", "list", "--json").stdout) if key["id"] == key_id)
    assert (key["name"], key["scopes"]) == ("ci", ["users:read"])
    assert (key["expires_at"] is None) is (days is None)


def test_a_key_is_revoked(started: Run) -> None:
    key_id = json.loads(started("keys", "list", "--json").stdout)[0]["id"]
    revoked = started("keys", "revoke", key_id)
    assert revoked.exit_code == 0
    assert "\trevoked\t" in revoked.stdout
    assert json.loads(started("keys", "list", "--json").stdout)[0]["status"] == "revoked"


def test_a_user_is_disabled_and_enabled(started: Run) -> None:
    started("users", "create", "ada@example.com")
    for command, is_active in (("disable", False), ("enable", True)):
        changed = json.loads(started("users", command, "Ada@example.com", "--json").stdout)
        assert changed[0]["is_active"] is is_active
    last_admin = started("users", "disable", "admin@example.com")
    assert (last_admin.exit_code, last_admin.stderr.strip()) == (1, "This is the last active admin.")


def test_a_key_is_rotated_and_just_the_new_one_printed(started: Run) -> None:
    old = json.loads(started("keys", "list", "--json").stdout)[0]
    rotated = started("keys", "rotate", old["id"], "--overlap-seconds", "60")
    new_id = key_format.parse(rotated.stdout.strip(), "acme", "test")
    keys = {key["id"]: key for key in json.loads(started("keys", "list", "--json").stdout)}
    assert keys.keys() == {old["id"], new_id}
    assert keys[old["id"]]["expires_at"] < old["expires_at"]
    again = started("keys", "rotate", old["id"])
    assert (again.exit_code, again.stderr.strip()) == (1, "This key has been rotated already.")


def test_usage_is_listed_by_the_day(started: Run) -> None:
    key_id = json.loads(started("keys", "list", "--json").stdout)[0]["id"]
    days = json.loads(started("keys", "usage", key_id, "--json").stdout)
    assert len(days) == 31
    assert {(day["requests"], day["errors"]) for day in days} == {(0, 0)}


def test_peppers_say_which_of_them_can_go(started: Run, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("API_KEY_PEPPERS", f"2:{PEPPER[::-1]}")
    get_settings.cache_clear()
    started("keys", "create", "admin@example.com", "--name", "new")
    assert json.loads(started("keys", "peppers", "--json").stdout) == [
        {"pepper": 1, "keys": 1, "known": False},
        {"pepper": 2, "keys": 1, "known": True},
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["users", "create", "ADMIN@example.com"], "There is a user with this email already."),
        (["keys", "create", "nobody@example.com", "--name", "x"], "There is no user nobody@example.com."),
        (["keys", "revoke", "0000000000000000"], "There is nothing here that you may see."),
    ],
)
def test_a_refusal_is_one_sentence_and_exit_1(started: Run, arguments: list[str], sentence: str) -> None:
    result = started(*arguments)
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (1, "", sentence)


def test_scopes_that_the_owner_cannot_have_are_refused(started: Run) -> None:
    started("users", "create", "ada@example.com")
    result = started("keys", "create", "ada@example.com", "--name", "x", "--scope", "admin")
    assert (result.exit_code, result.stderr.strip()) == (1, "The owner of the key would have to be an admin.")


def test_a_database_that_is_not_migrated_is_one_sentence(run: Run) -> None:
    result = run("users", "list")
    assert result.exit_code == 1
    assert "alembic upgrade head" in result.stderr


@pytest.mark.parametrize("arguments", [["start", "admin@example.com"], ["users", "list"]])
def test_a_database_that_is_away_is_one_sentence(
    run: Run, environment: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    environment.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/nowhere")
    get_settings.cache_clear()
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("The database refused: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["keys", "create", "admin@example.com"],
        ["keys", "create", "admin@example.com", "--name", "x", "--scope", "nothing"],
        ["keys", "create", "admin@example.com", "--name", "x", "--expires-in-days", "1", "--never-expires"],
        ["keys", "nonsense"],
    ],
)
def test_wrong_usage_is_exit_2(started: Run, arguments: list[str]) -> None:
    assert started(*arguments).exit_code == 2


def test_a_value_that_does_not_fit_is_wrong_usage(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setattr(sys, "argv", ["app", "users", "create", "not-an-email"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("app", run_name="__main__")
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("email: ")


def test_a_terminal_gets_a_table(started: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    started("keys", "create", "admin@example.com", "--name", "[red]ci")
    monkeypatch.setattr(cli, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    table = started("keys", "list").stdout
    assert "┃ status" in table
    assert "[red]ci" in table
    started("users", "create", "ada@example.com")
    assert "┃" not in started("keys", "list", "ada@example.com").stdout


def test_help_waits_for_no_database() -> None:
    program = "import sys, app.cli; print({'sqlalchemy', 'fastapi', 'alembic', 'pydantic'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True).strip() == "set()"


def test_a_wrong_setting_stops_every_command_with_one_sentence(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("API_KEY_PEPPERS", "1:short")
    environment.setattr(sys, "argv", ["app", "users", "list"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("app", run_name="__main__")
    assert stop.value.code == "API_KEY_PEPPERS has a secret (id 1) shorter than 32 characters."
