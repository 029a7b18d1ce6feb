import asyncio

from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.core.server import configure_uvicorn

REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
TRAILER = b"Authorization: b\r\nX-Forwarded-For: b\r\nCookie: b\r\nHost: b\r\n\r\n"


async def test_the_app_sees_no_trailer_field_even_after_it_has_read_the_body() -> None:
    configure_uvicorn()
    scopes: asyncio.Queue[Scope] = asyncio.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.put_nowait(scope)
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    config = Config(app, log_config=None)
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpToolsProtocol(config, ServerState(), {}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for _ in range(2):  # on the same connection
        writer.write(REQUEST)
        scope = await asyncio.wait_for(scopes.get(), 10)
        writer.write(TRAILER)
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert scope["headers"] == [(b"host", b"a"), (b"transfer-encoding", b"chunked")]
    writer.close()
    server.close()
