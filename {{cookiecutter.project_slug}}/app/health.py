import asyncio
from functools import cache
from typing import Literal

from alembic.config import Config
from alembic.script import ScriptDirectory
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
def newest_revision() -> str | None:
    """The head of migrations/, read once: it is part of the code."""
    return ScriptDirectory.from_config(Config(ROOT / "alembic.ini")).get_current_head()


@router.get("/live")
async def live() -> Health:
    """200 while the process lives. It asks nothing of the database: a restart would not bring that back."""
    return Health()


@router.get("/ready")
async def ready(request: Request) -> Health:
    """200 while the database answers and its migrations are at head; 503 with what is missing otherwise."""
    database: Database = request.app.state.database
    try:
        async with asyncio.timeout(DATABASE_SECONDS), database.connection() as connection:
            revision = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
    except DBAPIError as error:
        if "alembic_version" not in str(error.orig):
            raise Unavailable("The database does not answer.") from error
        revision = None
    except (SQLAlchemyError, TimeoutError) as error:
        raise Unavailable("The database does not answer.") from error
    if revision != newest_revision():
        raise Unavailable("The database is not migrated: run `alembic upgrade head`.")
    return Health()
