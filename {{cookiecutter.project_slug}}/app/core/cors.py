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
        is_allowed = response.status_code == 200
        return response if is_allowed else RejectedPreflight(headers=dict(response.headers))


class RejectedPreflight(Response):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = InvalidRequest("This origin or method is not allowed (CORS).")
        of_cors = {n: v for n, v in self.headers.items() if not n.startswith("content-")}
        response = problem(HTTPConnection(scope), error, of_cors)
        await response(scope, receive, send)
