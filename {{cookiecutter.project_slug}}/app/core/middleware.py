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
from collections.abc import Awaitable, Set
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple
from uuid import UUID, uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors import InternalError, InvalidRequest, RequestTimeout, Unavailable, problem
from app.core.logging import request_id_variable

Address = IPv4Address | IPv6Address

VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

logger = logging.getLogger(__name__)
access_log = logging.getLogger("app.access")


class FinishedRequest(NamedTuple):
    """The error code is that of the problem.

    The ids are those of a key with a correct secret, even if it was rejected. If it was accepted,
    `is_authenticated` is true. `seconds` ends with the last byte of the response, before its
    background tasks.
    """

    scope: Scope
    status: int
    seconds: float
    key_id: str | None
    user_id: UUID | None
    is_authenticated: bool
    error_code: str | None


class RequestMiddleware:
    """Gives each request an id, and calls `after_request`.

    Rejects requests that have a header of `only_once` twice, or no Host: a proxy could read them
    differently.
    """

    def __init__(self, app: ASGIApp, only_once: Set[bytes]) -> None:
        self.app = app
        self.only_once = only_once

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        hooks = scope["app"].state.after_request  # a mounted app replaces scope["app"]
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = uuid4().hex
        names = []
        for name, value in scope["headers"]:
            if name in self.only_once:
                names.append(name)
            if name == b"x-request-id" and VALID_REQUEST_ID.fullmatch(value):  # safe to log
                state["request_id"] = request_id = str(value, "ascii")
        request_id_variable.set(request_id)
        started_at = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            # A rejected WebSocket gets an HTTP response too.
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                state["status"] = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["x-content-type-options"] = "nosniff"
                if "is_protected" in state:
                    headers["cache-control"] = "no-store"
                # The default, because many errors come from before the caller is known.
                headers.setdefault("cache-control", "no-store")
            await send(message)
            if message["type"] == "http.response.body":  # the last one counts
                state["seconds"] = time.perf_counter() - started_at  # without background tasks

        app: ASGIApp = self.app
        if b"host" not in names and scope.get("http_version", "1.1") == "1.1":
            app = problem(HTTPConnection(scope), InvalidRequest("The Host header is missing."))
        elif len(names) > len(set(names)):
            detail = "Send Host and X-Forwarded-For only once."
            app = problem(HTTPConnection(scope), InvalidRequest(detail))
        try:
            await app(scope, receive, send_with_id)
        finally:
            if scope["type"] == "http":
                finished = FinishedRequest(
                    scope,
                    state.get("status", 0),
                    state.get("seconds", time.perf_counter() - started_at),
                    state.get("key_id"),
                    state.get("user_id"),
                    "caller" in state,
                    state.get("error_code"),
                )
                for hook in hooks:
                    hook(finished)


class ErrorMiddleware:
    """Responds to unhandled exceptions."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception:
            logger.exception("unhandled error")
            if scope["type"] != "http" or "status" in scope["state"]:
                raise  # too late for a response: the server closes the connection
            response = problem(HTTPConnection(scope), InternalError())
            await response(scope, receive, send)


class UnixSocketMiddleware:
    """Calls the client of a Unix socket `unix`, so that TRUSTED_PROXIES can name it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        server = scope.get("server")
        if not scope.get("client") and server and server[1] is None:  # a path without a port
            scope["client"] = ("unix", 0)
        return self.app(scope, receive, send)


def client_address(scope: Scope) -> Address | None:
    """The client's address, as forwarded by TRUSTED_PROXIES. None for a Unix socket."""
    host, _ = scope.get("client") or ("", 0)
    try:
        address = ip_address(host.partition("%")[0])  # a zone could be any text
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def log_request(finished: FinishedRequest) -> None:
    """Without the query and the headers: they contain secrets. The path is that of the route."""
    scope = finished.scope
    address = client_address(scope)  # a proxy can forward any text
    route = scope.get("route")
    fields = {
        "method": scope["method"],
        "path": route.path_format if route else None,
        "status": finished.status,
        "code": finished.error_code,
        "duration_ms": round(finished.seconds * 1000, 2),
        "key_id": finished.key_id,
        "user_id": finished.user_id,
        "client": address and str(address),
    }
    message = "%(method)s %(path)s %(status)s %(duration_ms)s ms code=%(code)s key_id=%(key_id)s"
    access_log.info(message, fields, extra=fields)


class BodyLimitMiddleware:
    """Rejects bodies that are larger or compressed.

    FastAPI's max_body_size limits them too, but its 413 is plain text.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            encoding = Headers(scope=scope).get("content-encoding", "").lower()
            if received and encoding not in {"", "identity"}:
                detail = "The request body must have no Content-Encoding."
                accepted = {"Accept-Encoding": "identity"}  # RFC 9110, 12.5.3
                raise HTTPException(415, detail, accepted)
            if received > self.max_bytes:
                raise HTTPException(413)
            return message

        await self.app(scope, receive_limited if scope["type"] == "http" else receive, send)


class TimeoutMiddleware:
    """Responds 503 if the response has not started after `seconds`, or 408 if the body is late.

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
        is_receiving = False
        timeout_response: asyncio.Task[None] | None = None

        async def receive_body() -> Message:
            nonlocal is_receiving
            is_receiving = True
            try:
                return await receive()
            finally:
                is_receiving = False

        async def send_unless_timed_out(message: Message) -> None:
            nonlocal started
            if timeout_response is None:
                started = True
                await send(message)

        def time_out() -> None:
            nonlocal timeout_response
            if not started:
                error = RequestTimeout() if is_receiving else Unavailable()
                level = logging.INFO if is_receiving else logging.ERROR
                logger.log(level, "the request timed out")
                response = problem(HTTPConnection(scope), error)
                timeout_response = loop.create_task(response(scope, receive, send))
                request.cancel()

        timer = loop.call_later(self.seconds, time_out)
        try:
            await self.app(scope, receive_body, send_unless_timed_out)
        except asyncio.CancelledError:
            if timeout_response is None:
                raise
            request.uncancel()
        finally:
            timer.cancel()
            if timeout_response is not None:
                await timeout_response
