from collections.abc import Awaitable
from urllib.parse import quote, urlencode

from pydantic import SecretStr
from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from app.auth.key_format import redact, redact_bytes
from app.core.errors import InvalidRequest, NotAuthenticated
from app.settings import Location

# The keys in the enabled locations, and the number of Authorization headers.
Credentials = tuple[list[SecretStr], int]


class CredentialsMiddleware:
    """Takes the keys out of each request, and leaves them redacted. `find_key` returns them.

    So the headers and the query of a request contain no key, whatever logs or reports them. This
    runs before all other middleware, because some of it copies the headers.
    """

    def __init__(self, app: ASGIApp, locations: list[Location]) -> None:
        self.app = app
        self.locations = locations

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "lifespan":
            state = scope.setdefault("state", {})
            state["credentials"] = take_credentials(scope, self.locations)
        return self.app(scope, receive, send)


def take_credentials(scope: Scope, locations: list[Location]) -> Credentials:
    """Ignores empty keys, and whitespace around a key (RFC 9110, 5.5 and 11.4)."""
    found: list[str] = []
    authorization_headers = 0
    scope["headers"] = headers = list(scope["headers"])  # the parsed headers hide duplicates
    for index, (name, value) in enumerate(headers):
        if name == b"authorization":
            headers[index] = (name, redact_bytes(value))
            authorization_headers += 1
            scheme, _, credential = value.strip().partition(b" ")
            if "bearer" in locations and scheme.lower() == b"bearer":
                found.append(credential.decode("latin-1"))
        elif name == b"x-api-key":
            headers[index] = (name, redact_bytes(value))
            if "header" in locations:
                found.append(value.decode("latin-1"))
    if (path := redact(scope["path"])) != scope["path"]:
        scope["path"], scope["raw_path"] = path, quote(path).encode()
    if scope["query_string"]:
        in_query = take_from_query(scope)
        if "query" in locations:
            found += in_query
    keys = [SecretStr(key) for text in found if (key := text.strip(" \t"))]
    return keys, authorization_headers


def take_from_query(scope: Scope) -> list[str]:
    pairs = QueryParams(scope["query_string"]).multi_items()
    redacted = [(redact(name), redact(value)) for name, value in pairs]
    if redacted != pairs:
        scope["query_string"] = urlencode(redacted, safe="*").encode()
    return [value for name, value in pairs if name == "api_key"]


def find_key(scope: Scope) -> SecretStr:
    """The one key in a request.

    Raises NotAuthenticated if there is none, InvalidRequest if there is more than one.
    """
    credentials: Credentials = scope["state"]["credentials"]
    keys, authorization_headers = credentials
    if authorization_headers > 1:
        raise InvalidRequest("This request has more than one Authorization header.")
    if not keys:
        raise NotAuthenticated
    if len(keys) > 1:
        raise InvalidRequest("This request has more than one API key.")
    return keys[0]


def contains_key(scope: Scope) -> bool:
    """Whether the path or the query of a request contains a key, before it is redacted."""
    pairs = QueryParams(scope["query_string"]).multi_items()
    texts = [scope["path"], *(text for pair in pairs for text in pair)]
    return "api_key" in texts or any(redact(text) != text for text in texts)
