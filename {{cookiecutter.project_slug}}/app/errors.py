"""Everything that this API refuses, as RFC 9457 problems.

    ApiError
    ├── InvalidRequest        400 invalid_request
    ├── Unauthorized          401
    │   ├── NotAuthenticated      not_authenticated
    │   ├── ApiKeyInvalid         api_key_invalid
    │   ├── ApiKeyExpired         api_key_expired
    │   ├── ApiKeyRevoked         api_key_revoked
    │   ├── ApiKeyDisabled        api_key_disabled
    │   └── UserInactive          user_inactive
    ├── InsufficientScope     403 insufficient_scope
    ├── AddressNotAllowed     403 address_not_allowed
    ├── NotFound              404 not_found
    ├── MethodNotAllowed      405 method_not_allowed
    ├── Conflict              409 conflict
    ├── ContentTooLarge       413 content_too_large
    ├── UnsupportedMediaType  415 unsupported_media_type
    ├── InvalidInput          422 invalid_input
    ├── RateLimited           429 rate_limited
    ├── InternalError         500 internal_error
    └── Unavailable           503 unavailable

Raise one anywhere below a route; `add_error_handlers` turns it into a response, and the framework's own errors too.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from limits.errors import StorageError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import InternalError as DatabaseInternalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

logger = logging.getLogger(__name__)

LONGEST_FIELD_NAME = 64  # a caller's own field names are echoed in a pointer; a key pasted as a name must not be
MOST_ERRORS = 20


class ApiError(Exception):
    """A refusal. `detail` tells the caller what to do about it; `code` and `title` come from the name of the class."""

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    detail: str
    challenge: str | None = None  # what follows the realm in WWW-Authenticate (RFC 6750, 3); None: no such header
    headers: Mapping[str, str] = {}
    members: Mapping[str, object] = {}  # what the problem holds beyond the members of RFC 9457

    def __init_subclass__(cls) -> None:
        words = re.sub(r"(?<!^)(?=[A-Z])", " ", cls.__name__).lower()
        cls.code = words.replace(" ", "_")
        cls.title = words.capitalize()

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self.detail
        super().__init__(self.detail)


class InvalidRequest(ApiError):
    status, detail, challenge = 400, "The request could not be read.", ', error="invalid_request"'


class Unauthorized(ApiError):
    status, challenge = 401, ', error="invalid_token"'


class NotAuthenticated(Unauthorized):
    detail, challenge = "This request carries no API key.", ""  # RFC 6750, 3.1: no error without credentials


class ApiKeyInvalid(Unauthorized):
    detail = "This API key is not valid."  # one sentence for every reason, so that a guess learns nothing


class ApiKeyExpired(Unauthorized):
    detail = "This API key has expired."


class ApiKeyRevoked(Unauthorized):
    detail = "This API key has been revoked."


class ApiKeyDisabled(Unauthorized):
    detail = "This API key is disabled."


class UserInactive(Unauthorized):
    detail = "The owner of this API key is not active."


class InsufficientScope(ApiError):
    status, detail = 403, "This API key may not do this."

    def __init__(self, *needed: str) -> None:
        super().__init__(f"This needs the scope {' and '.join(needed)}.")
        self.challenge = f', error="insufficient_scope", scope="{" ".join(needed)}"'


class AddressNotAllowed(ApiError):
    status, detail = 403, "This API key may not be used from this address."


class NotFound(ApiError):
    status, detail = 404, "There is nothing here that you may see."


class MethodNotAllowed(ApiError):
    status, detail = 405, "This address does not know the method."


class Conflict(ApiError):
    status, detail = 409, "This does not fit the present state."


class ContentTooLarge(ApiError):
    status, detail = 413, "The body is too large."


class UnsupportedMediaType(ApiError):
    status, detail = 415, "The body must be application/json."


class InvalidInput(ApiError):
    """`errors`: pairs of a JSON pointer (RFC 6901) into `{body, query, path}` and what is wrong there."""

    status, detail = 422, "The request does not fit; errors says where."

    def __init__(self, *errors: tuple[str, str]) -> None:
        super().__init__()
        self.errors = errors
        self.members = {"errors": [{"pointer": pointer, "detail": detail} for pointer, detail in errors]}


class RateLimited(ApiError):
    """`amount` per `window` seconds is the limit, and `wait` seconds remain of this window (RFC 9110, 10.2.3)."""

    status, detail = 429, "This is more than the limit; Retry-After says when to go on."

    def __init__(self, name: str, amount: int, window: int, wait: int) -> None:
        super().__init__()
        self.headers = {
            "Retry-After": f"{wait}",
            "RateLimit-Policy": f'"{name}";q={amount};w={window}',
            "RateLimit": f'"{name}";r=0;t={wait}',
        }


class InternalError(ApiError):
    status, detail = 500, "Something went wrong here, and has been logged."


class Unavailable(ApiError):
    status, detail, headers = 503, "A service behind this API does not answer.", {"Retry-After": "5"}


BY_STATUS = {
    error.status: error for error in (InvalidRequest, NotFound, MethodNotAllowed, ContentTooLarge, UnsupportedMediaType)
}


def as_json(error: ApiError | type[ApiError], path: str, request_id: str) -> dict[str, object]:
    return {
        "type": f"urn:problem-type:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": path,
        "code": error.code,
        "request_id": request_id,
        **error.members,
    }


def problem(request: Request, error: ApiError, headers: Mapping[str, str] | None = None) -> Response:
    request.scope["state"]["refusal"] = error.code
    body = as_json(error, request.scope["path"], request.scope["state"]["request_id"])
    headers = {**error.headers, **(headers or {})}
    if error.challenge is not None:
        headers["WWW-Authenticate"] = f'Bearer realm="{request.app.state.realm}"{error.challenge}'
    # ASCII, because a path or a field's name can hold lone surrogates, which UTF-8 has no bytes for.
    return Response(json.dumps(body), error.status, headers, media_type="application/problem+json")


def _pointer(location: Sequence[str | int]) -> str:
    parts = (str(part) for part in location)
    short = (part if len(part) <= LONGEST_FIELD_NAME else "…" for part in parts)
    return "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in short)


def _allowed_methods(request: Request) -> dict[str, str]:
    """All methods of a path; the framework's own 405 names those of one route (RFC 9110, 15.5.6, wants them all)."""
    routes = [route for route in iter_route_contexts(request.app.routes) if route.path_regex.match(request.url.path)]
    # /users/me is also a /users/{user_id}, and takes nothing of that: the first path that matches is meant.
    methods = {method for route in routes if route.path == routes[0].path for method in route.methods or ()}
    return {"Allow": ", ".join(sorted(methods))}


