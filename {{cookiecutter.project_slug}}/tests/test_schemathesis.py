"""What fits the description is accepted, what does not is refused, and every answer is as described.

The requests are few, and always the same. SCHEMATHESIS_EXAMPLES=500 adds every edge of every field, and very many
others every time.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI, Request
from hypothesis import strategies as st
from schemathesis import Case, CheckContext, Response, engine
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished
from schemathesis.python.asgi import shutdown_lifespans
from schemathesis.specs.openapi.checks import positive_data_acceptance
from sqlmodel import col, select

from app.api_keys import service as api_keys
from app.api_keys.schemas import ApiKeyCreate
from app.api_keys.verifier import Caller
from app.database import Database
from app.errors import ApiError
from app.main import create_app
from app.scopes import Scope
from app.users import service as users
from app.users.models import User
from app.users.schemas import UserCreate
from tests.conftest import MakeDatabase, make_settings

EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES")
ADMINS_KEY = "lets-in-whoever-is-admin"
CONFIG: dict[str, object] = {
    **({} if EXAMPLES else {"seed": 1}),
    "generation": {"max-examples": int(EXAMPLES or 1), "deterministic": not EXAMPLES, "database": "none"},
    "analysis": {"constants": {"enabled": bool(EXAMPLES)}},  # they depend on what else has been imported
    "cache": {"enabled": False},
    "suppress-health-check": ["too_slow"],  # a busy machine is no reason to fail
    "phases": {"stateful": {"max-steps": 20 if EXAMPLES else 6}, "coverage": {"enabled": bool(EXAMPLES)}},
    "auth": {"openapi": {"bearer": {"bearer": ADMINS_KEY}}},
    "checks": {"positive_data_acceptance": {"enabled": False}},  # `what_fits_is_accepted` takes its place
    "operations": [
        # Revoked keys can still be read: a DELETE keeps the row.
        {"include-path-regex": "^/v1/api-keys/", "checks": {"use_after_free": {"enabled": False}}},
        # DELETE /v1/users/me is no unknown method, but a DELETE /v1/users/{user_id} with a bad id.
        {
            "include-path": "/v1/users/me",
            "phases": {"coverage": {"unexpected-methods": ["put", "post", "options", "trace", "query"]}},
        },
    ],
}
# Why a request is refused although it fits: what JSON Schema has no words for.
BEYOND_JSON_SCHEMA = {
    "This is not the next_cursor of a page.",
    "This is in the past.",
    "This is not before `to`.",
    "This would be more than 1000 buckets.",
    "There is no such user.",
    "The owner of the key would have to be an admin.",
}
schemathesis.openapi.format("cidr", st.sampled_from(["203.0.113.0/24", "2001:db8::/32", "192.0.2.1"]))


@schemathesis.check
def what_fits_is_accepted(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    reasons = {error["detail"] for error in response.json()["errors"]} if response.status_code == 422 else {""}
    if not reasons <= BEYOND_JSON_SCHEMA:
        positive_data_acceptance(ctx, response, case)


@pytest.fixture
def url(make_database: MakeDatabase) -> str:
    return make_database()


@pytest.fixture
async def api(url: str) -> AsyncIterator[FastAPI]:
    """An app that commits, and lets in an admin whatever the requests delete, demote and revoke.

    It always keeps one active admin; whoever that is gets a new key when the last one no longer does.
    """
    database = Database(url)
    settings = make_settings(
        rate_limit="",
        failed_auth_limit="",
        api_key_max_per_user=10**9,
        metrics_enabled=True,
        log_level="error",
    )
    app = create_app(settings, database)
    authenticate: Callable[[Request], Awaitable[Caller]] = app.state.authenticate
    api_key = ""

    async def let_in(request: Request) -> Caller:
        nonlocal api_key
        if request.headers.get("Authorization") != f"Bearer {ADMINS_KEY}":
            return await authenticate(request)
        with suppress(ApiError):
            caller: Caller = (await app.state.verifier.verify(api_key)).caller
            if caller.scopes == {*Scope}:
                return caller
        async with database.session() as session:
            admin = (await session.exec(select(User).where(col(User.is_admin), col(User.is_active)).limit(1))).one()
            new = ApiKeyCreate(name="a key", scopes=[*Scope], user_id=admin.id)
            key, api_key = await api_keys.create(session, settings, new, actor=None)
        return Caller(key.id, admin.id, frozenset(Scope))

    app.state.authenticate = let_in
    async with database.session() as session:
        await users.create(session, UserCreate(email="admin@example.com", is_admin=True))
    await database.dispose()  # Schemathesis runs the app in an event loop of its own
    yield app
    shutdown_lifespans()  # while there is a database


def test_every_answer_is_as_described(api: FastAPI) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", api, config=schemathesis.Config.from_dict(CONFIG))
    failures: list[str] = []
    answers: set[tuple[str, str]] = set()
    for event in engine.from_schema(schema).execute():
        assert not isinstance(event, FatalError | NonFatalError), event
        if isinstance(event, ScenarioFinished):
            recorder = event.recorder
            checks = [check for checks in recorder.checks.values() for check in checks]
            failures += [f"{check.name}: {check.failure_info}" for check in checks if check.status != "success"]
            for case_id, interaction in recorder.interactions.items():
                if interaction.response:
                    label = recorder.cases[case_id].value.operation.label
                    answers.add((label, f"{interaction.response.status_code}"))
    assert not failures, "\n\n".join(failures)
    for path, operations in api.openapi()["paths"].items() if EXAMPLES else ():
        for method, operation in operations.items():
            success = next(status for status in operation["responses"] if status < "300")
            assert (f"{method.upper()} {path}", success) in answers
