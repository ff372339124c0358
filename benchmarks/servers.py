"""The processes a measurement stands on: a target that answers at once, and two bare reverse proxies.

`python -m benchmarks.servers target PORT`, `… floor PORT TARGET_PORT` or `… application PORT TARGET_PORT`. The floor does
what any reverse proxy on this stack must do (one client session, headers copied, body streamed) and nothing else: no
policy, no record, and not even routes, as it stands on aiohttp's low-level server. The application does the same as
people usually write it: a `web.Application` with one route.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import aiohttp
import uvloop
from aiohttp import web

from benchmarks.messages import message_size

HOST = "127.0.0.1"
BODY = b'{"result": [{"sys_id": "a1", "number": "INC0010001", "short_description": "measured", "state": "1"}]}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Date: Sun, 22 Nov 2026 12:00:00 GMT\r\nServer: target\r\n\r\n%b" % (len(BODY), BODY)
)
DROPPED = frozenset({"host", "connection", "transfer-encoding", "content-length", "content-encoding", "date", "server"})


class Target(asyncio.Protocol):
    """Answers every request of one connection with the same bytes once it is whole. What the target costs is not there for
    what is measured, so it is no more than that."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._held = held = self._held + data if self._held else data
        size = message_size(held)
        while size and self._transport is not None:
            self._transport.write(ANSWER)
            self._held = held = held[size:]
            size = message_size(held)


def _proxy(session: aiohttp.ClientSession, target: str) -> web.Server:
    async def forward(request: web.BaseRequest) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in DROPPED}
        body = request.content if request.can_read_body else None
        async with session.request(
            request.method, target + request.raw_path, headers=headers, data=body, allow_redirects=False
        ) as answer:
            response = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in DROPPED:
                    response.headers.add(name, value)
            response.content_length = answer.content_length
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    return web.Server(forward)


def _runner(kind: str, proxy: web.Server) -> web.BaseRunner:
    if kind == "floor":
        return web.ServerRunner(proxy)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", proxy.request_handler)
    return web.AppRunner(application, access_log=None)


async def _serve(kind: str, port: int, target_port: int) -> None:
    if kind == "target":
        await asyncio.get_running_loop().create_server(Target, HOST, port)
        await _ready()
        return
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    ) as session:
        await _listen(_runner(kind, _proxy(session, f"http://{HOST}:{target_port}")), port)


async def _listen(runner: web.BaseRunner, port: int) -> None:
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    await _ready()


async def _ready() -> None:
    print("ready", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serve until killed."""
    kind, port = sys.argv[1], int(sys.argv[2])
    uvloop.run(_serve(kind, port, int(sys.argv[3]) if len(sys.argv) > 3 else 0))


if __name__ == "__main__":
    main()
