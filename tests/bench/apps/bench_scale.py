"""The app with jobs that start on demand, and with a watch of its event loop: `uvicorn bench_scale:app`."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from sqlmodel import col, select, text

from app.api_keys.models import UserApiKey
from app.core.database import SessionDep
from app.core.middleware import FinishedRequest
from app.core.retention import purge
from app.main import PUBLIC, app

TICK = 0.002  # seconds
AT_ONCE = 100  # counters that are made without a pause
SLOW = 1.5  # seconds
LAST_KEYS = select(UserApiKey.id).order_by(col(UserApiKey.id).desc())


class Watch:
    """The longest time that the event loop did not turn, and how much CPU it used in the longest of them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.seconds = self.cpu = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._run())
        yield
        task.cancel()

    async def _run(self) -> None:
        while True:
            started, cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(TICK)
            self.seconds = max(self.seconds, time.perf_counter() - started - TICK)
            self.cpu = max(self.cpu, time.thread_time() - cpu)


watch = Watch()


@app.get("/bench/stall")
async def read_stall() -> dict[str, float]:
    """Since the last time."""
    stall = {"seconds": watch.seconds, "cpu": watch.cpu}
    watch.reset()
    return stall


@app.post("/bench/purge")
async def purge_now(request: Request) -> int:
    state = request.app.state
    return sum([number async for _, number in purge(state.database, state.retention)])


@app.post("/bench/flush")
async def flush(request: Request, counters: int) -> int:
    recorder, database = request.app.state.usage, request.app.state.database
    key_ids: Sequence[Any] = await database.fetch_all(LAST_KEYS.limit(counters))
    for number, (key_id,) in enumerate(key_ids):
        recorder.record(FinishedRequest({}, 200, 0.01, key_id, None, True, None))
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
    watch.reset()
    await recorder.flush()
    return len(key_ids)


@app.get("/bench/slow")
async def read_slowly(session: SessionDep) -> None:
    await session.exec(select(text("1")))
    await asyncio.sleep(SLOW)


PUBLIC |= {f"/bench/{name}" for name in ("stall", "purge", "flush", "slow")}
app.state.lifespan.append(watch.running)
