"""The errors of this API, and their responses: problem details (RFC 9457).

Raise one anywhere below a route. `add_error_handlers` also turns the framework's errors, and those
of the database and of Redis, into problems.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from http.client import responses as phrases

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.routing import iter_route_contexts
from limits.errors import StorageError
from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from sqlalchemy.exc import InternalError as DatabaseInternalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

logger = logging.getLogger(__name__)

MAX_ERRORS = 20
MAX_FIELD_NAME = 64  # the response repeats the caller's field names, but not a key pasted as one


class ApiError(Exception):
    """`code` is part of the API and must never change. `detail` tells the caller what to do."""

    status: int
    code: str
    title: str
    challenge: str | None = None  # after the realm in WWW-Authenticate (RFC 6750, 3)
    headers: Mapping[str, str] = {}
    members: Mapping[str, object] = {}  # beyond those of RFC 9457

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or f"{self.title}."
        super().__init__(self.detail)


class InvalidRequest(ApiError):
    status = 400
    code = "invalid_request"
    title = "The request is malformed"
    challenge = ', error="invalid_request"'


class Unauthorized(ApiError):
    status = 401
    challenge = ', error="invalid_token"'


class NotAuthenticated(Unauthorized):
    code = "not_authenticated"
    title = "This request has no API key"
    challenge = ""  # no error code without credentials (RFC 6750, 3.1)


class ApiKeyInvalid(Unauthorized):
    code = "api_key_invalid"
    title = "This API key is not valid"  # the same for every reason, so that guesses learn nothing


class ApiKeyExpired(Unauthorized):
    code = "api_key_expired"
    title = "This API key has expired"


class ApiKeyRevoked(Unauthorized):
    code = "api_key_revoked"
    title = "This API key has been revoked"


class ApiKeyDisabled(Unauthorized):
    code = "api_key_disabled"
    title = "This API key is disabled"


class UserInactive(Unauthorized):
    code = "user_inactive"
    title = "The owner of this API key is inactive"


class InsufficientScope(ApiError):
    status = 403
    code = "insufficient_scope"
    title = "This API key lacks a required scope"

    def __init__(self, *required: str) -> None:
        noun = "scope" if len(required) == 1 else "scopes"
        super().__init__(f"This API key lacks the {noun} {' and '.join(required)}.")
        self.challenge = f', error="insufficient_scope", scope="{" ".join(required)}"'


class AddressNotAllowed(ApiError):
    status = 403
    code = "address_not_allowed"
    title = "This API key does not allow requests from this address"


class NotFound(ApiError):
    status = 404
    code = "not_found"
    title = "Not found"


class MethodNotAllowed(ApiError):
    status = 405
    code = "method_not_allowed"
    title = "Method not allowed"


class RequestTimeout(ApiError):
    status = 408
    code = "request_timeout"
    title = "The request body did not arrive in time"
    headers: Mapping[str, str] = {"Connection": "close"}  # RFC 9110, 15.5.9


class Conflict(ApiError):
    status = 409
    code = "conflict"
    title = "The request conflicts with the current state"


class ContentTooLarge(ApiError):
    status = 413
    code = "content_too_large"
    title = "The request body is too large"


class UnsupportedMediaType(ApiError):
    status = 415
    code = "unsupported_media_type"
    title = "The request body must be application/json"


class InvalidInput(ApiError):
    """`errors`: pairs of a JSON pointer (RFC 6901) into `{body, query, path}` and a message."""

    status = 422
    code = "invalid_input"
    title = "Validation failed"

    def __init__(self, *errors: tuple[str, str]) -> None:
        super().__init__("Validation failed. See errors.")
        self.errors = errors
        self.members = {"errors": [{"pointer": one, "detail": detail} for one, detail in errors]}


class RateLimited(ApiError):
    """The limit is `amount` per `window` seconds. The window ends in `wait` seconds."""

    status = 429
    code = "rate_limited"
    title = "Rate limit exceeded"

    def __init__(self, name: str, amount: int, window: int, wait: int) -> None:
        super().__init__("Rate limit exceeded. Retry after the number of seconds in Retry-After.")
        self.headers = {
            "Retry-After": f"{wait}",
            "RateLimit-Policy": f'"{name}";q={amount};w={window}',
            "RateLimit": f'"{name}";r=0;t={wait}',
        }


class InternalError(ApiError):
    status = 500
    code = "internal_error"
    title = "Internal server error"


class Unavailable(ApiError):
    status = 503
    code = "unavailable"
    title = "The service is temporarily unavailable"
    headers: Mapping[str, str] = {"Retry-After": "5"}


class HttpError(ApiError):
    """An HTTPException with another status. Its code and title are those of the status."""

    def __init__(self, status: int, detail: str | None) -> None:
        self.status = status
        self.title = phrases.get(status, "Error")
        self.code = self.title.lower().replace(" ", "_")
        super().__init__(detail)


HTTP_ERRORS: Mapping[int, type[ApiError]] = {
    400: InvalidRequest,
    404: NotFound,
    405: MethodNotAllowed,
    409: Conflict,
    413: ContentTooLarge,
    415: UnsupportedMediaType,
    500: InternalError,
    503: Unavailable,
}

# FastAPI's 400 for JSON that is not UTF-8, is nested too deeply or has a number with 4,300 digits.
NOT_PARSED = "There was an error parsing the body"

# psycopg raises InternalError for a write to a read-only database, for example a standby.
UNAVAILABLE = (
    *(OperationalError, InterfaceError, DatabaseInternalError, PoolTimeout),
    *(StorageError, TimeoutError, ConnectionError),
)


def problem(
    request: HTTPConnection, error: ApiError, headers: Mapping[str, str] | None = None
) -> Response:
    state = request.scope["state"]
    state["error_code"] = error.code
    headers = {**error.headers, **(headers or {})}
    if error.challenge is not None:
        headers["WWW-Authenticate"] = f'Bearer realm="{request.app.state.realm}"{error.challenge}'
    body = {
        "type": f"urn:problem-type:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": request.scope["path"],
        "code": error.code,
        "request_id": state["request_id"],
        **error.members,
    }
    # json.dumps writes ASCII. UTF-8 cannot encode the lone surrogates that a path can contain.
    content = json.dumps(body)
    return Response(content, error.status, headers, media_type="application/problem+json")


async def _handle_api_error(request: HTTPConnection, error: ApiError) -> Response:
    return problem(request, error)


async def _handle_validation_error(
    request: HTTPConnection, error: RequestValidationError | WebSocketRequestValidationError
) -> Response:
    if isinstance(getattr(error, "body", None), bytes):  # of another media type: not parsed
        return problem(request, UnsupportedMediaType())
    found = []
    for one in error.errors()[:MAX_ERRORS]:
        # Without the position of an error in JSON, and without a character of an invalid UUID.
        location = one["loc"][:1] if one.get("type") == "json_invalid" else one["loc"]
        message = re.sub("^Value error, |(?<=UUID), .*", "", one["msg"])
        found.append((_pointer(location), message))
    return problem(request, InvalidInput(*found))


def _pointer(location: Sequence[str | int]) -> str:
    parts = [str(part) if len(str(part)) <= MAX_FIELD_NAME else "…" for part in location]
    return "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in parts)


async def _handle_http_exception(request: Request, error: HTTPException) -> Response:
    """Of the framework, or of a route, which can give a detail."""
    status = error.status_code
    if error.detail == NOT_PARSED:
        return problem(request, InvalidInput(("/body", "JSON decode error")))
    detail = None if error.detail == phrases.get(status) else str(error.detail)
    kind = HTTP_ERRORS.get(status)
    found = kind(detail) if kind else HttpError(status, detail)
    if status != 405:
        return problem(request, found, error.headers)
    # All methods of the path (RFC 9110, 15.5.6). The framework names those of one route only.
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    routes = iter_route_contexts(request.app.routes)
    methods = [route.methods or () for route in routes if route.path_regex.match(path)]
    return problem(request, found, {"Allow": ", ".join(sorted(set().union(*methods)))})


async def _handle_data_error(request: Request, error: Exception) -> Response:
    logger.warning("the database rejected a value: %s", error)
    detail = "A value contains NUL or is out of range"
    return problem(request, InvalidInput(("", detail)))  # the pointer to all of the input


async def _handle_unavailable(request: Request, error: Exception) -> Response:
    logger.error("unavailable: %s: %s", type(error).__name__, error)
    return problem(request, Unavailable())


def add_error_handlers(app: FastAPI, realm: str) -> None:
    """`realm` names this API in WWW-Authenticate (RFC 9110, 11.5)."""
    app.state.realm = realm
    app.exception_handler(ApiError)(_handle_api_error)
    app.exception_handler(RequestValidationError)(_handle_validation_error)
    app.exception_handler(WebSocketRequestValidationError)(_handle_validation_error)
    app.exception_handler(HTTPException)(_handle_http_exception)
    app.exception_handler(DataError)(_handle_data_error)
    for error in UNAVAILABLE:
        app.exception_handler(error)(_handle_unavailable)
