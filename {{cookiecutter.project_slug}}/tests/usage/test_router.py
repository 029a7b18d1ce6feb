from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from fastapi import FastAPI

from app.database import Database
from app.usage.models import ApiKeyUsage
from tests.conftest import AsUser

NOON = datetime(2026, 1, 2, 12, 30, tzinfo=UTC)
CURRENT = "/v1/api-keys/current/usage"


async def test_usage_is_shown_in_buckets_with_the_empty_ones(database: Database, as_user: AsUser) -> None:
    me = await as_user(scopes=[])
    async with database.session() as session:
        for hours, requests, errors in ((0, 5, 1), (2, 3, 0), (30, 2, 2)):
            start = NOON.replace(minute=0) - timedelta(hours=hours)
            session.add(ApiKeyUsage(key_id=me.key.id, start=start, requests=requests, errors=errors))
    period = {"from": "2026-01-02T09:59:00Z", "to": "2026-01-02T12:30:00Z"}
    hourly = (await me.get(CURRENT, params={"granularity": "hour", **period})).json()
    assert hourly == {
        "total": 8,
        "errors": 1,
        "buckets": [
            {"start": "2026-01-02T09:00:00Z", "requests": 0, "errors": 0},
            {"start": "2026-01-02T10:00:00Z", "requests": 3, "errors": 0},
            {"start": "2026-01-02T11:00:00Z", "requests": 0, "errors": 0},
            {"start": "2026-01-02T12:00:00Z", "requests": 5, "errors": 1},
        ],
    }
    daily = (await me.get(CURRENT, params={"from": "2026-01-01T00:00:00Z", "to": "2026-01-03T00:00:00Z"})).json()
    assert [(bucket["requests"], bucket["errors"]) for bucket in daily["buckets"]] == [(2, 2), (8, 1)]


async def test_by_default_it_is_the_last_24_hours_or_30_days(as_user: AsUser) -> None:
    with time_machine.travel(NOON, tick=False):
        me = await as_user()
        hourly = (await me.get(CURRENT, params={"granularity": "hour"})).json()["buckets"]
        assert [hourly[0]["start"], hourly[-1]["start"]] == ["2026-01-01T12:00:00Z", "2026-01-02T12:00:00Z"]
        daily = (await me.get(CURRENT)).json()["buckets"]
        assert [daily[0]["start"], daily[-1]["start"]] == ["2025-12-03T00:00:00Z", "2026-01-02T00:00:00Z"]


async def test_a_folded_day_counts_in_its_first_hour(database: Database, as_user: AsUser) -> None:
    me = await as_user()
    day = datetime(2025, 1, 1, tzinfo=UTC)
    async with database.session() as session:
        session.add(ApiKeyUsage(key_id=me.key.id, start=day, is_day=True, requests=7))
        session.add(ApiKeyUsage(key_id=me.key.id, start=day, requests=1))
    period = {"from": "2025-01-01T00:00:00Z", "to": "2025-01-01T02:00:00Z", "granularity": "hour"}
    buckets = (await me.get(CURRENT, params=period)).json()["buckets"]
    assert [bucket["requests"] for bucket in buckets] == [8, 0]


@pytest.mark.parametrize(
    "query",
    [
        {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
        {"from": "2020-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
        {"granularity": "minute"},
        {"from": "yesterday"},
        {"from": "2026-01-02T00:00:00"},
    ],
)
async def test_a_period_that_does_not_fit_is_refused(as_user: AsUser, query: dict[str, str]) -> None:
    response = await (await as_user()).get(CURRENT, params=query)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")


@pytest.mark.parametrize("end", ["0001-01-01T00:00:00Z", "0001-01-03T00:00:00Z", "9999-12-31T23:59:59Z"])
async def test_the_ends_of_time_are_no_500(as_user: AsUser, end: str) -> None:
    for granularity in ("hour", "day"):
        response = await (await as_user()).get(CURRENT, params={"to": end, "granularity": granularity})
        assert response.status_code in {200, 422}


async def test_the_usage_of_others_is_not_found(app: FastAPI, as_user: AsUser) -> None:
    me, other = await as_user(), await as_user()
    assert (await me.get(f"/v1/api-keys/{other.key.id}/usage")).status_code == 404
