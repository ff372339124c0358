"""The listening server over real sockets: how an answer is framed, streamed, cut and given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from gateway.edge.answer import Answer
from tests.gateway.edge.sockets import CLOSE, GET, parsed, problem, running


async def test_server_streams_when_the_answer_comes_in_pieces() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one", b"", b"two"):
            yield piece

    async def handler(request: web.BaseRequest) -> Answer:
        return Answer(200, (("X-A", "1"), ("X-A", "2"), ("Transfer-Encoding", "gzip"), ("Connection", "x")), pieces())

    async with running(handler) as edge:
        raw = await edge.send(GET + CLOSE)
        assert raw == (
            b"HTTP/1.1 200 OK\r\nX-A: 1\r\nX-A: 2\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
        )
        old = await edge.send(b"GET /a HTTP/1.0\r\n\r\n")
        assert old.endswith(b"\r\n\r\nonetwo")


async def test_server_cuts_the_answer_when_its_body_fails_half_way() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"one"
        raise RuntimeError("cut")

    async def handler(request: web.BaseRequest) -> Answer:
        return Answer(200, (), broken())

    async with running(handler) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        writer.write(GET + b"\r\n")
        received = b""
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            while True:
                received += await reader.readexactly(1)
        assert not received.endswith(b"0\r\n\r\n")
        writer.close()


@pytest.mark.parametrize(
    ("declared", "size"), [pytest.param("5", 3, id="too short"), pytest.param("2", 3, id="too long")]
)
async def test_server_cuts_the_answer_when_its_body_is_not_as_long_as_declared(declared: str, size: int) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a" * size

    async def handler(request: web.BaseRequest) -> Answer:
        return Answer(200, (("Content-Length", declared),), pieces())

    async with running(handler) as edge:
        with pytest.raises(ConnectionError):
            raw = await edge.send(GET + b"\r\n")
            raise ConnectionError if len(parsed(raw)[2]) != int(declared) else AssertionError


@pytest.mark.parametrize(
    ("request_line", "answer", "expected"),
    [
        pytest.param(b"HEAD", Answer(200, (), b"abc"), b"Content-Length: 3\r\n\r\n", id="HEAD keeps the length"),
        pytest.param(
            b"HEAD",
            Answer(200, (("Content-Length", "9"),), b""),
            b"Content-Length: 9\r\nConnection: close\r\n\r\n",
            id="own",
        ),
        pytest.param(
            b"GET", Answer(204), b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", id="204 has no length"
        ),
        pytest.param(b"GET", Answer(304), b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n", id="304"),
        pytest.param(b"GET", Answer(299, reason="Odd"), b"HTTP/1.1 299 Odd\r\n", id="a reason of its own"),
        pytest.param(b"GET", Answer(299), b"HTTP/1.1 299 \r\n", id="a status without a reason"),
    ],
)
async def test_server_frames_the_answer_when(request_line: bytes, answer: Answer, expected: bytes) -> None:
    async def handler(request: web.BaseRequest) -> Answer:
        return answer

    async with running(handler) as edge:
        raw = await edge.send(request_line + b" /a HTTP/1.1\r\nHost: x\r\n" + CLOSE)
    assert expected in raw


async def test_server_cuts_when_an_answer_header_holds_a_line_end() -> None:
    async def handler(request: web.BaseRequest) -> Answer:
        return Answer(200, (("X-A", "b\r\nSet-Cookie: c"),))

    async with running(handler) as edge:
        with pytest.raises(ConnectionError):
            raw = await edge.send(GET + CLOSE)
            raise ConnectionError if b"Set-Cookie" not in raw else AssertionError


async def test_server_sends_an_aiohttp_response_without_its_name_when_given_one() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="hi")

    async with running(handler) as edge:
        raw = await edge.send((GET + b"\r\n") * 2 + GET + CLOSE)
    assert raw.count(b"HTTP/1.1 200 OK") == 3
    assert raw.count(b"Server: tidegate") == 3
    assert b"aiohttp" not in raw


async def test_server_reads_no_body_when_head_is_asked_of_a_stream() -> None:
    ended = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        ended.set()
        yield b"a"

    async def handler(request: web.BaseRequest) -> Answer:
        return Answer(200, (("Content-Length", "7"), ("Content-Length", "8")), pieces())

    async with running(handler) as edge:
        raw = await edge.send(b"HEAD /a HTTP/1.1\r\nHost: x\r\n" + CLOSE)
    assert raw == b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n"
    assert not ended.is_set()


async def test_server_answers_engine_failed_when_the_handler_breaks() -> None:
    async def break_down(request: web.BaseRequest) -> Answer:
        raise KeyError("secret-value")

    async with running(break_down) as edge:
        raw = await edge.send(GET + CLOSE)
    assert problem(raw) == (503, "engine_failed")
    assert b"secret-value" not in raw


@pytest.mark.parametrize(
    "declared", [pytest.param((), id="chunked"), pytest.param((("Content-Length", "99"),), id="sized")]
)
async def test_server_ends_the_body_when_the_client_leaves_half_way(declared: tuple[tuple[str, str], ...]) -> None:
    gone, ended = asyncio.Event(), asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"a"
            await gone.wait()
            for _ in range(50):
                yield b"a"
                await asyncio.sleep(0.01)
            raise AssertionError("the body was read to its end")
        finally:
            ended.set()

    async def handler(request: web.BaseRequest) -> Answer:
        return Answer(200, declared, pieces())

    async with running(handler) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        writer.write(GET + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        gone.set()
        async with asyncio.timeout(5):
            await ended.wait()


async def test_server_gives_a_client_up_when_it_does_not_read() -> None:
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1 << 18)
        finally:
            ended.set()

    async def handler(request: web.BaseRequest) -> Answer:
        return Answer(200, (), endless())

    async with running(handler, write_stall_seconds=0.1) as edge:
        _, writer = await asyncio.open_connection("127.0.0.1", edge.server.port, limit=1024)
        writer.write(GET + b"\r\n")
        async with asyncio.timeout(5):
            await ended.wait()
        writer.transport.abort()
