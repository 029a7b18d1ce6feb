"""`python -m app check`: what keeps the app from starting or from being ready."""

import asyncio
from collections.abc import Callable
from functools import partial
from importlib import import_module

from sqlalchemy.exc import DBAPIError

from app.core import health
from app.core.database import Database, find_wrong_encoding, reason
from app.settings import ROOT, EnvSettings, Settings, load_settings

REDIS_TIMEOUT_SECONDS = 2


def find_problems() -> list[str]:
    """One sentence per problem, without secrets."""
    for file in sorted(ROOT.glob("app/*/settings.py")):
        import_module(f"app.{file.parent.name}.settings")
    problems = [
        sentence
        for kind in EnvSettings.__subclasses__()
        for sentence in _sentences(partial(load_settings, kind))
    ]
    if not _sentences(partial(load_settings, Settings)):
        problems += asyncio.run(_find_unavailable(load_settings(Settings)))
    # A route that needs no key, for example. The sentences about settings are the same.
    problems += _sentences(partial(import_module, "app.main"))
    return [*dict.fromkeys(problems)]


def _sentences(start: Callable[[], object]) -> list[str]:
    try:
        start()
    except SystemExit as stop:
        return str(stop).splitlines()
    return []


async def _find_unavailable(settings: Settings) -> list[str]:
    problems = [await _check_database("DATABASE_URL", settings.database_url, settings)]
    if replica_url := settings.database_replica_url:
        problems.append(await _check_database("DATABASE_REPLICA_URL", replica_url, settings))
    if settings.redis_url:
        problems.append(await _check_redis(settings.redis_url))
    return [problem for problem in problems if problem]


async def _check_database(name: str, url: str, settings: Settings) -> str | None:
    database = Database(url, pooler=settings.database_pooler)
    try:
        async with database.engine.connect() as connection:
            problem = await connection.run_sync(find_wrong_encoding)
        problem = problem or await health.find_problem(database)
    except DBAPIError as error:
        problem = f"Cannot connect to the database: {reason(error)}."
    finally:
        await database.dispose()
    return problem and f"{name}: {problem}"


async def _check_redis(url: str) -> str | None:
    from redis.asyncio import Redis  # slow to import
    from redis.exceptions import RedisError

    seconds = REDIS_TIMEOUT_SECONDS
    problem = None
    try:
        async with Redis.from_url(
            url, socket_timeout=seconds, socket_connect_timeout=seconds
        ) as redis:
            await redis.ping()
    except (RedisError, OSError) as error:
        problem = f"REDIS_URL: Redis does not respond: {str(error).rstrip('.')}."
    return problem
