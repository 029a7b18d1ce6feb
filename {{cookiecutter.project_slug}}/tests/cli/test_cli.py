import asyncio
import json
import runpy
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from sqlalchemy import Row, text
from sqlalchemy.exc import OperationalError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from typer.core import TyperGroup
from typer.main import get_group
from typer.testing import Result

from app.audit.models import AuditEvent
from app.auth import key_format
from app.auth.scopes import Scope
from app.cli import cli, keys, users
from app.cli.run import run as run_work
from app.core import database as database_module
from app.core.database import Database, utc_now
from app.settings import get_settings
from tests import PEPPER
from tests.cli.conftest import ADMIN, Run, as_json
from tests.test_server import modules_of


def key_id_in(result: Result) -> str:
    """The id of the key, if stdout holds only a key."""
    key_id = key_format.parse(result.stdout.removesuffix("\n"), "acme", "test")
    assert key_id is not None, result.output
    return key_id


def test_help_does_not_import_the_app() -> None:
    for command in ([], ["start"]):
        modules = modules_of("-m", "app", *command, "--help")
        assert "typer" in modules
        assert not modules & {"fastapi", "sqlalchemy", "alembic"}


def test_without_a_command_the_commands_are_listed(run: Run) -> None:
    assert "purge" in run().output
    assert "rotate" in run("keys").output


def test_start_creates_the_first_admin_once(run: Run) -> None:
    first = run("start", "Admin@Example.com")
    (key,) = as_json(run, "keys", "list", ADMIN)
    assert key["id"] == key_id_in(first)
    assert key["scopes"] == sorted(Scope)

    again = run("start", "another@example.com")
    assert (again.exit_code, again.stdout) == (0, "")
    assert "keys create" in again.stderr
    assert [user["email"] for user in as_json(run, "users", "list")] == [ADMIN]
    assert len(as_json(run, "keys", "list")) == 1


