"""Pages for people: static files, /docs and `GET /`. They load nothing from other origins."""

import base64
import re
from collections.abc import Callable, Coroutine, Mapping
from hashlib import sha256
from pathlib import Path

import fastapi_offline
from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

from app.core.errors import NotFound

SWAGGER_UI = Path(fastapi_offline.__file__).parent / "static"
HEADERS = {
    "Cache-Control": "no-cache",  # browsers keep the files, and ask whether they have changed
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def policy(*, scripts: str = "'self'", styles: str = "'self'") -> dict[str, str]:
    """The headers of a page that contacts only its own origin."""
    directives = (
        "default-src 'none'",
        f"script-src {scripts}",
        f"style-src {styles}",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return {**HEADERS, "Content-Security-Policy": "; ".join(directives)}


def add_page(
    app: FastAPI, path: str, endpoint: Callable[..., Coroutine[object, object, Response]]
) -> None:
    app.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)


def serve_folder(app: FastAPI, path: str, folder: Path, headers: Mapping[str, str]) -> None:
    """Serve the files of a folder below `path`."""
    files = StaticFiles(directory=folder, html=True)

    async def read_file(request: Request, path: str) -> Response:
        if {".", ".."} & {*path.split("/")}:
            raise NotFound
        await request.body()  # rejects an invalid one, which would truncate the file
        # Without ranges, whose errors are plain text. The files are small.
        request.scope["headers"] = [one for one in request.scope["headers"] if one[0] != b"range"]
        response = await files.get_response(path or ".", request.scope)
        response.headers.update(headers)
        del response.headers["accept-ranges"]
        return response

    add_page(app, f"{path}/{{path:path}}", read_file)


def serve_home(app: FastAPI) -> None:
    """`GET /` leads to `app.state.home`, if a page sets it."""
    app.state.home = None

    async def go_home(request: Request) -> Response:
        if app.state.home is None:
            raise NotFound
        return redirect(request, app.state.home)

    add_page(app, "/", go_home)


def redirect(request: Request, path: str) -> Response:
    """To a path of this app, which can be below another path (`--root-path`)."""
    return RedirectResponse(f"{request.scope.get('root_path', '').rstrip('/')}{path}")


def serve_docs(app: FastAPI) -> None:
    """Swagger UI at /docs, from the files of the package fastapi-offline.

    The URLs are relative, because the app can be below another path. The policy names the hash of
    the only inline script.
    """
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=app.title,
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon.png",
    )
    [script] = re.findall(b"<script>(.*?)</script>", bytes(page.body), re.DOTALL)
    digest = base64.b64encode(sha256(script).digest()).decode()
    headers = policy(scripts=f"'self' 'sha256-{digest}'", styles="'self' 'unsafe-inline'")
    page.headers.update(headers)

    async def read_docs() -> Response:
        return page

    add_page(app, "/docs", read_docs)
    serve_folder(app, "/docs", SWAGGER_UI, headers)
    app.state.home = "/docs"
