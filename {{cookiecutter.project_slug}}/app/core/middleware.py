"""Pure ASGI middleware, and the hooks that features attach to. The hooks are lists on `app.state`:

- `lifespan`: functions that return an async context manager, open while the process runs
- `after_request`: called with a FinishedRequest when its response has been sent
- `after_commit`: called when `get_session` has committed, with the ids of the keys and users whose
  rights have changed

A fourth list, `retention`, names the rows that are deleted when they are old (core/retention.py).
"""

import asyncio
import logging
import re
import time
from typing import NamedTuple
from uuid import UUID, uuid4

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors import InternalError, Unavailable, problem

VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

logger = logging.getLogger(__name__)
access_log = logging.getLogger("app.access")


class FinishedRequest(NamedTuple):
    """The ids are those of the caller, the error code is that of the problem."""

    scope: Scope
    status: int
    seconds: float
    key_id: str | None
    user_id: UUID | None
    error_code: str | None


class RequestMiddleware:
    """Gives each request an id, responds to unhandled exceptions, and calls `after_request`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        hooks = scope["app"].state.after_request  # a mounted app replaces scope["app"]
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = uuid4().hex
        for name, value in scope["headers"]:
            if name == b"x-request-id" and VALID_REQUEST_ID.fullmatch(value):  # safe to log
                state["request_id"] = request_id = str(value, "ascii")
        started_at = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], (b"x-request-id", request_id.encode())]
                if "is_protected" in state:
                    headers.append((b"cache-control", b"no-store"))
                message["headers"] = headers
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            logger.exception("unhandled error in request %s", request_id)
            if status or scope["type"] == "websocket":  # too late: the server closes the connection
                raise
            response = problem(HTTPConnection(scope), InternalError())
            await response(scope, receive, send_with_id)
        finally:
            if scope["type"] == "http":
                finished = FinishedRequest(
                    scope,
                    status,
                    time.perf_counter() - started_at,
                    state.get("key_id"),
                    state.get("user_id"),
                    state.get("error_code"),
                )
                for hook in hooks:
                    hook(finished)


def log_request(finished: FinishedRequest) -> None:
    """Never log the query or a header: they contain keys. The path is the template of the route."""
    if not access_log.isEnabledFor(logging.INFO):
        return
    scope = finished.scope
    route = scope.get("route")
    fields = {
        "method": scope["method"],
        "path": route.path if route else None,
        "status": finished.status,
        "code": finished.error_code,
        "duration_ms": round(finished.seconds * 1000, 2),
        "key_id": finished.key_id,
        "user_id": finished.user_id,
        "request_id": scope["state"]["request_id"],
        "client": scope["client"] and scope["client"][0],
    }
    message = "%(method)s %(path)s %(status)s %(code)s %(duration_ms)s ms key_id=%(key_id)s"
    access_log.info(f"{message} request_id=%(request_id)s", fields, extra=fields)


class BodyLimitMiddleware:
    """Rejects larger bodies. FastAPI's max_body_size does too, but its 413 is plain text."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413)
            return message

        await self.app(scope, receive_limited if scope["type"] == "http" else receive, send)


class TimeoutMiddleware:
    """Responds 503 if the response has not started after `seconds`.

    A database driver cannot be cancelled while its server is frozen, so `asyncio.timeout` would
    not respond. A separate task sends the response.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = asyncio.current_task()
        if scope["type"] != "http" or request is None:
            await self.app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        started = False
        timeout_response: asyncio.Task[None] | None = None

        async def send_unless_timed_out(message: Message) -> None:
            nonlocal started
            if timeout_response is None:
                started = True
                await send(message)

        def time_out() -> None:
            nonlocal timeout_response
            if not started:
                logger.error("request %s timed out", scope["state"]["request_id"])
                response = problem(HTTPConnection(scope), Unavailable())
                timeout_response = loop.create_task(response(scope, receive, send))
                request.cancel()

        timer = loop.call_later(self.seconds, time_out)
        try:
            await self.app(scope, receive, send_unless_timed_out)
        except asyncio.CancelledError:
            if timeout_response is None:
                raise
            request.uncancel()
        finally:
            timer.cancel()
            if timeout_response is not None:
                await timeout_response
