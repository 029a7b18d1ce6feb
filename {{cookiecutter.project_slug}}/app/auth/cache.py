"""Recently verified keys, so that most requests do not query the database.

A revoked, disabled or expired key, and a key of an inactive owner, has an entry too, if its secret
matches. Other invalid keys have none, or guesses could fill the cache. An entry holds no secret.

It is valid for `seconds` after its key was looked up, unless the key or its owner has changed. The
audit log tells what has changed: each change of a right adds an event in its own transaction. While
requests arrive, the events of the last 30 seconds are read every 0.25 seconds. An entry is only
used if the last read, or the lookup itself, is younger than a second. So a change takes effect
within a second in every process. In its own process it takes effect at once, because `get_session`
calls `mark_changed` after the commit.

A change without an event (in psql, for example) takes effect after `seconds`. So does one whose
transaction commits more than 20 seconds after its event.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import ColumnElement, literal_column, select
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col

from app.audit.models import AuditEvent
from app.auth.caller import Caller
from app.core.database import Database

logger = logging.getLogger(__name__)

READ_SECONDS = 0.25
TRUST_SECONDS = 1.0
MAX_ENTRIES = 100_000  # about 75 MB
MAX_READS = 2  # at once, while the database is slow
MAX_EVENTS = 2000  # with more in 30 seconds, keys are looked up

# statement_timestamp(), because PostgreSQL scans the whole index for a clock that advances.
SINCE = {
    "postgresql": "statement_timestamp() - interval '30 seconds'",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f', 'now', '-30 seconds')",
}


class Entry(NamedTuple):
    caller: Caller
    asked_at: float  # just before the lookup


class KeyCache:
    """All times are monotonic: changes of the wall clock have no effect."""

    def __init__(self, database: Database, seconds: float) -> None:
        self._database = database
        self._seconds = seconds  # 0 turns the cache off
        self._entries: dict[bytes, Entry] = {}  # by fingerprint, oldest first
        self._lookups: dict[bytes, asyncio.Task[Caller]] = {}  # in progress
        self._changed_at: dict[str | UUID, float] = {}  # when this process learned of a change
        self._event_ids: set[UUID] = set()
        self._reads: set[asyncio.Task[None]] = set()
        self._read_started_at = 0.0  # the newest read
        self._read_at = 0.0  # the start of the newest read that succeeded

    def get(self, key: SecretStr) -> Caller | None:
        if not self._seconds:
            return None
        now = time.monotonic()
        if now - self._read_started_at > READ_SECONDS and len(self._reads) < MAX_READS:
            self._start_read(now)
        entry = self._entries.get(sha256(key.get_secret_value().encode()).digest())
        if entry is None:
            return None
        caller, asked_at = entry
        changed_at = max(
            self._changed_at.get(caller.key_id, 0.0),
            self._changed_at.get(caller.user_id, 0.0),
        )
        is_valid = (
            asked_at > changed_at
            and now - asked_at < self._seconds
            and now - max(asked_at, self._read_at) < TRUST_SECONDS
            and (caller.expires_at > time.time() or caller.rejection is not None)
        )
        return caller if is_valid else None

    async def look_up(
        self, key: SecretStr, query: Callable[[SecretStr], Awaitable[Caller]]
    ) -> Caller:
        """Query the database, once for all requests that miss the same key at the same time."""
        if not self._seconds:
            return await query(key)
        fingerprint = sha256(key.get_secret_value().encode()).digest()
        if lookup := self._lookups.get(fingerprint):
            await asyncio.wait({lookup})
            # None if that lookup failed, or if a change since its start made its result invalid.
            return self.get(key) or await self._look_up(key, query)
        lookup = asyncio.create_task(self._look_up(key, query))
        self._lookups[fingerprint] = lookup
        lookup.add_done_callback(lambda _: self._lookups.pop(fingerprint))
        return await asyncio.shield(lookup)

    async def _look_up(
        self, key: SecretStr, query: Callable[[SecretStr], Awaitable[Caller]]
    ) -> Caller:
        asked_at = time.monotonic()
        caller = await query(key)
        fingerprint = sha256(key.get_secret_value().encode()).digest()
        self._entries.pop(fingerprint, None)
        self._entries[fingerprint] = Entry(caller, asked_at)
        if len(self._entries) > MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]
        return caller

    def mark_changed(self, ids: Iterable[str | UUID]) -> None:
        """Invalidate the entries of these keys and users."""
        if self._seconds:
            self._changed_at |= dict.fromkeys(ids, time.monotonic())

    def _start_read(self, now: float) -> None:
        self._read_started_at = now
        read = asyncio.create_task(self._read_changes(now))
        self._reads.add(read)
        read.add_done_callback(self._reads.discard)

    async def _read_changes(self, started_at: float) -> None:
        try:
            dialect = self._database.engine.dialect.name
            since: ColumnElement[datetime] = literal_column(SINCE[dialect])
            events = await self._database.fetch_all(
                select(
                    col(AuditEvent.id),
                    col(AuditEvent.target_key_id),
                    col(AuditEvent.target_user_id),
                )
                .where(col(AuditEvent.changes_rights), col(AuditEvent.created_at) > since)
                .limit(MAX_EVENTS + 1),
                is_check=True,
            )
        except (SQLAlchemyError, OSError) as error:
            logger.warning("the key cache cannot read the audit log: %s", error)
            return
        if started_at < self._read_at or len(events) > MAX_EVENTS:
            return  # a later read has overtaken this one, or there are more events than were read
        new = [event for event in events if event.id not in self._event_ids]
        # The event of a key names its owner too, whose other keys have not changed.
        self.mark_changed(event.target_key_id or event.target_user_id for event in new)
        self._event_ids = {event.id for event in events}
        self._read_at = started_at
        oldest = started_at - self._seconds
        self._changed_at = {one: at for one, at in self._changed_at.items() if at > oldest}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Wait for reads at the end: a cancelled query leaves a broken connection."""
        try:
            yield
        finally:
            if self._reads:
                await asyncio.wait(self._reads, timeout=0.5)
