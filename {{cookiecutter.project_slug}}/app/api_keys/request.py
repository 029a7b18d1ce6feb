from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, ExceptionHandler, Receive, Scope, Send

from app import errors
from app.api_keys.format import fingerprint
from app.api_keys.verifier import Verifier
from app.settings import Location


class PresentedKey(NamedTuple):
    text: str
    fingerprint: bytes


def presented_key(scope: Scope, locations: list[Location]) -> PresentedKey:
    """The one key in a request, which is read once for all who ask.

    Raises NotAuthenticated where there is none, InvalidRequest where there is more than one.
    """
    key: PresentedKey | None = scope["state"].get("presented_key")
    if key is None:
        text = _read(scope, locations).decode("latin-1")  # never fails; what isn't ASCII isn't the format of a key
        key = scope["state"]["presented_key"] = PresentedKey(text, fingerprint(text))
    return key


def _read(scope: Scope, locations: list[Location]) -> bytes:
    """From the raw headers: the parsed ones hide that there are two."""
    authorizations = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(authorizations) > 1:
        raise errors.InvalidRequest("This request has more than one Authorization header.")
    found: list[bytes] = []
    if "bearer" in locations and authorizations:
        scheme, _, credential = authorizations[0].partition(b" ")
        if scheme.lower() == b"bearer" and credential:
            found.append(credential)
    if "header" in locations:
        found += [value for name, value in scope["headers"] if name == b"x-api-key"]
    if "query" in locations:
        found += keys_in_query(scope)
    if not found:
        raise errors.NotAuthenticated
    if len(found) > 1:
        raise errors.InvalidRequest("This request carries more than one API key.")
    return found[0]


def keys_in_query(scope: Scope) -> list[bytes]:
    query = parse_qsl(scope["query_string"], keep_blank_values=True)
    return [value for name, value in query if name == b"api_key"]


class MalformedKeyMiddleware:
    """Refuses what cannot be a key, under /v1, before it is routed: rubbish must not cost more than a good request.

    It only asks earlier than the route would, and what it raises goes to the same `handlers`.
    """

    def __init__(
        self, app: ASGIApp, verifier: Verifier, locations: list[Location], handlers: Mapping[Any, ExceptionHandler]
    ) -> None:
        self.app = app
        self.verifier = verifier
        self.locations = locations
        self.ask_at_once = ExceptionMiddleware(self._authenticate, handlers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/") and self._has_malformed_key(scope):
            await self.ask_at_once(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _has_malformed_key(self, scope: Scope) -> bool:
        try:
            key = presented_key(scope, self.locations)
        except errors.ApiError:  # none, or two: the route says so, if it asks for a key
            return False
        return not self.verifier.was_here(key.fingerprint) and self.verifier.is_malformed(key.text)

    async def _authenticate(self, scope: Scope, receive: Receive, send: Send) -> None:
        await scope["app"].state.authenticate(Request(scope))
        await self.app(scope, receive, send)  # in tests that let everybody in