def test_start_says_when_the_key_expires(run: Run, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("API_KEY_EXPIRE_DAYS", "30")
    with time_machine.travel(datetime(2030, 1, 1, 12, tzinfo=UTC), tick=False):
        assert "2030-01-31 12:00 UTC" in run("start", ADMIN).stderr


def test_keys_list_rejects_an_empty_email(started: Run) -> None:
    result = started("keys", "list", "")
    assert (result.exit_code, result.stdout) == (1, "")


def test_users_are_created_and_listed_by_email(started: Run) -> None:
    options = ("--first-name", "Ada", "--last-name", "Lovelace", "--admin")
    (created,) = as_json(started, "users", "create", "Zoe@example.com", *options)
    assert (created["first_name"], created["last_name"]) == ("Ada", "Lovelace")
    as_json(started, "users", "create", "ada@example.com")
    users = as_json(started, "users", "list")
    assert [(user["email"], user["is_admin"]) for user in users] == [
        ("ada@example.com", False),
        (ADMIN, True),
        ("zoe@example.com", True),
    ]


def test_a_user_is_disabled_and_enabled(started: Run) -> None:
    started("users", "create", "ada@example.com")
    for command, is_active in (("disable", False), ("enable", True)):
        (user,) = as_json(started, "users", command, "Ada@example.com")
        assert user["is_active"] is is_active
    assert started("users", "disable", ADMIN).exit_code == 1  # the last one


@pytest.mark.parametrize(
    ("options", "days"), [([], 15), (["--expires-in-days", "3"], 3), (["--never-expires"], None)]
)
def test_a_key_has_the_chosen_name_scopes_and_expiry(
    started: Run, options: list[str], days: int | None
) -> None:
    scopes = ("--scope", "users:write", "--scope", "users:read")
    key = as_json(started, "keys", "create", "Admin@Example.com", "--name", "ci", *scopes, *options)
    assert key_format.parse(key.pop("api_key"), "acme", "test") == key["id"]
    assert as_json(started, "keys", "list")[-1] == key
    assert (key["name"], key["scopes"]) == ("ci", ["users:read", "users:write"])
    if days is None:
        assert key["expires_at"] is None
    else:
        remaining = datetime.fromisoformat(key["expires_at"]) - utc_now()
        assert timedelta(days=days, minutes=-1) < remaining <= timedelta(days=days)


@pytest.mark.parametrize("email", [ADMIN, "ada@example.com"])
def test_all_scopes_are_those_that_the_owner_can_have(started: Run, email: str) -> None:
    started("users", "create", "ada@example.com")
    started("keys", "create", email, "--name", "ci", "--all-scopes")
    expected = sorted(scope for scope in Scope if email == ADMIN or scope is not Scope.ADMIN)
    assert as_json(started, "keys", "list", email)[-1]["scopes"] == expected


def test_a_key_without_scopes_is_created_with_a_warning(started: Run) -> None:
    created = started("keys", "create", ADMIN, "--name", "ci")
    assert key_id_in(created)
    assert "--all-scopes" in created.stderr
    assert as_json(started, "keys", "list")[-1]["scopes"] == []


def test_a_key_is_revoked(started: Run) -> None:
    key_id = as_json(started, "keys", "list")[0]["id"]
    for _ in range(2):
        revoked = started("keys", "revoke", key_id)
        assert (revoked.exit_code, revoked.stdout.split("\t")[3]) == (0, "revoked")
    assert as_json(started, "keys", "list")[0]["status"] == "revoked"


def test_a_key_is_rotated(started: Run) -> None:
    (old,) = as_json(started, "keys", "list")
    rotated = started("keys", "rotate", old["id"], "--overlap-seconds", "60")
    previous, new = as_json(started, "keys", "list")
    assert (previous["id"], new["id"]) == (old["id"], key_id_in(rotated))
    assert previous["expires_at"] < old["expires_at"]
    again = started("keys", "rotate", old["id"])
    assert (again.exit_code, again.stdout) == (1, "")


def test_keys_are_counted_by_pepper(started: Run, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("API_KEY_PEPPERS", f"2:{PEPPER[::-1]}")
    get_settings.cache_clear()
    started("keys", "create", ADMIN, "--name", "new")
    assert as_json(started, "keys", "peppers") == [
        {"pepper": 1, "keys": 1, "known": False},
        {"pepper": 2, "keys": 1, "known": True},
    ]


def test_changes_have_no_actor(started: Run) -> None:
    started("users", "create", "ada@example.com")
    started("users", "disable", "ada@example.com")
    key_id = as_json(started, "keys", "list")[0]["id"]
    started("keys", "rotate", key_id)
    started("keys", "revoke", key_id)

    async def read_actors() -> Sequence[Row[Any]]:  # Any: the columns of the query
        database = Database(get_settings().database_url)
        columns = (col(AuditEvent.actor_user_id), col(AuditEvent.actor_key_id))
        rows = await database.fetch_all(select(*columns))
        await database.dispose()
        return rows

    assert [tuple(actor) for actor in asyncio.run(read_actors())] == [(None, None)] * 7


def test_a_rejected_command_prints_one_sentence_and_exits_with_1(started: Run) -> None:
    started("users", "create", "ada@example.com")
    for command in (
        "users create ADMIN@example.com",
        "users disable nobody@example.com",
        "keys create nobody@example.com --name x",
        "keys create ada@example.com --name x --scope admin",
        "keys list nobody@example.com",
        "keys revoke 0000000000000000",
        "keys rotate 0000000000000000",
    ):
        result = started(*command.split())
        assert (result.exit_code, result.stdout) == (1, ""), command
        assert len(result.stderr.splitlines()) == 1, command


def test_wrong_usage_exits_with_2(started: Run) -> None:
    for command in (
        "users create not-an-email",
        "keys create admin@example.com",
        "keys create admin@example.com --name=",
        "keys create admin@example.com --name x --scope nothing",
        "keys create admin@example.com --name x --scope admin --all-scopes",
        "keys create admin@example.com --name x --expires-in-days 1 --never-expires",
        "keys create admin@example.com --name x --expires-in-days 0",
        "keys rotate 0000000000000000 --overlap-seconds 2592001",
        "keys nonsense",
    ):
        result = started(*command.split())
        assert (result.exit_code, result.stdout) == (2, ""), command
        assert result.stderr, command


def test_every_command_accepts_json_and_no_flag_has_a_no_variant() -> None:
    apps = (cli, keys.cli, users.cli)
    commands = [one for app in apps for one in get_group(app).commands.values()]
    assert len(commands) > 10
    for command in commands:
        if not isinstance(command, TyperGroup):
            options = {option for parameter in command.params for option in parameter.opts}
            assert "--json" in options, command.name
            assert not any(parameter.secondary_opts for parameter in command.params), command.name
            flags = [one for one in command.params if getattr(one, "is_flag", False)]
            assert not any(flag.required or flag.default for flag in flags), command.name


def test_a_database_that_is_not_migrated_is_reported(run: Run) -> None:
    result = run("users", "list")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "alembic upgrade head" in result.stderr


@pytest.mark.usefixtures("environment")
def test_another_failure_is_not_blamed_on_migrations(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail(_: AsyncSession) -> None:
        raise OperationalError("SELECT 1", {}, Exception("the disk is full"))

    with pytest.raises(SystemExit):
        run_work(fail)
    assert capsys.readouterr().err == "The database failed: the disk is full.\n"


def test_a_newer_database_is_reported(started: Run) -> None:
    async def migrate_further() -> None:
        database = Database(get_settings().database_url)
        async with database.session() as session:
            newer = text("UPDATE alembic_version SET version_num = 'newer'")
            await (await session.connection()).execute(newer)
        await database.dispose()

    asyncio.run(migrate_further())
    result = started("start", ADMIN)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "cannot be migrated" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("query", "reason"), [("", "127.0.0.1"), ("?nothing=1", 'invalid connection option "nothing"')]
)
def test_a_database_that_is_down_is_reported(
    run: Run, environment: pytest.MonkeyPatch, query: str, reason: str
) -> None:
    environment.setenv("DATABASE_URL", f"postgresql://127.0.0.1:1/nowhere{query}")
    get_settings.cache_clear()
    for command in (["start", ADMIN], ["users", "list"]):
        result = run(*command)
        assert (result.exit_code, result.stdout) == (1, "")
        assert reason in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert "alembic upgrade" not in result.stderr


@pytest.mark.parametrize("command", [["users", "list"], ["check"], ["start", ADMIN]])
def test_every_command_knows_whether_there_is_a_pooler(
    run: Run, environment: pytest.MonkeyPatch, command: list[str]
) -> None:
    poolers = []
    environment.setattr(
        database_module, "configure_postgresql", lambda _, pooler, *__: poolers.append(pooler)
    )
    environment.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/nowhere")
    environment.setenv("DATABASE_POOLER", "true")
    get_settings.cache_clear()
    assert run(*command).exit_code == 1
    assert poolers
    assert all(poolers)


def test_lists_are_tables_on_a_terminal_and_tab_separated_elsewhere(
    started: Run, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started("keys", "create", ADMIN, "--name", "[red]ci:warning:")
    lines = started("keys", "list").stdout.splitlines()
    assert [line.split("\t")[1] for line in lines] == ["first key", "[red]ci:warning:"]
    environment.setattr(sys.stdout, "isatty", lambda: True)
    started("users", "create", "ada@example.com")
    tables = []
    for email, width in ((ADMIN, "200"), (ADMIN, "60"), ("ada@example.com", "200")):
        environment.setenv("COLUMNS", width)
        environment.setattr(sys, "argv", ["app", "keys", "list", email])
        with pytest.raises(SystemExit):
            runpy.run_module("app", run_name="__main__")
        tables.append(capsys.readouterr().out)
    assert "[red]ci" in tables[0]
    assert ":warning:" in tables[0]
    assert "\t" not in tables[0]
    assert all(line.split("\t")[0] in tables[1] for line in lines), "an id can be copied"
    assert "…" not in tables[1], "nothing is cut off"
    assert tables[2] == ""


def test_no_output_contains_characters_that_change_how_the_text_after_them_is_shown(
    started: Run,
) -> None:
    hidden = "\u202e\u200b\u2066\ufeff"
    for options in ([], ["--json"]):
        result = started("keys", "create", ADMIN, "--name", f"a{hidden}é", *options)
        assert not set(hidden) & set(result.stdout)
    for options in ([], ["--json"]):
        result = started("keys", "list", *options)
        assert not set(hidden) & set(result.stdout)
    names = [line.split("\t")[1] for line in started("keys", "list").stdout.splitlines()]
    assert names[1:] == ["a����é"] * 2


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_list_is_printed_in_pages(
    started: Run, environment: pytest.MonkeyPatch, number: int
) -> None:
    module = sys.modules["app.cli.run"]
    assert module.PAGE == 1000
    environment.setattr(module, "PAGE", 2)
    started("users", "create", "ada@example.com")
    for _ in range(number):
        started("keys", "create", "ada@example.com", "--name", "ci")
    keys = as_json(started, "keys", "list", "ada@example.com")
    assert [key["name"] for key in keys] == ["ci"] * number
    lines = started("keys", "list", "ada@example.com").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == [key["id"] for key in keys]


def test_commands_that_only_read_do_not_wait_for_a_writer(started: Run) -> None:
    async def hold_lock() -> None:
        database = Database(get_settings().database_url)
        async with database.session() as session:
            await session.exec(select(AuditEvent).with_for_update())
            for command in ("users list", "keys list", "keys peppers"):
                result = await asyncio.to_thread(started, *command.split())
                assert result.exit_code == 0, result.stderr
        await database.dispose()

    asyncio.run(hold_lock())


def test_an_invalid_setting_is_reported_in_one_sentence(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("API_KEY_PEPPERS", "1:short")
    environment.setattr(sys, "argv", ["app", "users", "list"])
    with pytest.raises(SystemExit, match=r"^API_KEY_PEPPERS: .*\.$"):
        runpy.run_module("app", run_name="__main__")


def test_check_reports_each_problem_and_otherwise_that_all_is_well(
    run: Run, environment: pytest.MonkeyPatch
) -> None:
    result = run("check")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "alembic upgrade head" in result.stderr
    environment.setenv("RATE_LIMIT", "fast")
    problems = json.loads(run("check", "--json").stdout)["problems"]
    assert [problem.partition(":")[0] for problem in problems] == ["RATE_LIMIT"]
    environment.delenv("RATE_LIMIT")
    run("start", ADMIN)
    result = run("check")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "All is well" in result.stderr
