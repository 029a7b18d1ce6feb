"""Makes uvicorn ignore trailer fields (RFC 9110, 6.5), the fields after a chunked body.

With httptools, uvicorn appends them to the request's headers. A client could then set the headers
that a proxy overwrites, such as X-Forwarded-For.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_on_headers_complete = HttpToolsProtocol.on_headers_complete


class _CompleteHeaders(list[tuple[bytes, bytes]]):
    def append(self, _: tuple[bytes, bytes]) -> None:
        """Drop a trailer field."""


def _complete_headers(self: HttpToolsProtocol) -> None:
    self.headers = _CompleteHeaders(self.headers)
    _on_headers_complete(self)


def drop_trailer_fields() -> None:
    """Change uvicorn's class: `fastapi run` and gunicorn have no option for another parser."""
    HttpToolsProtocol.on_headers_complete = _complete_headers  # type: ignore[method-assign]
