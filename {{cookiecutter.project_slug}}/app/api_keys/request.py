from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app import errors
from app.api_keys.verifier import Verifier
from app.settings import Location


def presented_key(scope: Scope, locations: list[Location]) -> str:
    """The one key in a request, read from the raw headers: the parsed ones hide that there are two.

    Raises NotAuthenticated where there is none, InvalidRequest where there is more than one.
    """
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
    return found[0].decode("latin-1")  # never fails; what isn't ASCII isn't the format of a key


def keys_in_query(scope: Scope) -> list[bytes]:
    query = parse_qsl(scope["query_string"], keep_blank_values=True)
    return [value for name, value in query if name == b"api_key"]


class MalformedKeyMiddleware:
    """Refuses what cannot be a key, under /v1, before it is routed: rubbish must not cost more than a good request.

    It only asks earlier than the route would. Whatever it lets pass is asked there again.
    """

    def __init__(self, app: ASGIApp, verifier: Verifier, locations: list[Location]) -> None:
        self.app = app
        self.verifier = verifier
        self.locations = locations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/") and self._has_malformed_key(scope):
            request = Request(scope)
            try:
                await scope["app"].state.authenticate(request)
            except errors.ApiError as error:
                await errors.problem(request, error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _has_malformed_key(self, scope: Scope) -> bool:
        try:
            return self.verifier.is_malformed(presented_key(scope, self.locations))
        except errors.ApiError:  # none, or two: the route says so, if it asks for a key
            return False
