"""How many functions of this project a reader must follow to understand one request."""

import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import CodeType, FrameType

import pytest
from fastapi import FastAPI
from httpx import Response

import app as package
from app.auth import cache
from app.core.database import Database
from app.settings import Settings
from tests.conftest import AsUser, KeyClient, MakeDatabase, make_settings

APP = Path(package.__file__).parent


@pytest.fixture
def settings(make_database: MakeDatabase) -> Settings:
    return make_settings(database_url=make_database(), api_key_cache_seconds=10)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings.database_url)
    yield database
    await database.dispose()


async def count_calls(client: KeyClient, method: str, path: str, body: object) -> Counter[CodeType]:
    """The functions below app/ that a request calls, and how often."""
    calls: Counter[CodeType] = Counter()
    seen: set[FrameType] = set()  # a coroutine that resumes is not another call

    def profile(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        is_ours = code.co_filename.startswith(str(APP))
        is_function = not code.co_name.endswith("comp>")  # PEP 709: 3.11 calls them
        if event == "call" and is_ours and is_function and frame not in seen:
            seen.add(frame)
            calls[code] += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        response: Response = await client.request(method, path, json=body)
    finally:
        sys.setprofile(before)
    assert response.is_success
    return calls


@pytest.mark.parametrize(
    ("method", "path", "body", "max_calls", "max_files"),
    [
        ("GET", "/v1/users/me", None, 27, 10),
        ("POST", "/v1/api-keys", {"name": "ci", "scopes": ["users:read"]}, 58, 22),
    ],
)
async def test_a_request_calls_few_functions_in_few_files(
    app: FastAPI,
    as_user: AsUser,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    body: object,
    max_calls: int,
    max_files: int,
) -> None:
    monkeypatch.setattr(cache, "READ_SECONDS", 60)  # a slow machine must not read the audit log
    monkeypatch.setattr(cache, "TRUST_SECONDS", 60)
    me = await as_user()
    await me.request(method, path, json=body)
    async with app.state.verifier.cache.running():
        pass  # the read of the audit log that the first request started is not counted
    calls = await count_calls(me, method, path, body)
    files = {code.co_filename for code in calls}
    lines = [f"{calls.total()} calls of {len(calls)} functions in {len(files)} files:"]
    for code, number in calls.items():
        file = Path(code.co_filename).relative_to(APP)
        lines.append(f"{number} × {file}:{code.co_firstlineno} {code.co_qualname}")
    listing = "\n".join(lines)
    assert calls.total() <= max_calls, listing
    assert len(files) <= max_files, listing
