import asyncio
import json
import runpy
import sys
from datetime import UTC, datetime
from uuid import UUID

import pytest

from app.audit.models import AuditEvent
from app.core.database import Database
from app.settings import get_settings
from tests.cli.conftest import Run, as_json


@pytest.fixture
def old_events(started: Run, environment: pytest.MonkeyPatch) -> Run:
    """Two old events, and a retention of ten years."""

    async def add() -> None:
        database = Database(get_settings().database_url)
        async with database.session() as session:
            session.add_all(
                AuditEvent(
                    created_at=datetime(2000, 1, 1, tzinfo=UTC),
                    action="user.updated",
                    target_user_id=UUID(int=1),
                    changes={},
                    changes_rights=False,
                )
                for _ in range(2)
            )
        await database.dispose()

    asyncio.run(add())
    environment.setenv("AUDIT_RETENTION_DAYS", "3650")
    get_settings.cache_clear()
    return started


def test_purge_deletes_old_data_and_prints_how_much(old_events: Run) -> None:
    purged = {row["name"]: row["deleted"] for row in as_json(old_events, "purge")}
    assert (purged["audit_events"], purged["api_keys"]) == (2, 0)
    result = old_events("purge")
    assert "audit_events\t0" in result.stdout.splitlines()
    assert result.stderr == ""


@pytest.mark.usefixtures("old_events")
def test_purge_shows_progress_on_a_terminal(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setattr(sys.stderr, "isatty", lambda: True)
    environment.setattr(sys, "argv", ["app", "purge", "--json"])
    with pytest.raises(SystemExit):
        runpy.run_module("app", run_name="__main__")
    printed = capsys.readouterr()
    assert "\raudit_events: 2 " in printed.err
    assert printed.err.endswith("\n")  # so that the prompt starts on a new line
    assert {"name": "audit_events", "deleted": 2} in json.loads(printed.out)
