"""Changes of uvicorn, however it is started. `fastapi run` has no options for them.

- Trailer fields (RFC 9110, 6.5), which follow a chunked body, are ignored. With httptools, uvicorn
  would append them to the headers, and a client could set those that a proxy overwrites.
- X-Forwarded-For is left to TRUSTED_PROXIES. By default, uvicorn trusts every process here.
"""

import uvicorn.config
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_on_headers_complete = HttpToolsProtocol.on_headers_complete


class _CompleteHeaders(list[tuple[bytes, bytes]]):
    def append(self, _: tuple[bytes, bytes]) -> None:
        """Drop a trailer field."""


def _complete_headers(self: HttpToolsProtocol) -> None:
    self.headers = _CompleteHeaders(self.headers)
    _on_headers_complete(self)


def _no_proxy_headers(app: ASGIApp, **_: object) -> ASGIApp:
    return app


def configure_uvicorn() -> None:
    HttpToolsProtocol.on_headers_complete = _complete_headers  # type: ignore[method-assign]
    uvicorn.config.ProxyHeadersMiddleware = _no_proxy_headers  # type: ignore[attr-defined, assignment]
