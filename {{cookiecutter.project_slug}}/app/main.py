"""The application. Start it with `make run` or `fastapi dev`."""

if __name__ == "__main__":  # run as a file, for example by an editor: the imports would fail
    raise SystemExit("Start the app with `fastapi dev` in the project's folder.")

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from types import ModuleType
from typing import Any

from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app import console, metrics, usage
from app.api_keys import service as api_keys
from app.api_keys.router import router as api_keys_router
from app.audit import service as audit
from app.audit.router import router as audit_router
from app.auth import key_format
from app.auth.credentials import CredentialsMiddleware, contains_key
from app.auth.dependencies import check_routes, describe_security
from app.auth.middleware import AuthenticationMiddleware
from app.auth.rate_limit import RateLimiter
from app.auth.verifier import Verifier
from app.core import health, middleware, pages
from app.core.cors import CorsMiddleware
from app.core.database import Database
from app.core.errors import add_error_handlers
from app.core.logging import configure_logging, send_to_opentelemetry
from app.core.openapi import describe_errors
from app.core.retention import purge_daily
from app.core.server import configure_uvicorn
from app.core.types import spellings
from app.settings import PYPROJECT, Settings, get_settings
from app.users.router import router as users_router

logger = logging.getLogger(__name__)

# If any other route needs no API key, the app does not start.
PUBLIC = {
    "/",
    "/health/live",
    "/health/ready",
    "/openapi.json",
    "/docs",
    "/docs/{path:path}",
    "/console",
    "/console/{path:path}",
}

TAGS = [
    {"name": "users", "description": "The owners of API keys."},
    {"name": "api keys", "description": "`current` stands for the calling key in every path."},
    {"name": "audit events", "description": "Who changed what, and when."},
    {"name": "monitoring", "description": "For probes and monitoring systems."},
]

FEATURES: tuple[ModuleType, ...] = (
    # Delete one with docs/delete-a-feature.md.
    usage,
    metrics,
    console,
)


class Api(FastAPI):
    def openapi(self) -> dict[str, Any]:  # Any: a JSON document
        if not self.openapi_schema:
            document = super().openapi()
            describe_security(document, self)
            describe_errors(document)
        return self.openapi_schema or {}


def create_app(settings: Settings | None = None, database: Database | None = None) -> Api:
    """By default, the environment and `.env` supply the settings."""
    settings = settings or get_settings()
    configure_logging(settings, key_format.redact)
    configure_uvicorn()

    app = Api(
        title=settings.project_name,
        description=PYPROJECT["project"]["description"],
        version=PYPROJECT["project"]["version"],
        lifespan=lifespan,
        openapi_tags=TAGS,
        servers=[{"url": "/"}],  # behind a sub-path, FastAPI adds it as the first server
        docs_url=None,
        openapi_url="/openapi.json" if settings.docs_are_public else None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,
        # OpenTelemetry would put the path and the query, and a key in them, into each span.
        telemetry={"exclude": contains_key},
    )
    add_error_handlers(app, realm=PYPROJECT["project"]["name"])
    app.state.settings = settings
    app.state.database = database or Database(
        settings.database_url,
        pooler=settings.database_pooler,
        replica_url=settings.database_replica_url,
    )
    app.state.readiness = health.Readiness(app.state.database)
    app.state.verifier = Verifier(settings, app.state.database)
    app.state.rate_limiter = RateLimiter(settings)
    app.state.lifespan = [app.state.verifier.cache.running, app.state.rate_limiter.running]
    app.state.after_request = [middleware.log_request]
    app.state.after_commit = [app.state.verifier.cache.mark_changed]
    app.state.retention = [*audit.retention(settings), *api_keys.retention(settings)]
    app.state.lifespan.append(partial(purge_daily, app.state.database, app.state.retention))

    pages.serve_home(app)
    if settings.docs_are_public:
        pages.serve_docs(app)
    app.include_router(health.router)
    app.include_router(users_router)
    app.include_router(api_keys_router)
    app.include_router(audit_router)
    for feature in FEATURES:
        feature.install(app, settings)
    check_routes(app, PUBLIC)
    add_middleware(app, settings)
    return app


def add_middleware(app: FastAPI, settings: Settings) -> None:
    """The middleware that is added last runs first."""
    app.add_middleware(AuthenticationMiddleware)
    app.add_middleware(middleware.BodyLimitMiddleware, max_bytes=settings.request_body_limit)
    app.add_middleware(middleware.TimeoutMiddleware, seconds=settings.request_timeout_seconds)
    if settings.trusted_proxies:
        proxies = [one for network in settings.trusted_proxies for one in spellings(network)]
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=proxies)
        app.add_middleware(middleware.UnixSocketMiddleware)
    app.add_middleware(middleware.ErrorMiddleware)
    if settings.cors_origins:
        app.add_middleware(CorsMiddleware, allow_origins=settings.cors_origins)
    only_once = {b"host", b"x-forwarded-for"} if settings.trusted_proxies else {b"host"}
    app.add_middleware(middleware.RequestMiddleware, only_once=only_once)
    app.add_middleware(CredentialsMiddleware, locations=settings.api_key_locations)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    send_to_opentelemetry(key_format.redact)
    check_routes(app, PUBLIC)  # again, for routes that were added to the finished app
    if problem := await health.find_problem(app.state.database):
        logger.error("not ready: %s", problem)
    # Requests create little cyclic garbage, and searching for it takes a tenth of their CPU.
    gc.freeze()
    gc.set_threshold(50_000)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(app.state.database.dispose)
        for hook in app.state.lifespan:
            await stack.enter_async_context(hook())
        yield


app = create_app()