async def _api_error(request: Request, error: ApiError) -> Response:
    return problem(request, error)


async def _validation_error(request: Request, error: RequestValidationError) -> Response:
    if isinstance(error.body, bytes):  # FastAPI leaves a body unparsed that isn't declared as JSON
        return problem(request, UnsupportedMediaType())
    found = [(_pointer(one["loc"]), one["msg"].removeprefix("Value error, ")) for one in error.errors()]
    return problem(request, InvalidInput(*found[:MOST_ERRORS]))


async def _framework_error(request: Request, error: HTTPException) -> Response:
    kind = BY_STATUS.get(error.status_code, InvalidRequest)
    return problem(request, kind(), _allowed_methods(request) if kind is MethodNotAllowed else error.headers)


async def _unavailable(request: Request, error: Exception) -> Response:
    logger.error("unavailable: %s: %s", type(error).__name__, error)
    return problem(request, Unavailable())


def add_error_handlers(app: FastAPI, realm: str) -> None:
    """`realm` names this API in WWW-Authenticate (RFC 9110, 11.5)."""
    app.state.realm = realm
    app.exception_handler(ApiError)(_api_error)
    app.exception_handler(RequestValidationError)(_validation_error)
    app.exception_handler(HTTPException)(_framework_error)
    # psycopg says InternalError of a write to a read-only database, such as a standby that nobody has promoted.
    of_database = (OperationalError, InterfaceError, DatabaseInternalError, PoolTimeout)
    for failure in (*of_database, StorageError, TimeoutError, ConnectionError):
        app.exception_handler(failure)(_unavailable)
