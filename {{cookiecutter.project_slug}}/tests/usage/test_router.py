from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from app.api_keys.models import UserApiKey
from app.auth.scopes import Scope
from app.core.database import Database
from app.usage.models import ApiKeyUsage, ApiKeyUsageDay, Counts
from tests.conftest import AsUser

NOON = datetime(2026, 1, 2, 12, 30, tzinfo=UTC)
CURRENT = "/v1/api-keys/current/usage"
TOTAL = "/v1/usage"

Usage = tuple[UserApiKey, datetime, int, int]


async def test_buckets_include_empty_ones(database: Database, as_user: AsUser) -> None:
    me, other = await as_user(scopes=[]), await as_user()
    async with database.session() as session:
        for key, hours, requests, errors in (
            (me.key, 0, 5, 1),
            (me.key, 2, 3, 0),
            (me.key, 30, 2, 2),
            (other.key, 0, 100, 100),
        ):
            start = NOON.replace(minute=0) - timedelta(hours=hours)
            session.add(ApiKeyUsage(key_id=key.id, start=start, requests=requests, errors=errors))
    period = {"from": "2026-01-02T09:59:00Z", "to": "2026-01-02T12:30:00Z"}
    assert (await me.get(CURRENT, params={"granularity": "hour", **period})).json() == {
        "total": 8,
        "errors": 1,
        "buckets": [
            {"start": "2026-01-02T09:00:00Z", "requests": 0, "errors": 0},
            {"start": "2026-01-02T10:00:00Z", "requests": 3, "errors": 0},
            {"start": "2026-01-02T11:00:00Z", "requests": 0, "errors": 0},
            {"start": "2026-01-02T12:00:00Z", "requests": 5, "errors": 1},
        ],
    }
    period = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-03T00:00:00Z"}
    assert (await me.get(CURRENT, params=period)).json() == {
        "total": 10,
        "errors": 3,
        "buckets": [
            {"start": "2026-01-01T00:00:00Z", "requests": 2, "errors": 2},
            {"start": "2026-01-02T00:00:00Z", "requests": 8, "errors": 1},
        ],
    }


@pytest.mark.parametrize(
    ("query", "first", "last", "number"),
    [
        ("granularity=hour", "2026-01-01T12:00:00Z", "2026-01-02T12:00:00Z", 25),
        ("", "2025-12-03T00:00:00Z", "2026-01-02T00:00:00Z", 31),
        ("to=0001-01-02T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", 1),
        ("to=9999-12-31T23:59:59Z", "9999-12-01T00:00:00Z", "9999-12-31T00:00:00Z", 31),
        (
            "to=9999-12-31T23:59:59Z&granularity=hour",
            "9999-12-30T23:00:00Z",
            "9999-12-31T23:00:00Z",
            25,
        ),
        (
            "from=2023-01-01T00:00:00Z&to=2025-09-26T00:00:00.000001Z",
            "2023-01-01T00:00:00Z",
            "2025-09-26T00:00:00Z",
            1000,
        ),
    ],
)
async def test_the_default_period_is_24_hours_or_30_days_and_the_maximum_1000_buckets(
    as_user: AsUser, query: str, first: str, last: str, number: int
) -> None:
    with time_machine.travel(NOON, tick=False):
        usage = (await (await as_user()).get(f"{CURRENT}?{query}")).json()
    starts = [bucket["start"] for bucket in usage["buckets"]]
    assert (starts[0], starts[-1], len(starts)) == (first, last, number)


@pytest.mark.parametrize(
    "query",
    [
        "from=2026-01-02T00:00:00Z&to=2026-01-02T00:00:00Z",
        "from=2023-01-01T00:00:00Z&to=2025-09-27T00:00:00.000001Z",
        "to=0001-01-01T00:00:00Z",
        "granularity=minute",
        "from=yesterday",
        "from=2026-01-02T00:00:00",
    ],
)
async def test_an_invalid_period_is_rejected(as_user: AsUser, query: str) -> None:
    problem = (await (await as_user()).get(f"{CURRENT}?{query}")).json()
    assert problem["code"] == "invalid_input"
    [error] = problem["errors"]
    assert error["pointer"] == f"/query/{'granularity' if 'granularity' in query else 'from'}"


