from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import insert, text

from app.api_keys.models import UserApiKey
from app.auth.caller import Caller
from app.auth.scopes import Scope
from app.core.database import Database
from app.usage import service
from app.usage.models import ApiKeyUsageDay
from app.usage.schemas import TotalUsageQuery
from app.users.models import User
from tests.conftest import MakeDatabase
from tests.test_plans import indexes_used, recorded

OWNERS = [uuid4() for _ in range(5000)]
START = datetime(2030, 1, 1, tzinfo=UTC)
DAYS = 60


@pytest.fixture(scope="module")
def url(make_database: MakeDatabase) -> str:
    return make_database()


@pytest.fixture(scope="module")
async def large(url: str) -> AsyncIterator[Database]:
    """Each owner has one key. A fifth of the keys are used every day."""
    database = Database(url)
    keys = [
        UserApiKey(
            id=f"{number:016}", user_id=owner, name="a key", hint="", digest=b"", pepper_id=1
        )
        for number, owner in enumerate(OWNERS)
    ]
    days = [
        {"key_id": key.id, "start": START + timedelta(days=day), "requests": 1, "errors": 0}
        for day in range(DAYS)
        for key in keys[:1000]
    ]
    async with database.session() as session:
        connection = await session.connection()
        users = [User(id=owner, email=f"{owner}@example.com") for owner in OWNERS]
        await connection.execute(insert(User), [user.model_dump() for user in users])
        await connection.execute(insert(UserApiKey), [key.model_dump() for key in keys])
        await connection.execute(insert(ApiKeyUsageDay), days)
    async with database.session() as session:
        await (await session.connection()).execute(text("ANALYZE"))
    yield database
    await database.dispose()


@pytest.mark.parametrize(
    ("scopes", "number", "index"),
    [
        (frozenset(Scope), 1000, "ix_api_key_usage_days_start"),
        (frozenset({Scope.API_KEYS_READ}), 1, "ix_user_api_keys_user_id_created_at"),
    ],
)
async def test_the_total_usage_is_read_from_an_index(
    large: Database, scopes: frozenset[Scope], number: int, index: str
) -> None:
    caller = Caller("0" * 16, OWNERS[0], scopes)
    end = START + timedelta(days=DAYS)
    query = TotalUsageQuery.model_validate({"from": end - timedelta(days=5), "to": end, "top": 5})
    async with large.session(read_only=True) as session:
        with recorded(large) as executed:
            usage = await service.read_total(session, caller, query)
    assert (usage.total, len(usage.top)) == (5 * number, min(number, 5))
    assert len(executed) == 2
    assert index in await indexes_used(large, executed)
