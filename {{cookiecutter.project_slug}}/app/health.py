import asyncio
import re
from functools import cache
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app.database import Database
from app.errors import Unavailable
from app.settings import ROOT

router = APIRouter(prefix="/health", tags=["health"])

DATABASE_SECONDS = 0.8  # a probe must answer before the one that asks gives up, usually after a second


class Health(BaseModel):
    status: Literal["ok"] = "ok"


@cache
def older_revisions() -> frozenset[str | None]:
    """The revisions that another one builds on; None is an empty database's. Read once: they are part of the code.

    Read from the files, because importing Alembic would take a third of the start.
    """
    migrations = (ROOT / "migrations" / "versions").glob("*.py")
    return frozenset({None, *(name for path in migrations for name in builds_on(path.read_text("utf-8")))})


def builds_on(migration: str) -> list[str]:
    """The revisions before a migration: none, one, or, where branches are merged, several."""
    return re.findall(r"""["'](\w+)["']""", "".join(re.findall(r"^down_revision\b.*=(.*)$", migration, re.MULTILINE)))


@router.get("/live")
async def live() -> Health:
    """Tell that the process lives. This asks nothing of the database: a restart would not bring that back."""
    return Health()


@router.get("/ready", responses={503: {"description": "Something is missing; `detail` says what."}})
async def ready(request: Request) -> Health:
    """Tell that the database answers and is migrated."""
    if missing := await what_is_missing(request.app.state.database):
        raise Unavailable(missing)
    return Health()


async def what_is_missing(database: Database) -> str | None:
    """What keeps this instance from serving, said within a second."""
    # Not asyncio.timeout: it would wait until the driver has let go, which takes seconds where the server is frozen.
    asking = asyncio.create_task(_ask(database))
    await asyncio.wait({asking}, timeout=DATABASE_SECONDS)
    if asking.done():
        return asking.result()
    asking.cancel()
    return "The database does not answer."


async def _ask(database: Database) -> str | None:
    try:
        async with database.connection() as connection:
            revision = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
    except DBAPIError as error:
        if "alembic_version" not in str(error.orig):
            return "The database does not answer."
        revision = None
    except (SQLAlchemyError, OSError):
        return "The database does not answer."
    # One that is not known here is newer: the next version has migrated, and this one serves on until it is replaced.
    return "The database is not migrated: run `alembic upgrade head`." if revision in older_revisions() else None
