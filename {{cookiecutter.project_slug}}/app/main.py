import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from starlette.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app import health, metrics
from app.api_keys.dependencies import RequiresKey, authenticate
from app.api_keys.request import MalformedKeyMiddleware, keys_in_query
from app.api_keys.router import router as api_keys_router
from app.api_keys.verifier import Verifier
from app.database import Database
from app.errors import add_error_handlers
from app.logging import RequestMiddleware, configure_logging
from app.openapi import Api
from app.rate_limit import RateLimiter
from app.settings import PYPROJECT, Settings, get_settings
from app.usage.recorder import UsageRecorder
from app.usage.router import router as usage_router
from app.users.router import router as users_router

logger = logging.getLogger(__name__)


def create_app(settings: Settings | None = None, database: Database | None = None) -> Api:
    """The application; without arguments as the environment describes it, for `uvicorn --factory`."""
    settings = settings or get_settings()
    configure_logging(settings)

    app = Api(
        title=settings.project_name,
        description=PYPROJECT["project"]["description"],
        version=PYPROJECT["project"]["version"],
        lifespan=lifespan,
        docs_url="/docs" if settings.docs_are_public else None,
        openapi_url="/openapi.json" if settings.docs_are_public else None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,
        # OpenTelemetry, where it is switched on (docs/operations.md), would put the whole query into each span.
        telemetry={"exclude": lambda scope: bool(keys_in_query(scope))},
    )
    add_parts(app, settings, database or Database(settings.database_url))

    app.include_router(users_router)
    app.include_router(api_keys_router)
    app.include_router(usage_router)
    app.include_router(health.router)
    if settings.metrics_enabled:
        app.include_router(metrics.router)
    refuse_unguarded_routes(app)

    # The last one added is the first to see a request.
    app.add_middleware(
        MalformedKeyMiddleware,
        verifier=app.state.verifier,
        locations=settings.api_key_locations,
        handlers=app.exception_handlers,
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"]
        )
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.trusted_proxies)
    app.add_middleware(RequestMiddleware)
    add_error_handlers(app, realm=PYPROJECT["project"]["name"])
    return app


def add_parts(app: FastAPI, settings: Settings, database: Database) -> None:
    """What outlives a request, and what the requests find in `app.state`."""
    app.state.settings = settings
    app.state.database = database
    app.state.verifier = Verifier(settings, database)
    app.state.rate_limiter = RateLimiter(settings)
    app.state.authenticate = partial(
        authenticate, settings.api_key_locations, app.state.verifier, app.state.rate_limiter
    )
    app.state.usage = UsageRecorder(settings, database)
    app.state.metrics = metrics.Metrics(database, app.state.usage) if settings.metrics_enabled else None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    if missing := await health.what_is_missing(app.state.database):
        logger.error("not ready: %s", missing)
    # What is there now stays, and what a request makes is nearly all gone after it: to look for garbage after every 700
    # objects, as Python does by default, takes a tenth of each request.
    gc.freeze()
    gc.set_threshold(50_000)
    async with app.state.usage.running(), app.state.verifier.cache.running():
        yield
    await app.state.rate_limiter.close()
    await app.state.database.dispose()


def refuse_unguarded_routes(app: FastAPI) -> None:
    """Stop the start when a route under /v1 asks for no key: a forgotten guard is found here, not by a stranger."""
    for route in iter_route_contexts(app.routes):
        if route.path and route.path.startswith("/v1") and not _asks_for_key(route.dependant):
            raise RuntimeError(f"{route.path} asks for no key: give {route.name} a CurrentCaller or requires(Scope.…)")


def _asks_for_key(dependant: Dependant) -> bool:
    return isinstance(dependant.call, RequiresKey) or any(map(_asks_for_key, dependant.dependencies))