async def test_usage_of_another_key_requires_the_scope_and_the_same_owner(as_user: AsUser) -> None:
    other = await as_user()
    path = f"/v1/api-keys/{other.key.id}/usage"
    for scopes, status in (([Scope.API_KEYS_READ], 200), ([Scope.API_KEYS_WRITE], 403)):
        me = await as_user(user=other.user, scopes=scopes)
        assert (await me.get(path)).status_code == status
    assert (await (await as_user()).get(path)).status_code == 404


async def add_usage(database: Database, model: type[Counts], *rows: Usage) -> None:
    async with database.session() as session:
        for key, start, requests, errors in rows:
            session.add(model(key_id=key.id, start=start, requests=requests, errors=errors))


async def test_the_total_usage_is_that_of_the_visible_keys(
    database: Database, as_user: AsUser
) -> None:
    admin, me = await as_user(admin=True), await as_user()
    old, other = await as_user(user=me.user), await as_user()
    day = NOON.replace(hour=0, minute=0)
    yesterday, before = day - timedelta(days=1), day - timedelta(days=2)
    await add_usage(
        database,
        ApiKeyUsageDay,
        (me.key, day, 5, 1),
        (old.key, day, 3, 0),
        (old.key, yesterday, 4, 2),
        (other.key, yesterday, 100, 50),
        (me.key, before, 1000, 1000),
    )
    period = {"from": "2026-01-01T12:00:00Z", "to": "2026-01-02T12:30:00Z"}
    total = (await me.get(TOTAL, params=period)).json()
    assert total["buckets"] == [
        {"start": "2026-01-01T00:00:00Z", "requests": 4, "errors": 2},
        {"start": "2026-01-02T00:00:00Z", "requests": 8, "errors": 1},
    ]
    assert (total["total"], total["errors"]) == (12, 3)
    assert [(key["id"], key["requests"], key["errors"]) for key in total["top"]] == [
        (old.key.id, 7, 2),
        (me.key.id, 5, 1),
    ]
    assert total["top"][0] == {
        "id": old.key.id,
        "user_id": str(me.user.id),
        "name": old.key.name,
        "requests": 7,
        "errors": 2,
    }
    total = (await admin.get(TOTAL, params={**period, "top": 1})).json()
    assert (total["total"], total["errors"]) == (112, 53)
    assert [key["id"] for key in total["top"]] == [other.key.id]


async def test_the_total_usage_per_hour_is_read_from_the_hours(
    database: Database, as_user: AsUser
) -> None:
    me = await as_user()
    hour = NOON.replace(minute=0)
    await add_usage(
        database,
        ApiKeyUsage,
        (me.key, hour - timedelta(hours=25), 1000, 0),
        (me.key, hour - timedelta(hours=24), 1, 0),
        (me.key, hour, 5, 1),
    )
    with time_machine.travel(NOON, tick=False):
        total = (await me.get(TOTAL, params={"granularity": "hour"})).json()
    assert [bucket["requests"] for bucket in total["buckets"]] == [1, *[0] * 23, 5]
    assert total["top"][0]["requests"] == 6


async def test_equally_busy_keys_have_a_stable_order(database: Database, as_user: AsUser) -> None:
    me = await as_user()
    keys = [me.key, *[(await as_user(user=me.user)).key for _ in range(5)]]
    day = NOON.replace(hour=0, minute=0)
    await add_usage(database, ApiKeyUsageDay, *[(key, day, 1, 0) for key in keys])
    with time_machine.travel(NOON, tick=False):
        total = (await me.get(TOTAL, params={"top": 4})).json()
    assert [key["id"] for key in total["top"]] == sorted(key.id for key in keys)[:4]


@pytest.mark.parametrize(
    "query",
    [
        "from=2026-01-01T00:00:00Z&to=2026-04-11T00:00:01Z",
        "from=2026-01-02T00:00:00Z&to=2026-01-02T00:00:00Z",
        "top=-1",
        "top=101",
        "user_id=x",
    ],
)
async def test_an_invalid_query_of_the_total_usage_is_rejected(as_user: AsUser, query: str) -> None:
    response = await (await as_user()).get(f"{TOTAL}?{query}")
    assert response.json()["code"] == "invalid_input"


async def test_the_total_usage_has_at_most_100_buckets_and_requires_the_scope(
    as_user: AsUser,
) -> None:
    query = {"from": "2026-01-01T00:00:00Z", "to": "2026-04-11T00:00:00Z"}
    assert len((await (await as_user()).get(TOTAL, params=query)).json()["buckets"]) == 100
    me = await as_user(scopes=[Scope.API_KEYS_WRITE])
    assert (await me.get(TOTAL)).status_code == 403
