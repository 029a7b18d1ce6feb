import asyncio
import time
from functools import cache
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app.core.database import Database
from app.core.errors import Unavailable
from app.core.postgresql import NEEDS_POOLER
from app.settings import ROOT

router = APIRouter(prefix="/health", tags=["monitoring"])

MAX_SECONDS = 0.8  # probes usually give up after one second
REUSE_SECONDS = 0.1
NO_RESPONSE = "The database does not respond."
NOT_MIGRATED = "The database is not migrated. Run `alembic upgrade head`."


class Health(BaseModel):
    status: Literal["ok"] = "ok"


@router.head("/live", include_in_schema=False)
@router.get("/live")
async def live() -> Health:
    """Liveness probe

    Does not depend on the database, which a restart of this process would not repair.
    """
    return Health()


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses={503: {"description": "`detail` states what is missing."}})
async def ready(request: Request) -> Health:
    """Readiness probe

    Succeeds while the database responds and is migrated.
    """
    readiness: Readiness = request.app.state.readiness
    if problem := await readiness.find_problem():
        raise Unavailable(problem)
    return Health()


class Readiness:
    """Queries the database at most ten times a second, because the probe needs no key."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._check: asyncio.Task[str | None] | None = None
        self._started_at = 0.0

    async def find_problem(self) -> str | None:
        now = time.monotonic()
        if self._check is None or now - self._started_at > REUSE_SECONDS:
            self._check = asyncio.create_task(find_problem(self._database))
            self._started_at = now
        return await asyncio.shield(self._check)


async def find_problem(database: Database) -> str | None:
    # A separate task, because the driver cannot be cancelled while its server is frozen.
    check = asyncio.create_task(_check(database))
    await asyncio.wait({check}, timeout=MAX_SECONDS)
    if check.done():
        return check.result()
    check.cancel()
    return NO_RESPONSE


async def _check(database: Database) -> str | None:
    try:
        revisions = text("SELECT version_num FROM alembic_version")
        rows = await database.fetch_all(revisions, is_check=True)
    except DBAPIError as error:
        if str(error.orig) == NEEDS_POOLER:
            return NEEDS_POOLER
        return NOT_MIGRATED if "alembic_version" in str(error.orig) else NO_RESPONSE
    except (SQLAlchemyError, OSError):
        return NO_RESPONSE
    # An unknown revision is newer: the next version has migrated, and this one still serves.
    is_outdated = not rows or outdated_revisions().intersection(row.version_num for row in rows)
    return NOT_MIGRATED if is_outdated else None


@cache
def outdated_revisions() -> frozenset[str]:
    from alembic.config import Config  # importing Alembic takes a third of the start
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(Config(toml_file=ROOT / "pyproject.toml"))
    return frozenset({one.revision for one in scripts.walk_revisions()} - {*scripts.get_heads()})
