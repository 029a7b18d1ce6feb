import asyncio
import json
import logging
import re
import time
from datetime import UTC, datetime
from uuid import uuid4

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api_keys.verifier import Caller
from app.errors import InternalError, Unavailable, problem
from app.settings import Settings

CONSOLE = "%(asctime)s %(levelname)-7s %(message)s"
SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
LARGEST_BODY = 1024 * 1024  # bytes

access_log = logging.getLogger("app.access")
logger = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class ConsoleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        return " ".join([super().format(record), *(f"{name}={value}" for name, value in fields.items())])


def configure_logging(settings: Settings) -> None:
    handler = logging.StreamHandler()
    handler.name = "app"
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else ConsoleFormatter(CONSOLE, "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if other.name != handler.name] + [handler]
    for name in ("app", "uvicorn"):
        logging.getLogger(name).setLevel(settings.log_level.upper())
    for name in ("uvicorn", "uvicorn.error"):  # uvicorn brings handlers of its own, in a format of its own
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


class RequestMiddleware:
    """Gives each request an id, bounds its body and its time, answers what nothing else caught, counts the use of its
    key, and writes its line to the log.

    Pure ASGI: BaseHTTPMiddleware would cost more than the rest of a request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status, received, started = 0, 0, time.perf_counter()
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        too_late: asyncio.Task[None] | None = None

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > LARGEST_BODY:
                raise HTTPException(413)
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if too_late and asyncio.current_task() is task:
                return
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        def give_up() -> None:
            # Answered from a task of its own: a driver whose server is frozen takes seconds to be cancelled.
            nonlocal too_late
            if not status and task:
                too_late = loop.create_task(problem(Request(scope), Unavailable())(scope, receive, send_with_id))
                task.cancel()

        timer = loop.call_later(scope["app"].state.settings.request_timeout_seconds, give_up)
        try:
            await self.app(scope, receive_bounded, send_with_id)
        except asyncio.CancelledError:
            if not too_late or not task:
                raise
            task.uncancel()
            logger.error("gave up", extra={"fields": {"request_id": request_id}})
            await too_late
        except Exception:
            logger.exception("unhandled error", extra={"fields": {"request_id": request_id}})
            if status:  # too late for another answer: let the server cut the connection
                raise
            await problem(Request(scope), InternalError())(scope, receive, send_with_id)
        finally:
            timer.cancel()
            _report(scope, status, time.perf_counter() - started)


def _report(scope: Scope, status: int, seconds: float) -> None:
    """Count the request and log it: the path's template, never its query or a header, where keys travel."""
    state = scope["state"]
    caller: Caller | None = state.get("caller")
    path = route.path if (route := scope.get("route")) else None
    if caller:
        scope["app"].state.usage.record(caller.key_id, error=status >= 400)
    if scope["app"].state.metrics:
        scope["app"].state.metrics.observe(scope["method"], path, status, seconds, state.get("refusal"))
    if not access_log.isEnabledFor(logging.INFO):
        return
    fields = {
        "method": scope["method"],
        "path": path,
        "status": status,
        "duration_ms": round(seconds * 1000, 2),
        "request_id": state["request_id"],
        "key_id": caller and caller.key_id,
        "user_id": caller and str(caller.user_id),
        "client": scope["client"] and scope["client"][0],
    }
    access_log.info("request", extra={"fields": fields})


def _request_id(scope: Scope) -> str:
    """The caller's X-Request-ID if it is harmless in a log, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SANE_REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return uuid4().hex
