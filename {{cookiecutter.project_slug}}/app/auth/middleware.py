from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth.dependencies import authenticate, get_caller


class AuthenticationMiddleware:
    """Authenticates before the body is read. FastAPI alone would read and parse it first.

    When FastAPI asks for the body, it has found the route, but has not called its dependencies. If
    the request is rejected, FastAPI gets an empty body, and `get_caller` raises the error.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        app, state = scope["app"], scope["state"]  # a mounted app replaces scope["app"]

        async def receive_if_authenticated() -> Message:
            is_done = "caller" in state or get_caller in app.dependency_overrides
            if not is_done and scope.get("endpoint") in app.state.protected_endpoints:
                try:
                    await authenticate(HTTPConnection(scope))
                except Exception as error:
                    state["authentication_error"] = error
                    return {"type": "http.request"}
            return await receive()

        await self.app(scope, receive_if_authenticated, send)
