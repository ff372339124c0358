"""The listening server over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine

import pytest
import uvloop
from aiohttp import web

from gateway.edge.answer import Answer
from gateway.edge.body import has_body, read_body, request_head, stream_body
from gateway.edge.limits import EdgeLimits
from gateway.edge.problem import refusal
from gateway.edge.server import start_server
from gateway.errors import Refusal
from tests.gateway.edge.sockets import echo, parsed, problem, running

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n"
CLOSE = b"Connection: close\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"

REFUSED = {
    "both length and chunked": (
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "malformed_request",
    ),
    "two lengths": (
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        400,
        "malformed_request",
    ),
    "a space before the colon of the length": (
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length : 1\r\n\r\na",
        400,
        "malformed_request",
    ),
    "a folded header": (GET + b"X-A: b\r\n c\r\n" + CLOSE, 400, "malformed_request"),
    "a null byte in a header": (GET + b"X-A: b\x00c\r\n" + CLOSE, 400, "malformed_request"),
    "a null byte in the path": (b"GET /a\x00b HTTP/1.1\r\nHost: x\r\n" + CLOSE, 400, "malformed_request"),
    "an encoded null byte in the path": (b"GET /a%00b HTTP/1.1\r\nHost: x\r\n" + CLOSE, 400, "malformed_request"),
    "dot segments": (b"GET /a/../b HTTP/1.1\r\nHost: x\r\n" + CLOSE, 400, "malformed_request"),
    "encoded dot segments": (b"GET /a/%2e%2e/b HTTP/1.1\r\nHost: x\r\n" + CLOSE, 400, "malformed_request"),
    "doubly encoded dot segments": (b"GET /a/%252e%252e/b HTTP/1.1\r\nHost: x\r\n" + CLOSE, 400, "malformed_request"),
    "absolute-form to another host": (b"GET http://evil/a HTTP/1.1\r\nHost: x\r\n" + CLOSE, 400, "malformed_request"),
    "CONNECT": (b"CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n", 400, "malformed_request"),
    "an upgrade": (GET + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 400, "malformed_request"),
    "TRACE": (b"TRACE /a HTTP/1.1\r\nHost: x\r\n" + CLOSE, 405, "method_not_allowed"),
    "an unknown method": (b"BREW /a HTTP/1.1\r\nHost: x\r\n" + CLOSE, 400, "malformed_request"),
    "no host": (b"GET /a HTTP/1.1\r\n\r\n", 400, "malformed_request"),
    "two hosts": (b"GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "malformed_request"),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "malformed_request"),
    "HTTP/2 in the clear": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed_request"),
    "a target that is one byte too long": (
        b"GET /" + b"a" * 8_192 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        414,
        "uri_too_long",
    ),
    "a padded chunk size, and trailers": (
        CHUNKED + b"\r\n" + b"0" * 17 + b"1\r\na\r\n0\r\nX-A: b\r\n\r\n",
        400,
        "malformed_request",
    ),
    "a target that is too long": (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long"),
    "100,000 headers": (GET + b"X-A: b\r\n" * 100_000 + b"\r\n", 431, "headers_too_large"),
    "one header too many": (GET + b"X-A: b\r\n" * 100 + CLOSE, 431, "headers_too_large"),
    "one large header": (GET + b"X-A: " + b"b" * 40_000 + b"\r\n" + CLOSE, 431, "headers_too_large"),
    "trailers": (CHUNKED + b"\r\n1\r\na\r\n0\r\nX-A: b\r\n\r\n", 400, "malformed_request"),
    "announced trailers": (CHUNKED + b"Trailer: X-A\r\n" + CLOSE + b"0\r\n\r\n", 400, "malformed_request"),
    "a chunk without a size": (CHUNKED + b"\r\nzz\r\na\r\n0\r\n\r\n", 400, "malformed_request"),
    "a chunk that is longer than it says": (CHUNKED + b"\r\n1\r\nab\r\n0\r\n\r\n", 400, "malformed_request"),
    "a compressed body": (
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n" + CLOSE + b"a",
        400,
        "malformed_request",
    ),
    "a method override": (GET + b"X-HTTP-Method-Override: DELETE\r\n" + CLOSE, 400, "malformed_request"),
    "a declared body of 1 GB": (
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n" + b"a" * 4_000_000,
        413,
        "body_too_large",
    ),
    "an undeclared body that grows too large": (
        CHUNKED + b"\r\n" + b"10000\r\n%b\r\n" % (b"a" * 65_536) * 17,
        413,
        "body_too_large",
    ),
}


@pytest.mark.parametrize(("raw", "status", "code"), REFUSED.values(), ids=REFUSED.keys())
async def test_server_answers_a_problem_document_when_sent(raw: bytes, status: int, code: str) -> None:
    async with running() as edge:
        assert problem(await edge.send(raw)) == (status, code)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(GET + CLOSE, {"method": "GET", "path": "/a", "bytes": 0}, id="a plain request"),
        pytest.param(
            b"POST /a%20b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n" + CLOSE + b"abc",
            {"method": "POST", "path": "/a%20b", "bytes": 3},
            id="a sized body",
        ),
        pytest.param(
            CHUNKED + CLOSE + b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
            {"method": "POST", "path": "/a", "bytes": 4},
            id="a chunked body",
        ),
        pytest.param(GET + b"X-A: b\r\n" * 98 + CLOSE, {"method": "GET", "bytes": 0}, id="as many headers as allowed"),
        pytest.param(
            b"GET /" + b"a" * 8_191 + b" HTTP/1.1\r\nHost: x\r\n" + CLOSE, {"method": "GET"}, id="as long as allowed"
        ),
        pytest.param(b"GET http://x/a HTTP/1.1\r\nHost: x\r\n" + CLOSE, {"path": "/a"}, id="absolute-form to us"),
        pytest.param(b"GET /a HTTP/1.0\r\n\r\n", {"path": "/a"}, id="HTTP/1.0"),
    ],
)
async def test_server_hands_the_request_over_when_it_is_plain(raw: bytes, expected: dict[str, object]) -> None:
    async with running() as edge:
        status, _, body = parsed(await edge.send(raw))
    assert status == 200
    assert expected.items() <= json.loads(body).items()


async def test_server_gives_header_bytes_unchanged_when_they_are_not_ascii() -> None:
    async with running() as edge:
        _, _, body = parsed(await edge.send(GET + b"X-Raw: \xff\xfe\r\n" + CLOSE))
    assert ["x-raw", "\xff\xfe"] in json.loads(body)["headers"]


async def test_server_serves_many_requests_when_they_are_pipelined() -> None:
    async with running() as edge:
        raw = await edge.send((GET + b"\r\n") * 50 + GET + CLOSE)
    assert raw.count(b"HTTP/1.1 200 OK") == 51


async def test_server_keeps_no_trailer_for_the_next_request_when_one_is_smuggled() -> None:
    async with running() as edge:
        raw = await edge.send(CHUNKED + b"\r\n0\r\nX-Smuggled: 1\r\n\r\n" + GET + CLOSE)
    assert problem(raw) == (400, "malformed_request")
    assert raw.count(b"HTTP/1.1") == 1


async def test_server_tells_of_refusals_when_no_handler_saw_them() -> None:
    async with running() as edge:
        await edge.send(b"garbage\r\n\r\n")
        assert edge.refused == [("malformed_request", "127.0.0.1")]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"GET /a HT", id="half a request line"),
        pytest.param(GET, id="half a head"),
        pytest.param(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", id="half a sized body"),
        pytest.param(CHUNKED + b"\r\n5\r\nab", id="half a chunk"),
    ],
)
async def test_server_answers_too_slow_when_the_client_stops_after(raw: bytes) -> None:
    async with running(header_read_seconds=0.2, body_read_seconds=0.2) as edge:
        assert problem(await edge.send(raw)) == (408, "too_slow")


async def test_server_answers_too_slow_when_the_body_trickles() -> None:
    async with running(body_read_seconds=0.3, body_min_bytes_per_second=1_000_000) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        writer.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        answer = asyncio.ensure_future(reader.read())
        while not answer.done():
            writer.write(b"a")
            await asyncio.wait([answer], timeout=0.05)
        assert problem(await answer) == (408, "too_slow")
        writer.close()


async def test_server_closes_silently_when_the_connection_is_idle() -> None:
    async with running(idle_seconds=0.2) as edge:
        assert await edge.send(b"") == b""
        raw = await edge.send(GET + b"\r\n")
    assert parsed(raw)[0] == 200


async def test_server_drops_connections_when_there_are_too_many() -> None:
    async with running(connections_max=2) as edge:
        held = [await asyncio.open_connection("127.0.0.1", edge.server.port) for _ in range(2)]
        for _, writer in held:
            writer.write(GET + b"\r\n")
        for reader, _ in held:
            await reader.readuntil(b"\r\n\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            writer.write(GET + b"\r\n")
            await reader.readexactly(1)
        assert ("throttled", "127.0.0.1") in edge.refused
        for _, open_writer in [*held, (reader, writer)]:
            open_writer.close()


async def test_server_continues_when_the_client_waits_for_it() -> None:
    async with running() as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        writer.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n" + CLOSE)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert json.loads(parsed(await reader.read())[2])["bytes"] == 3
        writer.close()


async def test_server_never_continues_when_the_request_is_refused() -> None:
    async def deny(request: web.BaseRequest) -> Answer:
        raise refusal("denied")

    async with running(deny) as edge:
        raw = await edge.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert problem(raw) == (403, "denied")


async def test_server_answers_engine_failed_when_the_handler_breaks() -> None:
    async def break_down(request: web.BaseRequest) -> Answer:
        raise KeyError("secret-value")

    async with running(break_down) as edge:
        raw = await edge.send(GET + CLOSE)
    assert problem(raw) == (503, "engine_failed")
    assert b"secret-value" not in raw


async def test_server_keeps_the_connection_when_a_refusal_left_no_body_unread() -> None:
    async def deny(request: web.BaseRequest) -> Answer:
        raise refusal("denied")

    async with running(deny) as edge:
        raw = await edge.send((GET + b"\r\n") * 2 + GET + CLOSE)
    assert raw.count(b"HTTP/1.1 403") == 3


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


async def test_server_finishes_the_running_call_when_it_closes() -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def handler(request: web.BaseRequest) -> Answer:
        entered.set()
        await release.wait()
        return Answer(200, (), b"done")

    server = await start_server(handler, "127.0.0.1", 0, EdgeLimits())
    busy_reader, busy = await asyncio.open_connection("127.0.0.1", server.port)
    idle_reader, idle = await asyncio.open_connection("127.0.0.1", server.port)
    busy.write(GET + b"\r\n")
    await entered.wait()
    closing = asyncio.ensure_future(server.close(10.0))
    assert await idle_reader.read() == b""
    release.set()
    raw = await busy_reader.read()
    await closing
    assert raw.endswith(b"done")
    assert b"Connection: close" in raw
    assert server.connections == 0
    for writer in (busy, idle):
        writer.close()


async def test_server_cancels_the_running_call_when_grace_ends() -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(request: web.BaseRequest) -> Answer:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    server = await start_server(handler, "127.0.0.1", 0, EdgeLimits())
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(GET + b"\r\n")
    await entered.wait()
    await server.close(0.01)
    assert cancelled.is_set()
    with pytest.raises(ConnectionError):
        if await reader.read() == b"":
            raise ConnectionError
    writer.close()


async def test_start_server_fails_when_the_port_is_taken() -> None:
    async with running() as edge:
        with pytest.raises(OSError, match="address already in use"):
            await start_server(echo, "127.0.0.1", edge.server.port, EdgeLimits())


async def test_start_server_shares_a_port_when_asked() -> None:
    first = await start_server(echo, "127.0.0.1", 0, EdgeLimits(), reuse_port=True)
    second = await start_server(echo, "127.0.0.1", first.port, EdgeLimits(), reuse_port=True)
    assert first.port == second.port
    await first.close(1)
    await second.close(1)


async def test_handler_finishes_when_the_client_leaves_during_a_call() -> None:
    entered, release, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(request: web.BaseRequest) -> Answer:
        entered.set()
        await release.wait()
        finished.set()
        return Answer(200)

    async with running(handler) as edge:
        _, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        writer.write(GET + b"\r\n")
        await entered.wait()
        writer.close()
        await writer.wait_closed()
        release.set()
        await finished.wait()


async def test_read_body_refuses_when_the_client_leaves_half_way() -> None:
    seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def handler(request: web.BaseRequest) -> Answer:
        try:
            await read_body(request, 100)
        except Refusal as refused:
            seen.set_result(refused.code)
        return Answer(200)

    async with running(handler) as edge:
        _, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        writer.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        await writer.drain()
        writer.close()
        assert await seen == "malformed_request"


async def test_stream_body_holds_the_client_back_when_nobody_reads() -> None:
    release = asyncio.Event()
    total = 64 << 20

    async def handler(request: web.BaseRequest) -> Answer:
        assert has_body(request)
        await release.wait()
        received = 0
        async for piece in stream_body(request):
            received += len(piece)
        return Answer(200, (), str(received).encode())

    async with running(handler) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        client = writer.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        writer.transport.set_write_buffer_limits(high=65_536)
        writer.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % total + CLOSE)
        sent = 0
        piece = b"a" * (1 << 16)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                while sent < total:
                    writer.write(piece)
                    sent += len(piece)
                    await writer.drain()
        assert sent < 32 << 20
        release.set()
        while sent < total:
            writer.write(piece)
            sent += len(piece)
            await writer.drain()
        assert (await reader.read()).endswith(str(total).encode())
        writer.close()


async def test_request_head_refuses_when_the_target_is_longer_than_asked() -> None:
    async def handler(request: web.BaseRequest) -> Answer:
        request_head(request, uri_max_bytes=3)
        raise AssertionError

    async with running(handler) as edge:
        assert problem(await edge.send(b"GET /abcd HTTP/1.1\r\nHost: x\r\n" + CLOSE)) == (414, "uri_too_long")


async def test_server_takes_up_the_rest_when_a_refused_client_is_still_sending() -> None:
    async def deny(request: web.BaseRequest) -> Answer:
        raise refusal("identity_missing")

    async with running(deny) as edge:
        raw = await edge.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n" + b"a" * 20_000_000)
    assert problem(raw) == (401, "identity_missing")


async def test_server_closes_at_once_when_it_ends_while_a_client_lingers() -> None:
    async def deny(request: web.BaseRequest) -> Answer:
        raise refusal("denied")

    async with running(deny) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        writer.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\na")
        assert problem(await reader.read()) == (403, "denied")
        assert edge.server.connections == 1
        await edge.server.close(1.0)
        assert edge.server.connections == 0
        writer.close()


async def test_server_drops_a_lingering_client_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.edge.server.LINGER_SECONDS", 0.1)

    async def deny(request: web.BaseRequest) -> Answer:
        raise refusal("denied")

    async with running(deny, idle_seconds=0.1) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        writer.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\na")
        assert problem(await reader.read()) == (403, "denied")
        async with asyncio.timeout(5):
            while edge.server.connections:
                await asyncio.sleep(0.02)
        writer.close()


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


async def test_server_gives_a_client_up_when_it_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.edge.answer.WRITE_STALL_SECONDS", 0.1)
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1 << 18)
        finally:
            ended.set()

    async def handler(request: web.BaseRequest) -> Answer:
        return Answer(200, (), endless())

    async with running(handler) as edge:
        _, writer = await asyncio.open_connection("127.0.0.1", edge.server.port, limit=1024)
        writer.write(GET + b"\r\n")
        async with asyncio.timeout(5):
            await ended.wait()
        writer.transport.abort()


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


async def test_server_waits_for_more_when_pipelined_requests_exceed_the_queue() -> None:
    async with running() as edge:
        raw = await edge.send((GET + b"\r\n") * 500 + GET + CLOSE)
    assert raw.count(b"HTTP/1.1 200 OK") == 501


def test_server_behaves_the_same_when_the_loop_is_uvloop() -> None:
    async def scenario() -> list[tuple[int, str]]:
        async with running(header_read_seconds=0.2, body_read_seconds=0.2) as edge:
            assert parsed(await edge.send(GET + CLOSE))[0] == 200
            sent = [
                b"GET /a HT",
                b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na",
                GET + b"X-A: b\r\n" * 100_000 + b"\r\n",
                b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n" + b"a" * 4_000_000,
            ]
            return [problem(await edge.send(raw)) for raw in sent]

    assert uvloop.run(scenario()) == [
        (408, "too_slow"),
        (408, "too_slow"),
        (431, "headers_too_large"),
        (413, "body_too_large"),
    ]


@pytest.mark.parametrize(
    ("raw", "statuses"),
    [
        pytest.param(GET + b"\r\n", [200], id="one request"),
        pytest.param((GET + b"\r\n") * 3, [200, 200, 200], id="several requests"),
        pytest.param(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", [400], id="half a body"),
        pytest.param(CHUNKED + b"\r\n5\r\nab", [400], id="half a chunk"),
        pytest.param(b"GET /a HT", [], id="half a head"),
        pytest.param(b"garbage\r\n\r\n", [400], id="no HTTP"),
        pytest.param(b"", [], id="nothing"),
    ],
)
@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_server_answers_when_the_client_stops_sending_but_still_reads(
    raw: bytes, statuses: list[int], loop: Callable[[Coroutine[object, object, bytes]], bytes]
) -> None:
    async def scenario() -> bytes:
        async with running() as edge:
            reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
            writer.write(raw)
            writer.write_eof()
            async with asyncio.timeout(5):
                answer = await reader.read()
            writer.close()
            return answer

    answer = loop(scenario())
    assert [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]] == statuses


async def test_server_notices_when_a_waiting_client_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.edge.server.HALF_CLOSED_SECONDS", 0.1)
    noticed = asyncio.Event()

    async def hold(request: web.BaseRequest) -> Answer:
        while request.transport is not None:
            await asyncio.sleep(0.01)
        noticed.set()
        return Answer(200)

    async with running(hold, idle_seconds=0.2) as edge:
        _, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        writer.write(GET + b"\r\n")
        await writer.drain()
        writer.close()
        async with asyncio.timeout(5):
            await noticed.wait()
