"""What `make bench` in the template repository adds to a baked project: the same endpoint without and with a key.

KEYS_FILE is what bench_seed.py has written.
"""

import json
import logging
import os
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys.dependencies import CurrentCaller
from app.database import SessionDep
from app.main import create_app
from app.users.models import User
from bench_item import ITEM, Item

KEYS = json.loads(Path(os.environ["KEYS_FILE"]).read_text("utf-8"))
OWNERS = {KEYS["hot"]: "ada"}

router = APIRouter()


async def nothing() -> None:
    """What FastAPI takes for any dependency at all."""


async def known_owner(bearer: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
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


def create_bench_app() -> FastAPI:
    app = create_app()
    app.include_router(router)
    record, uncounted = app.state.usage.record, KEYS["uncounted"].split("_")[2]

    def record_all_but_one(key_id: str, *, error: bool) -> None:
        if key_id != uncounted:
            record(key_id, error=error)

    app.state.usage.record = record_all_but_one
    logging.getLogger("app.access").disabled = True
    return app
