"""Data to look at in the console: two users, twelve keys in every state, and a week of usage.

Users and keys are created over HTTP. Times in the past are written to the database, as no request could.
"""

import http.client
import json
import math
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

READ = ["api_keys:read", "users:read"]
WRITE = [*READ, "api_keys:write", "users:write"]


@dataclass
class SeedKey:
    name: str
    scopes: list[str]
    requests_per_hour: int = 0
    days_until_expiry: float | None = 60
    age_in_days: float = 40
    used_days_ago: float | None = 0
    changes: dict[str, object] = field(default_factory=dict)
    is_revoked: bool = False
    is_admins: bool = False


KEYS = [
    SeedKey("web frontend", READ, 900, 82),
    SeedKey("mobile app", READ, 640, 45),
    SeedKey("nightly report", ["users:read"], 90, 5, changes={"allowed_cidrs": ["203.0.113.0/24"]}),
    SeedKey("billing worker", WRITE, 310, None, changes={"rate_limit": "1000/minute"}, is_admins=True),
    SeedKey("ci", WRITE, 120, 2.5),
    SeedKey("monitoring", ["metrics:read"], 60, 300, is_admins=True),
    SeedKey("old laptop", READ, 0, None, 200, used_days_ago=55),
    SeedKey("import script", WRITE, 0, 50, 90, used_days_ago=None),
    SeedKey("partner integration", READ, 0, 30, 120, used_days_ago=3, changes={"enabled": False}),
    SeedKey("workshop", READ, 0, -4, 30, used_days_ago=6),
    SeedKey("staging", WRITE, 0, 20, 90, used_days_ago=9, is_revoked=True),
    SeedKey("leaked in a log", READ, 0, 10, 60, used_days_ago=12, is_revoked=True),
]


class Api:
    """Requests with a key."""

    def __init__(self, port: int, key: str) -> None:
        self.port, self.key = port, key

    def __call__(self, method: str, path: str, body: object = None) -> dict[str, object]:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, f"/v1/{path}", None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read()
        assert response.status < 400, f"{method} {path}: {response.status} {text!r}"
        result: dict[str, object] = json.loads(text or "{}")
        return result


def seed(port: int, key: str, database: Path, days: int = 7) -> None:
    """`key` has all scopes. `database` is the SQLite file of the running server."""
    api = Api(port, key)
    user = {"email": "grace@example.com", "first_name": "Grace", "last_name": "Hopper"}
    user_id = api("POST", "users", user)["id"]
    now = datetime.now(UTC)
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for one in KEYS:
            owner = {} if one.is_admins else {"user_id": user_id}
            key_id = str(api("POST", "api-keys", {"name": one.name, "scopes": one.scopes, **owner})["id"])
            if one.changes:
                api("PATCH", f"api-keys/{key_id}", one.changes)
            if one.is_revoked:
                api("DELETE", f"api-keys/{key_id}")
            moments = (now - timedelta(days=one.age_in_days), moment(now, one.days_until_expiry))
            used_at = moment(now, None if one.used_days_ago is None else -one.used_days_ago)
            connection.execute(
                "UPDATE user_api_keys SET created_at = ?, expires_at = ?, last_used_at = ? WHERE id = ?",
                (*map(stored, moments), stored(used_at), key_id),
            )
            if one.requests_per_hour:
                add_usage(connection, key_id, hours(now, one.requests_per_hour, days))
            connection.commit()


def moment(now: datetime, days: float | None) -> datetime | None:
    return None if days is None else now + timedelta(days=days)


def stored(moment: datetime | None) -> str | None:
    """As SQLite has it."""
    return None if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S.%f")


def hours(now: datetime, per_hour: int, days: int) -> Iterator[tuple[datetime, int, int]]:
    """Days whose nights and weekends are quiet, and one with more errors. Always the same."""
    chance = random.Random(per_hour)  # noqa: S311 - not a secret
    last = now.replace(minute=0, second=0, microsecond=0)
    for ago in range(24 * days):
        start = last - timedelta(hours=ago)
        daily = 0.35 + 0.65 * max(0.0, math.sin((start.hour - 6) * math.pi / 14))
        weekly = 0.4 if start.weekday() > 4 else 1
        requests = round(per_hour * daily * weekly * chance.uniform(0.8, 1.2))
        rate = 0.18 if 48 <= ago < 60 else 0.015
        yield start, requests, round(requests * rate * chance.uniform(0.5, 1.5))


def add_usage(connection: sqlite3.Connection, key_id: str, rows: Iterator[tuple[datetime, int, int]]) -> None:
    for start, requests, errors in rows:
        for table, bucket in (("api_key_usage", start), ("api_key_usage_days", start.replace(hour=0))):
            connection.execute(
                f"INSERT INTO {table} VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"  # noqa: S608 - a constant
                " requests = requests + excluded.requests, errors = errors + excluded.errors",
                (key_id, stored(bucket), requests, errors),
            )
