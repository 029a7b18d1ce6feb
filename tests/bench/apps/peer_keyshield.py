"""keyshield as its README shows it, but at its fastest: with its cache, and without the 0.1 to 0.3 s that it sleeps.

`python peer_keyshield.py` makes the table and prints a key.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import aiocache
from fastapi import Depends, FastAPI
from keyshield.api import create_depends_api_key
from keyshield.hasher.argon2 import Argon2ApiKeyHasher
from keyshield.repositories.sql import SqlAlchemyApiKeyRepository
from keyshield.services.cached import CachedApiKeyService
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from bench_item import ITEM, Item

hasher = Argon2ApiKeyHasher(pepper="gZ0b-3m1Qe7xU9fWc5sKt8yRj2vHnL4aPdXo6iTuEMk")
cache = aiocache.SimpleMemoryCache()
engine = create_async_engine("sqlite+aiosqlite:///keys.db")
make_session = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()


async def inject_session() -> AsyncIterator[AsyncSession]:
    async with make_session() as session, session.begin():
        yield session


def cached_service(session: AsyncSession) -> CachedApiKeyService:
    repository = SqlAlchemyApiKeyRepository(session)
    return CachedApiKeyService(repository, hasher, cache, min_delay=0, max_delay=0)


async def inject_service(session: Annotated[AsyncSession, Depends(inject_session)]) -> CachedApiKeyService:
    return cached_service(session)


@app.get("/open")
async def read_open() -> Item:
    return ITEM


@app.get("/guarded", dependencies=[Depends(create_depends_api_key(inject_service))])
async def read_guarded() -> Item:
    return ITEM


async def make_key() -> str:
    async with make_session() as session, session.begin():
        await SqlAlchemyApiKeyRepository(session).ensure_table(engine)
        _, key = await cached_service(session).create(name="bench")
    return key


if __name__ == "__main__":
    print(asyncio.run(make_key()))
