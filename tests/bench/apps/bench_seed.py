"""Fill the migrated database of DATABASE_URL: `python bench_seed.py keys.json 1000000`.

The file gets the texts of the keys that can be used, 100 000 at most. What is beyond only takes room.
"""

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from sqlalchemy import func, insert, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.api_keys.models import UserApiKey
from app.auth import key_format
from app.auth.scopes import Scope
from app.core.database import create_engine, utc_now
from app.settings import get_settings
from app.users.models import User

MOST_USABLE = 100_000
KEYS_PER_USER = 10
AT_ONCE = 500_000  # rows
HARMLESS_LIMIT = "999999999/day"
WRONG_KEYS = 1000
RANDOM_ID = {"sqlite": "lower(hex(randomblob(8)))", "postgresql": "substr(md5(random()::text), 1, 16)"}

USERS = User.metadata.tables["users"]
API_KEYS = UserApiKey.metadata.tables["user_api_keys"]


class Maker:
    """Makes keys as the service does, but thousands at once: a model's object for each would take minutes."""

    def __init__(self) -> None:
        self.settings = get_settings()
        self.pepper_id = max(self.settings.api_key_peppers)
        self.pepper = self.settings.api_key_peppers[self.pepper_id].get_secret_value()
        self.now = utc_now()
        owner = User(email="")
        key = UserApiKey(
            id="",
            user_id=owner.id,
            name="a key",
            hint="",
            digest=b"",
            pepper_id=self.pepper_id,
            expires_at=self.now + timedelta(days=15),
        )
        self._owner, self._key = owner.model_dump(), key.model_dump()

    def text(self) -> str:
        return key_format.generate(self.settings.api_key_prefix, self.settings.key_environment).text

    def owner(self, number: int, **fields: object) -> dict[str, object]:
        return self._owner | {"id": uuid4(), "email": f"{number}@example.com"} | fields

    def key(self, text: str, owner: dict[str, object], **fields: object) -> dict[str, object]:
        of_text = {
            "id": text.split("_")[2],
            "user_id": owner["id"],
            "hint": key_format.hint(text),
            "digest": key_format.digest(self.pepper, text),
        }
        return self._key | of_text | fields


def wrong_secret(key: str, other: str) -> str:
    """The id of one key with the secret of another, and a checksum that fits."""
    secret = other.split("_")[3][: -key_format.CHECKSUM_LENGTH]
    body = f"{key.rpartition('_')[0]}_{secret}"
    return body + key_format.checksum(body)


async def fill(engine: AsyncEngine, wanted: int) -> dict[str, object]:
    maker = Maker()
    even = [maker.text() for _ in range(min(wanted, MOST_USABLE))]
    hot, limited, uncounted, revoked, admin = (maker.text() for _ in range(5))
    owners = [maker.owner(number) for number in range(len(even) // KEYS_PER_USER + 1)]
    rows = [maker.key(key, owners[number // KEYS_PER_USER]) for number, key in enumerate(even)]
    rows += [maker.key(key, owners[0]) for key in (hot, uncounted)]
    rows += [maker.key(limited, owners[0], rate_limit=HARMLESS_LIMIT)]
    rows += [maker.key(revoked, owners[0], revoked_at=maker.now)]
    owners.append(maker.owner(len(owners), is_admin=True))
    rows += [maker.key(admin, owners[-1], scopes=[*Scope])]
    async with engine.begin() as connection:
        await connection.execute(insert(USERS), owners)
        await connection.execute(insert(API_KEYS), rows)
    return {
        "hot": hot,
        "limited": limited,
        "uncounted": uncounted,
        "revoked": revoked,
        "admin": admin,
        "wrong": [wrong_secret(key, maker.text()) for key in even[:WRONG_KEYS]],
        "malformed": hot[:-1] + ("a" if hot[-1] != "a" else "b"),
        "even": even,
    }


async def fill_up(engine: AsyncEngine, wanted: int) -> None:
    """Copy rows under new ids, until there are enough."""
    others = [column for column in API_KEYS.columns if column.name != "id"]
    copies = select(literal_column(RANDOM_ID[engine.dialect.name]), *others)
    while True:
        async with engine.begin() as connection:
            count = (await connection.execute(select(func.count()).select_from(API_KEYS))).scalar_one()
            if count >= wanted:
                return
            limited = copies.limit(min(count, wanted - count, AT_ONCE))
            await connection.execute(insert(API_KEYS).from_select(["id", *(column.name for column in others)], limited))


async def seed(wanted: int) -> dict[str, object]:
    engine = create_engine(get_settings().database_url, for_migrations=True)  # with no time-outs
    keys = await fill(engine, wanted)
    await fill_up(engine, wanted)
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        await connection.execute(text("VACUUM ANALYZE" if engine.dialect.name == "postgresql" else "ANALYZE"))
    await engine.dispose()
    return keys


file, wanted = sys.argv[1:]
Path(file).write_text(json.dumps(asyncio.run(seed(int(wanted)))), "utf-8")
