from typing import Annotated
from unittest.mock import AsyncMock
from uuid import uuid4

import pytest
from fastapi import FastAPI, Request

from app.api_keys.dependencies import CurrentCaller, requires
from app.api_keys.verifier import Caller
from app.scopes import Scope
from tests.conftest import AsUser

ME = "/v1/users/me"


async def test_a_user_who_was_deleted_in_the_middle_of_a_request_is_refused(app: FastAPI, as_user: AsUser) -> None:
    me = await as_user()

    async def authenticate(_: Request) -> Caller:
        return Caller(me.key.id, uuid4(), frozenset())

    app.state.authenticate = authenticate
    assert (await me.get(ME)).json()["code"] == "api_key_invalid"


async def test_the_second_to_ask_gets_what_the_first_was_told(
    app: FastAPI, as_user: AsUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that needs the caller in two places looks the key up, and counts it, once."""

    @app.get("/v1/twice")
    async def twice(one: CurrentCaller, other: Annotated[Caller, requires(Scope.USERS_READ)]) -> bool:
        return one is other

    verify = AsyncMock(wraps=app.state.verifier.verify)
    monkeypatch.setattr(app.state.verifier, "verify", verify)
    assert (await (await as_user()).get("/v1/twice")).json() is True
    assert verify.await_count == 1
