"""Fill the seeded database of DATABASE_URL up for the case `scale`: `python bench_fill.py 1000000 <id of a key>`.

So many users with a key each, ten hours of usage for each key, and five events. One hour of the usage is old. The owner
of the key that is named gets a tenth of all keys.
"""

import asyncio
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Insert, cast, func, insert, literal, literal_column, select, text
from sqlalchemy.sql.selectable import FromClause

from app.api_keys.models import UserApiKey
from app.audit.models import AuditEvent
from app.core.database import create_engine, utc_now
from app.settings import get_settings
from app.usage.models import ApiKeyUsage
from app.users.models import User

HOURS, EVENTS = 10, 5  # for each key
OLD, RECENT = timedelta(days=100), timedelta(days=5)
MANY = 10  # one of so many keys belongs to one user

USERS = User.metadata.tables["users"]
API_KEYS = UserApiKey.metadata.tables["user_api_keys"]
USAGE = ApiKeyUsage.metadata.tables["api_key_usage"]
EVENTS_TABLE = AuditEvent.metadata.tables["audit_events"]


class Filler:
    def __init__(self, dialect: str, size: int, key_id: str) -> None:
        self.on_postgresql = dialect == "postgresql"
        self.size = size
        self.model = API_KEYS.c.id == key_id
        self.number: ColumnElement[Any] = literal_column("number")

    def numbers(self) -> FromClause:
        if self.on_postgresql:
            return select(func.generate_series(1, self.size).label("number")).subquery()
        first = select(literal(1).label("number")).cte("numbers", recursive=True)
        following = select(first.c.number + 1).where(first.c.number < self.size)
        return first.union_all(following)

    def hexadecimal(self, number: ColumnElement[Any], digits: int) -> ColumnElement[Any]:
        if self.on_postgresql:
            return func.lpad(func.to_hex(number), digits, "0")
        return func.printf(f"%0{digits}x", number)

    def uuid(self, number: ColumnElement[Any]) -> ColumnElement[Any]:
        text = self.hexadecimal(number, 32)
        return cast(text, USERS.c.id.type) if self.on_postgresql else text

    def users(self) -> Insert:
        values = {
            "id": self.uuid(self.number),
            "email": self.hexadecimal(self.number, 12).concat("@example.com"),
            "first_name": literal("Ada"),
            "last_name": literal("Lovelace"),
            "is_active": literal(True),
            "is_admin": literal(False),
            "created_at": literal(utc_now()),
            "updated_at": literal(utc_now()),
        }
        return insert(USERS).from_select([*values], select(*values.values()).select_from(self.numbers()))

    def keys(self) -> Iterator[Insert]:
        copied = [column for column in API_KEYS.columns if column.name not in {"id", "user_id", "name"}]
        names = ["id", "user_id", "name", *(column.name for column in copied)]
        many = self.number % MANY == 0
        for owner, condition in ((self.uuid(self.number), ~many), (API_KEYS.c.user_id, many)):
            key_id = self.hexadecimal(self.number, 16)
            rows = select(key_id, owner, key_id, *copied).select_from(self.numbers().join(API_KEYS, self.model))
            yield insert(API_KEYS).from_select(names, rows.where(condition))

    def usage(self) -> Iterator[Insert]:
        now = utc_now().replace(minute=0, second=0, microsecond=0)
        for hour in range(HOURS):
            start = now - (RECENT if hour else OLD) - timedelta(hours=hour)
            values = (self.hexadecimal(self.number, 16), literal(start, USAGE.c.start.type), literal(7), literal(1))
            rows = select(*values).select_from(self.numbers())
            yield insert(USAGE).from_select(["key_id", "start", "requests", "errors"], rows)

    def events(self) -> Iterator[Insert]:
        for number in range(1, EVENTS + 1):
            values = {
                "id": self.uuid(self.number + number * 10_000_000_000),
                "created_at": literal(utc_now() - timedelta(days=number), EVENTS_TABLE.c.created_at.type),
                "action": literal("api_key.updated"),
                "target_user_id": self.uuid(self.number),
                "target_key_id": self.hexadecimal(self.number, 16),
                "changes": literal({}, EVENTS_TABLE.c.changes.type),
                "changes_rights": literal(True),
            }
            rows = select(*values.values()).select_from(self.numbers())
            yield insert(EVENTS_TABLE).from_select([*values], rows)


async def main(size: int, key_id: str) -> None:
    engine = create_engine(get_settings().database_url, for_migrations=True)  # with no time-outs
    filler = Filler(engine.dialect.name, size, key_id)
    for statement in (filler.users(), *filler.keys(), *filler.usage(), *filler.events()):
        async with engine.begin() as connection:
            await connection.execute(statement)
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        await connection.execute(text("VACUUM ANALYZE" if filler.on_postgresql else "ANALYZE"))
    await engine.dispose()


asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
