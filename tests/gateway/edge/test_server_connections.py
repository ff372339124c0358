"""The listening server over real sockets: slow, idle, lingering and leaving clients, and how it ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine

import pytest
import uvloop
from aiohttp import web

from gateway.edge.answer import Answer
from gateway.edge.body import has_body, read_body, stream_body
from gateway.edge.limits import EdgeLimits
from gateway.edge.problem import refusal
from gateway.edge.server import start_server
from gateway.errors import Refusal
from tests.gateway.edge.sockets import CHUNKED, CLOSE, GET, echo, parsed, problem, running


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


async def test_server_answers_too_slow_when_a_body_stalls_however_much_of_it_came_before() -> None:
    async with running(body_read_seconds=0.3, body_min_bytes_per_second=1_000) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        writer.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"a" * 100_000)
        async with asyncio.timeout(5):
            assert problem(await reader.read()) == (408, "too_slow")
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


async def test_server_keeps_the_connection_when_a_refusal_left_no_body_unread() -> None:
    async def deny(request: web.BaseRequest) -> Answer:
        raise refusal("denied")

    async with running(deny) as edge:
        raw = await edge.send((GET + b"\r\n") * 2 + GET + CLOSE)
    assert raw.count(b"HTTP/1.1 403") == 3


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


async def test_server_drops_a_lingering_client_when_its_time_is_over() -> None:
    async def deny(request: web.BaseRequest) -> Answer:
        raise refusal("denied")

    async with running(deny, idle_seconds=0.1, linger_seconds=0.1) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        writer.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\na")
        assert problem(await reader.read()) == (403, "denied")
        async with asyncio.timeout(5):
            while edge.server.connections:
                await asyncio.sleep(0.02)
        writer.close()


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


async def test_server_notices_when_a_waiting_client_left() -> None:
    noticed = asyncio.Event()

    async def hold(request: web.BaseRequest) -> Answer:
        while request.transport is not None:
            await asyncio.sleep(0.01)
        noticed.set()
        return Answer(200)

    async with running(hold, idle_seconds=0.2, half_closed_seconds=0.1) as edge:
        _, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        writer.write(GET + b"\r\n")
        await writer.drain()
        writer.close()
        async with asyncio.timeout(5):
            await noticed.wait()


@pytest.mark.parametrize(
    ("head", "shut", "limits"),
    [
        pytest.param(GET + b"\r\n", False, {"idle_seconds": 0.2}, id="then stays idle"),
        pytest.param(GET + CLOSE, False, {"write_stall_seconds": 0.2}, id="and wants to leave"),
        pytest.param(GET + b"\r\n", True, {"write_stall_seconds": 0.2, "half_closed_seconds": 0.2}, id="and has left"),
    ],
)
async def test_server_ends_a_connection_whose_client_never_reads_the_rest_of_an_answer(
    head: bytes, shut: bool, limits: dict[str, float]
) -> None:
    left: list[asyncio.WriteTransport] = []

    async def answer(request: web.BaseRequest) -> Answer:
        transport = request.transport
        assert transport is not None
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        left.append(transport)
        return Answer(200, (), b"a" * 60_000)  # more than the kernel takes, less than makes the edge wait

    async with running(answer, **limits) as edge:
        loop, client = asyncio.get_running_loop(), socket.socket()
        with client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", edge.server.port))
            await loop.sock_sendall(client, head)
            if shut:
                client.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(10):
                while not left:
                    await asyncio.sleep(0.01)
                assert left[0].get_write_buffer_size() > 0
                while edge.server.connections:
                    await asyncio.sleep(0.05)
