import json
import logging
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from opentelemetry import _logs, trace

from app.settings import Settings

CONSOLE_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"
STANDARD_ATTRIBUTES = {*vars(logging.makeLogRecord({})), "message", "asctime", "color_message"}

Redact = Callable[[str], str]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

request_id_variable: ContextVar[str | None] = ContextVar("request_id", default=None)


class ConsoleFormatter(logging.Formatter):
    """One line for each message, so that a value in it cannot forge a line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  as in the base class
        line = super().formatMessage(record)
        if not line.isprintable():
            line = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line)
        if request_id := request_id_variable.get():
            line += f" request_id={request_id}"
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line += f" trace_id={trace.format_trace_id(span.trace_id)}"
        return line


class JsonFormatter(logging.Formatter):
    def __init__(self, redact: Redact) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := request_id_variable.get():
            line["request_id"] = request_id
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = trace.format_trace_id(span.trace_id)
            line["span_id"] = trace.format_span_id(span.span_id)
        if record.exc_info:
            record.exc_text = record.exc_text or self.formatException(record.exc_info)
        if record.exc_text:
            line["exception"] = record.exc_text
        extra = {
            f"extra_{name}" if name in line else name: getattr(record, name)
            for name in sorted(vars(record).keys() - STANDARD_ATTRIBUTES)
        }
        try:
            text = json.dumps(line | extra, default=str, allow_nan=False)
        except Exception:  # NaN, a key that is no text, a circular reference, too many levels
            text = json.dumps(line | {name: _text_of(value) for name, value in extra.items()})
        return self._redact(text)


def _text_of(value: object) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__}: {type(error).__name__}>"


class OpenTelemetryHandler(logging.Handler):
    def __init__(self, logger: _logs.Logger, redact: Redact) -> None:
        super().__init__()
        self.name = "opentelemetry"
        self.setFormatter(JsonFormatter(redact))
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        line = json.loads(self.format(record))
        self._logger.emit(
            timestamp=int(record.created * 1e9),
            severity_number=_logs.SeverityNumber(min(record.levelno, 50) // 10 * 4 + 1),
            severity_text=record.levelname,
            body=line.pop("message"),
            attributes=line,
        )


class RedactingFactory:
    """Makes log records without keys, whichever logger and handlers they are for.

    A filter would only cover the handlers that exist, but servers and libraries add their own.
    """

    def __init__(self, make_record: Callable[..., logging.LogRecord], redact: Redact) -> None:
        self._make_record = make_record
        self._redact = redact

    def __call__(self, *args: Any, **options: Any) -> logging.LogRecord:  # Any: of LogRecord
        record = self._make_record(*args, **options)
        if isinstance(record.args, tuple):  # uvicorn's formatter reads them
            texts = [self._redact(one) if isinstance(one, str) else one for one in record.args]
            record.args = tuple(texts)
        try:
            message = record.getMessage()
        except Exception:  # wrong arguments: the report of the handlers would contain them
            message = f"{record.msg} {record.args}"
            record.msg, record.args = self._redact(message), None
        redacted = self._redact(message)
        if redacted != message:
            record.msg, record.args = redacted, None
        if record.exc_info:
            self._redact_exception(record, record.exc_info)
        return record

    def _redact_exception(self, record: logging.LogRecord, exc_info: ExcInfo) -> None:
        text = logging.Formatter().formatException(exc_info)
        redacted = self._redact(text)
        if redacted != text:
            record.exc_text, record.exc_info = redacted, None


def configure_logging(settings: Settings, redact: Redact) -> None:
    """`redact` removes the keys from a text."""
    make_record = logging.getLogRecordFactory()
    if not isinstance(make_record, RedactingFactory):
        logging.setLogRecordFactory(RedactingFactory(make_record, redact))
    handler = logging.StreamHandler()
    handler.name = "app"
    handler.setFormatter(ConsoleFormatter(CONSOLE_FORMAT, "%H:%M:%S"))
    if settings.log_format == "json":
        handler.setFormatter(JsonFormatter(redact))
    _add_to_root(handler)
    for name in ("app", "uvicorn"):
        logging.getLogger(name).setLevel(settings.log_level.upper())
    for name in ("uvicorn", "uvicorn.error"):  # they have handlers with another format
        logging.getLogger(name).handlers = []  # not clear(): gunicorn uses the same list
        logging.getLogger(name).propagate = True


def send_to_opentelemetry(redact: Redact) -> None:
    """If OpenTelemetry is configured. FastAPI configures it just before the lifespan starts."""
    logger = _logs.get_logger_provider().get_logger("app")
    if logger.enabled():
        _add_to_root(OpenTelemetryHandler(logger, redact))


def _add_to_root(handler: logging.Handler) -> None:
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if other.name != handler.name] + [handler]
