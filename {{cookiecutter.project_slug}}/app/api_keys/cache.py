"""The keys that were verified a moment ago, so that most requests ask the database nothing.

No secret is in here, only fingerprints, and nothing of it is ever written back: it can keep a revoked key alive for a
moment, and never revive one. It is believed only while nothing has changed. Each deed that may change what a key is
allowed advances a stamp in its own transaction. The process that did it forgets all keys at once, and the others when
they next ask for the stamp, which they do every POLL_SECONDS; while it cannot be read, every request asks the database.
What is changed behind the sessions of this code, in psql for example, advances no stamp: LONGEST_SECONDS is its bound.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from sqlalchemy import event, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import ORMExecuteState, Session, UOWTransaction
from sqlmodel import col

from app.api_keys.models import ApiKeyStamp, UserApiKey
from app.database import Database
from app.users.models import User

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
BELIEVED_SECONDS = 1.0  # after the start of the last poll that was answered: the longest that a deed goes unseen
LONGEST_SECONDS = 60.0
MOST_KEYS = 100_000  # some 75 MB

T = TypeVar("T")

CACHES: "WeakSet[KeyCache[Any]]" = WeakSet()  # Any: they are only told to forget


class KeyCache(Generic[T]):
    """What is known of keys, by their fingerprints."""

    def __init__(self, database: Database, *, enabled: bool) -> None:
        self._database = database
        self._enabled = enabled
        self._keys: dict[bytes, tuple[T, float]] = {}  # oldest first, each with the moment until which it is kept
        self._stamp: int | None = None
        self._believed_until = 0.0
        self.generation = 0  # how often all was forgotten
        CACHES.add(self)

    @property
    def believed(self) -> bool:
        return time.monotonic() < self._believed_until

    def get(self, fingerprint: bytes) -> T | None:
        known, until = self._keys.get(fingerprint, (None, 0.0))
        return known if time.monotonic() < min(until, self._believed_until) else None

    def put(self, fingerprint: bytes, known: T, generation: int) -> None:
        """`generation` is that of before the database was asked: what has been forgotten since stays forgotten."""
        if generation == self.generation and self.believed:
            self._keys.pop(fingerprint, None)
            self._keys[fingerprint] = known, time.monotonic() + LONGEST_SECONDS
            if len(self._keys) > MOST_KEYS:
                del self._keys[next(iter(self._keys))]

    def forget(self) -> None:
        self._keys.clear()
        self.generation += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Poll the stamp inside the block. Without, or with API_KEY_CACHE=false, nothing is remembered."""
        stopping = asyncio.Event()
        polling = asyncio.create_task(self._poll_until(stopping)) if self._enabled else None
        yield
        stopping.set()
        if polling:
            await asyncio.wait({polling}, timeout=0.5)  # cancelled in a query, it would leave a broken connection
            polling.cancel()
            await asyncio.wait({polling}, timeout=0.5)  # a driver whose server is frozen takes longer to be cancelled

    async def _poll_until(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                # Kept, and not given back to a pool that others may empty: the cache is needed most when all is busy.
                async with self._database.connection() as connection:
                    while not stopping.is_set():
                        await self._poll(connection)
                        await _wait(stopping, POLL_SECONDS)
            except (SQLAlchemyError, OSError) as error:
                logger.warning("every key is asked of the database: its stamp could not be read: %s", error)
                await _wait(stopping, BELIEVED_SECONDS)

    async def _poll(self, connection: AsyncConnection) -> None:
        began = time.monotonic()
        stamp = (await connection.execute(select(col(ApiKeyStamp.number)))).scalar_one()
        if stamp != self._stamp:
            self.forget()
            self._stamp = stamp
        self._believed_until = began + BELIEVED_SECONDS


async def _wait(stopping: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)


# Whatever a session changes or deletes of users and keys advances the stamp: no service has to remember to.


@event.listens_for(Session, "after_flush")
def _notice_objects(session: Session, _: UOWTransaction) -> None:
    if any(isinstance(one, User | UserApiKey) for one in (*session.dirty, *session.deleted)):
        session.info["advance_stamp"] = True


@event.listens_for(Session, "do_orm_execute")
def _notice_statements(state: ORMExecuteState) -> None:
    if (state.is_update or state.is_delete) and state.bind_mapper and state.bind_mapper.class_ in {User, UserApiKey}:
        state.session.info["advance_stamp"] = True


@event.listens_for(Session, "before_commit")
def _advance(session: Session) -> None:
    """Last of all, so that its row is locked for a moment only, and never while another one is waited for."""
    session.flush()
    if session.info.get("advance_stamp") and not session.in_nested_transaction():
        session.connection().execute(update(ApiKeyStamp).values(number=col(ApiKeyStamp.number) + 1))


@event.listens_for(Session, "after_commit")
def _forget(session: Session) -> None:
    if not session.in_nested_transaction() and session.info.pop("advance_stamp", False):
        for cache in CACHES:
            cache.forget()
