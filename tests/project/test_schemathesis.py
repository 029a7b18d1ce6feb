"""Requests that match the OpenAPI document are accepted, others are rejected, and every response
matches the document.

The requests are always the same. SCHEMATHESIS_EXAMPLES=500 sends many others.
"""

import os
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.security import SecurityScopes
from schemathesis import Case, CheckContext, Response, engine
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished
from schemathesis.python.asgi import shutdown_lifespans
from schemathesis.specs.openapi.checks import positive_data_acceptance
from sqlmodel import col, select
from starlette.requests import HTTPConnection

from app.api_keys import service as api_keys
from app.api_keys.schemas import ApiKeyCreate
from app.auth.caller import Caller
from app.auth.confirmation import confirm_caller
from app.auth.dependencies import get_caller
from app.auth.scopes import Scope
from app.core.database import Database
from app.core.errors import ApiError
from app.main import create_app
from app.users import service as users
from app.users.models import User
from app.users.schemas import UserCreate
from tests.conftest import MakeDatabase, make_settings

EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "")
ADMIN_KEY = "stands-for-a-key-of-an-admin"
CONFIG: dict[str, object] = {
    **({} if EXAMPLES else {"seed": 1}),
    "generation": {
        "max-examples": int(EXAMPLES or 3),
        "deterministic": not EXAMPLES,
        "database": "none",
    },
    # Otherwise the requests depend on which other modules have been imported.
    "analysis": {"constants": {"enabled": bool(EXAMPLES)}},
    "cache": {"enabled": False},
    "suppress-health-check": ["too_slow"],  # the machine may be busy
    "phases": {"stateful": {"max-steps": 20}},
    "auth": {"openapi": {"bearer": {"bearer": ADMIN_KEY}}},
    # Random ids are unknown.
    "dictionaries": {"keys": {"values": ["current"]}},
    "parameters": {"path.key_id": {"dictionary": "keys", "probability": 0.5}},
    # `valid_data_is_accepted` replaces it.
    "checks": {"positive_data_acceptance": {"enabled": False}},
    "operations": [
        # Revoked keys can still be read: a DELETE keeps the row.
        {"include-path-regex": "^/v1/api-keys/", "checks": {"use_after_free": {"enabled": False}}},
    ],
}
# The reasons to reject a valid request that JSON Schema cannot express.
BEYOND_JSON_SCHEMA = {
    "Input should be the next_cursor of a page.",
    "Input should be in the future.",
    "Input should be before `to`.",
    "The period has more than 100 buckets.",
    "The period has more than 1000 buckets.",
    "Only admins can own a key with the scope admin.",
    "Input should be a network, for example 203.0.113.0/24 or 2001:db8::/32",
    "Input should not contain NUL or half of a surrogate pair",  # in JSON
}
# Of references, and of bounds of decimals, which are texts in JSON.
REASON = re.compile(r"This .* does not exist\.|Input should be (greater|less) than or equal.*")


@schemathesis.check
def valid_data_is_accepted(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    errors = response.json()["errors"] if response.status_code == 422 else []
    details = {error["detail"] for error in errors if not REASON.fullmatch(error["detail"])}
    if not errors or not details <= BEYOND_JSON_SCHEMA:
        positive_data_acceptance(ctx, response, case)


@pytest.fixture
def url(make_database: MakeDatabase) -> str:
    return make_database()


@pytest.fixture
async def api(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FastAPI]:
    """An app with an admin key that stays valid, whatever the requests delete, demote and revoke.

    The app always keeps one active admin, who gets a new key when the last one is not usable.
    """
    monkeypatch.setenv("METRICS_ENABLED", "true")
    database = Database(url)
    settings = make_settings(
        rate_limit="", failed_auth_limit="", api_key_max_per_user=10**9, log_level="error"
    )
    app = create_app(settings, database)
    admin_caller: Caller | None = None

    async def get_caller_or_admin(connection: HTTPConnection, scopes: SecurityScopes) -> Caller:
        nonlocal admin_caller
        if connection.headers.get("Authorization") != f"Bearer {ADMIN_KEY}":
            return await get_caller(connection, scopes)
        async with database.session() as session:
            with suppress(ApiError):
                if admin_caller and await confirm_caller(session, admin_caller, *Scope):
                    return admin_caller
            admins = select(User).where(col(User.is_admin), col(User.is_active)).limit(1)
            admin = (await session.exec(admins)).one()
            new = ApiKeyCreate(name="a key", scopes=[*Scope], user_id=admin.id)
            key, _ = await api_keys.create(session, settings, new, None)
        admin_caller = Caller(key.id, admin.id, frozenset(Scope))
        return admin_caller

    app.dependency_overrides[get_caller] = get_caller_or_admin
    async with database.session() as session:
        await users.create(session, UserCreate(email="admin@example.com", is_admin=True), None)
    await database.dispose()  # Schemathesis runs the app in another event loop
    yield app
    shutdown_lifespans()  # while there is a database


def test_every_response_matches_the_openapi_document(api: FastAPI) -> None:
    schema = schemathesis.openapi.from_asgi(
        "/openapi.json", api, config=schemathesis.Config.from_dict(CONFIG)
    )
    failures: list[str] = []
    responses: set[tuple[str, str]] = set()
    for event in engine.from_schema(schema).execute():
        assert not isinstance(event, FatalError | NonFatalError), event
        if isinstance(event, ScenarioFinished):
            recorder = event.recorder
            checks = [check for checks in recorder.checks.values() for check in checks]
            failed = [check for check in checks if check.status != "success"]
            failures += [f"{check.name}: {check.failure_info}" for check in failed]
            for case_id, interaction in recorder.interactions.items():
                if interaction.response:
                    label = recorder.cases[case_id].value.operation.label
                    responses.add((label, f"{interaction.response.status_code}"))
    assert not failures, "\n\n".join(failures)
    expected = {
        (f"{method.upper()} {path}", min(operation["responses"]))  # the success
        for path, operations in api.openapi()["paths"].items()
        for method, operation in operations.items()
    }
    assert expected <= responses
