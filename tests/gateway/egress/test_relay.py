"""Edge and egress together: a large body through both, in both directions, with flat memory."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator

from aiohttp import web

from gateway.edge.answer import Answer
from gateway.edge.body import request_head, stream_body
from tests.gateway.edge.sockets import running
from tests.gateway.egress.upstreams import pool, upstream

TOTAL = 128 << 20
PIECE = bytes(1 << 18)
PEAK_MAX_BYTES = 16 << 20


async def echo_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
    """Take the whole body, then send as much back."""
    left = TOTAL
    while left:
        left -= len(await reader.read(1 << 18))
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % TOTAL)
    for _ in range(TOTAL // len(PIECE)):
        writer.write(PIECE)
        await writer.drain()


async def body() -> AsyncIterator[bytes]:
    for _ in range(TOTAL // len(PIECE)):
        yield PIECE


async def test_relay_holds_memory_flat_when_bodies_are_large_both_ways() -> None:
    async with upstream(echo_later) as service, pool() as out, pool() as client:

        async def relay(request: web.BaseRequest) -> Answer:
            head = request_head(request)
            answer = await out.request(head.method, service.url(head.target.path), head.headers, stream_body(request))
            return Answer(answer.status, answer.headers, answer.content)

        async with running(relay) as edge:
            tracemalloc.start()
            try:
                url = f"http://127.0.0.1:{edge.server.port}/upload"
                response = await client.request("PUT", url, (("Content-Length", str(TOTAL)),), body())
                received = 0
                async for piece in response.content:
                    received += len(piece)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert received == TOTAL
    assert peak < PEAK_MAX_BYTES


async def test_relay_cuts_the_answer_when_the_upstream_cuts() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await writer.drain()
        writer.close()

    async with upstream(cut) as service, pool() as out:

        async def relay(request: web.BaseRequest) -> Answer:
            answer = await out.request("GET", service.url(), ())
            return Answer(answer.status, answer.headers, answer.content)

        async with running(relay) as edge:
            reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                raw = await reader.read()
            except ConnectionError:
                raw = b""
            assert b"0\r\n\r\n" not in raw.partition(b"\r\n\r\n")[2]
            writer.close()
