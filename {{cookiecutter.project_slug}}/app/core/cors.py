from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.errors import InvalidRequest, problem

EXPOSED_HEADERS = (
    "Location",
    "X-Request-ID",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "WWW-Authenticate",
)


class CorsMiddleware(CORSMiddleware):
    """Starlette's middleware, with a problem instead of plain text for a rejected preflight."""

    def __init__(self, app: ASGIApp, allow_origins: list[str]) -> None:
        super().__init__(
            app,
            allow_origins=allow_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        return response if response.status_code == 200 else RejectedPreflight()


class RejectedPreflight(Response):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = InvalidRequest("This origin or method is not allowed (CORS).")
        response = problem(HTTPConnection(scope), error, {"Vary": "Origin"})
        await response(scope, receive, send)
