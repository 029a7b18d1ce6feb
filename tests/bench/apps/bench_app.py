"""What `make bench` in the template repository adds to a baked project: the same endpoint without and with a key.

KEYS_FILE is what bench_seed.py has written. `uvicorn bench_app:app` starts it.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Executable, Row, delete
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.audit.models import Action, AuditEvent
from app.auth.dependencies import CurrentCaller
from app.auth.key_format import redact
from app.auth.verifier import FIND_KEY
from app.core.database import SessionDep, utc_now
from app.core.middleware import FinishedRequest
from app.main import PUBLIC, app
from app.users.models import User
from bench_item import ITEM, Item

KEYS = json.loads(Path(os.environ["KEYS_FILE"]).read_text("utf-8"))
OWNERS = {redact(KEYS["hot"]): "ada"}  # the middleware leaves a redacted key in the header
FEED_SECONDS = 30  # how far the key cache reads back in the audit log

router = APIRouter()


async def nothing() -> None:
    """What FastAPI takes for any dependency at all."""


async def known_owner(
    bearer: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
) -> str:
    if owner := OWNERS.get(bearer.credentials):
        return owner
    raise HTTPException(401)


async def find_item(session: AsyncSession) -> Item:
    email = (await session.exec(select(User.email).where(User.email == "0@example.com"))).one()
    return ITEM.model_copy(update={"name": email})


@router.get("/bench/open")
async def read_open() -> Item:
    return ITEM


@router.get("/v1/bench/guarded")
async def read_guarded(_: CurrentCaller) -> Item:
    return ITEM


@router.get("/bench/nothing")
async def read_with_nothing(_: Annotated[None, Depends(nothing)]) -> Item:
    return ITEM


@router.get("/bench/dict")
async def read_with_dict(_: Annotated[str, Depends(known_owner)]) -> Item:
    return ITEM


@router.get("/bench/query")
async def read_query(session: SessionDep) -> Item:
    return await find_item(session)


@router.get("/v1/bench/guarded-query")
async def read_query_guarded(_: CurrentCaller, session: SessionDep) -> Item:
    return await find_item(session)


@router.get("/bench/lookups")
async def read_lookups(request: Request) -> int:
    """How often this process has looked up a key in the database."""
    lookups: int = request.app.state.lookups
    return lookups


@router.post("/bench/steady-state")
async def create_steady_state(request: Request, session: SessionDep, keys: int, changes_per_second: int) -> None:
    """The audit log as it is after 30 seconds of changes, and a cache without the hot keys.

    Otherwise, turns of 1 second would start with the changes of other contestants, and a key would
    be looked up again after 10 seconds, in the turn of whoever is next.
    """
    await session.exec(delete(AuditEvent))
    number = changes_per_second * FEED_SECONDS
    now = utc_now()
    session.add_all(
        AuditEvent(
            created_at=now - timedelta(seconds=FEED_SECONDS) * one / number,
            action=Action.API_KEY_UPDATED,
            target_user_id=(owner := User(email="")).id,
            target_key_id=owner.id.hex[:16],
            changes={},
            changes_rights=True,
        )
        for one in range(number)
    )
    hot = frozenset(key.split("_")[2] for key in KEYS["even"][:keys])
    for hook in request.app.state.after_commit:
        hook(hot)


def count_lookups(app: FastAPI) -> None:
    app.state.lookups = 0
    fetch_all = app.state.database.fetch_all

    async def counted(
        query: Executable, parameters: Mapping[str, object] | None = None, *, is_check: bool = False
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        app.state.lookups += query is FIND_KEY
        rows: Sequence[Row[*tuple[Any, ...]]] = await fetch_all(query, parameters, is_check=is_check)
        return rows

    app.state.database.fetch_all = counted


def leave_one_uncounted(app: FastAPI) -> None:
    record, uncounted = app.state.usage.record, KEYS["uncounted"].split("_")[2]

    def record_all_but_one(finished: FinishedRequest) -> None:
        if finished.key_id != uncounted:
            record(finished)

    hooks = app.state.after_request
    hooks[hooks.index(record)] = record_all_but_one


PUBLIC |= {f"/bench/{name}" for name in ("open", "nothing", "dict", "query", "lookups", "steady-state")}
app.include_router(router)
count_lookups(app)
leave_one_uncounted(app)
logging.getLogger("app.access").disabled = True
