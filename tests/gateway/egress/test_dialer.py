"""The way out over real sockets: what leaves, what comes back, and every way in which an upstream misbehaves."""

from __future__ import annotations

import asyncio
import socket
import tracemalloc
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from gateway.egress import UpstreamFailed, UpstreamNotSent, UpstreamPool, UpstreamTimeout, UpstreamTimeouts
from tests.gateway.egress.upstreams import (
    LOOPBACK,
    OK,
    PATIENT,
    QUICK,
    answering,
    closing,
    hang,
    pieces,
    pool,
    upstream,
)

# -- what leaves -------------------------------------------------------------------------------------------------------


async def test_request_leaves_octet_for_octet_when_the_url_is_encoded() -> None:
    async with upstream(answering(OK)) as service, pool() as out:
        url = URL(service.url("/a/%2e%2e/b?x=%20&y=a+b"), encoded=True)
        response = await out.request("GET", url, (("X-Odd", "1"), ("accept", "*/*"), ("X-Odd", "2")))
        assert await response.read(10) == b"ok"
    assert service.heads == [
        b"GET /a/%%2e%%2e/b?x=%%20&y=a+b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-Odd: 1\r\naccept: */*\r\nX-Odd: 2\r\n\r\n"
        % service.port
    ]


async def test_request_goes_straight_when_the_environment_names_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with upstream(answering(OK)) as service, pool() as out:
        response = await out.request("GET", service.url(), ())
        assert (response.status, await response.read(10)) == (200, b"ok")


async def test_request_follows_nothing_and_keeps_no_cookie_when_told_to() -> None:
    away = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    async with upstream(answering(away)) as service, pool() as out:
        for _ in range(2):
            response = await out.request("GET", service.url(), ())
            assert response.status == 302
            assert ("Location", "http://169.254.169.254/") in response.headers
            assert await response.read(10) == b""
        assert service.connections == 1
    assert len(service.heads) == 2
    assert not any(b"cookie" in head.lower() for head in service.heads)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param((("Content-Length", "6"),), b"Content-Length: 6\r\n\r\nabcdef", id="sized"),
        pytest.param((), b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n", id="chunked"),
    ],
)
async def test_request_streams_the_body_when_it_comes_in_pieces(
    headers: tuple[tuple[str, str], ...], expected: bytes
) -> None:
    received = asyncio.get_running_loop().create_future()
    body = expected.partition(b"\r\n\r\n")[2]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        received.set_result(head + await reader.readexactly(len(body)))
        writer.write(OK)

    async with upstream(script) as service, pool() as out:
        response = await out.request("PUT", service.url(), headers, pieces(b"abc", b"", b"def"))
        await response.read(10)
        assert (await received).endswith(expected)


# -- what comes back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc", id="sized"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            200,
            b"abc",
            id="chunked",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
            200,
            b"abc",
            id="chunked with trailers",
        ),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", id="no content"),
        pytest.param(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", id="not modified"),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
            200,
            b"a",
            id="after an interim answer",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
            200,
            b"\x1f\x8b\x08",
            id="coded",
        ),
    ],
)
async def test_request_gives_the_answer_as_it_is_when(raw: bytes, status: int, body: bytes) -> None:
    async with upstream(answering(raw)) as service, pool() as out:
        for _ in range(2):
            response = await out.request("GET", service.url(), ())
            assert (response.status, await response.read(100)) == (status, body)
        assert service.connections == 1


async def test_request_reads_until_the_end_when_the_answer_has_no_length() -> None:
    async with upstream(closing(b"HTTP/1.0 200 OK\r\n\r\nabc")) as service, pool() as out:
        for _ in range(2):
            response = await out.request("GET", service.url(), ())
            assert await response.read(100) == b"abc"
        assert service.connections == 2


async def test_request_reads_no_body_when_the_method_is_head() -> None:
    async with upstream(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")) as service, pool() as out:
        for _ in range(2):
            response = await out.request("HEAD", service.url(), ())
            assert await response.read(0) == b""
            assert ("Content-Length", "99") in response.headers
        assert service.connections == 1


async def test_read_fails_when_the_answer_is_one_byte_too_large() -> None:
    async with upstream(answering(OK)) as service, pool() as out:
        assert await (await out.request("GET", service.url(), ())).read(2) == b"ok"
        with pytest.raises(UpstreamFailed, match="larger than 1 bytes"):
            await (await out.request("GET", service.url(), ())).read(1)


async def test_answer_streams_with_flat_memory_when_it_is_large_both_ways() -> None:
    total, piece = 256 << 20, bytes(1 << 18)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        left = total
        while left:
            left -= len(await reader.read(1 << 18))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        for _ in range(total // len(piece)):
            writer.write(piece)
            await writer.drain()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(total // len(piece)):
            yield piece

    async with upstream(script) as service, pool() as out:
        tracemalloc.start()
        try:
            response = await out.request("PUT", service.url(), (("Content-Length", str(total)),), body())
            received = 0
            async for part in response.content:
                received += len(part)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert received == total
    assert peak < 8 << 20


# -- an upstream that misbehaves ---------------------------------------------------------------------------------------


async def test_request_is_not_sent_when_the_upstream_refuses() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with pool() as out:
            with pytest.raises(UpstreamNotSent) as caught:
                await out.request("POST", f"http://127.0.0.1:{taken.getsockname()[1]}/", (), b"x", QUICK)
    assert (caught.value.code, caught.value.sent) == ("upstream_failed", False)


async def test_request_is_not_sent_when_the_name_does_not_resolve() -> None:
    async with pool() as out:
        with pytest.raises(UpstreamNotSent):
            await out.request("GET", "http://nothing.invalid/", (), timeouts=UpstreamTimeouts(connect_seconds=5))


async def test_request_times_out_unsent_when_connecting_hangs() -> None:
    class Hanging:
        async def resolve(self, host: str, port: int) -> tuple[str, ...]:
            await asyncio.Event().wait()
            return ()

    out = UpstreamPool(LOOPBACK, resolver=Hanging())
    with pytest.raises(UpstreamTimeout) as caught:
        await out.request("GET", "http://slow.example/", (), timeouts=UpstreamTimeouts(connect_seconds=0.05))
    assert (caught.value.code, caught.value.sent) == ("upstream_timeout", False)
    await out.close()


async def test_request_times_out_sent_when_the_upstream_hangs() -> None:
    async with upstream(hang) as service, pool() as out:
        with pytest.raises(UpstreamTimeout) as caught:
            await out.request("POST", service.url(), (), b"x", QUICK)
    assert caught.value.sent


async def test_request_times_out_sent_when_the_upstream_takes_no_body() -> None:
    release = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        await release.wait()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 18)

    async with upstream(deaf) as service, pool() as out:
        with pytest.raises(UpstreamTimeout, match="take the request body"):
            await out.request("POST", service.url(), (), endless(), QUICK)
        release.set()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", id="in a sized body"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", id="in a chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", id="before the last chunk"),
    ],
)
async def test_content_fails_when_the_upstream_cuts(raw: bytes) -> None:
    async with upstream(closing(raw)) as service, pool() as out:
        response = await out.request("GET", service.url(), ())
        with pytest.raises(UpstreamFailed) as caught:
            await response.read(100)
    assert caught.value.sent


async def test_content_fails_when_an_answer_without_length_ends_in_a_reset() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nabc")
        await writer.drain()
        await reader.readexactly(1)
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        writer.transport.abort()

    async with upstream(reset) as service, pool() as out:
        response = await out.request("POST", service.url(), (), b"x")
        with pytest.raises(UpstreamFailed):
            await response.read(100)


async def test_content_times_out_when_the_upstream_stops_half_way() -> None:
    async def stop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await reader.read()

    async with upstream(stop) as service, pool() as out:
        response = await out.request("GET", service.url(), (), timeouts=QUICK)
        with pytest.raises(UpstreamTimeout) as caught:
            await response.read(100)
    assert caught.value.sent


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 200", id="half a status line"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-A: b\r\n", id="half a head"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", id="an upgrade"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9, id="interim answers without end"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 20_000 + b"\r\n\r\n", id="a large header"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 200 + b"\r\n", id="too many headers"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="length and chunked",
        ),
    ],
)
async def test_request_fails_sent_when_the_answer_is(raw: bytes) -> None:
    async with upstream(closing(raw)) as service, pool() as out:
        with pytest.raises(UpstreamFailed) as caught:
            await out.request("POST", service.url(), (), b"x", PATIENT)
    assert caught.value.sent


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_request_leaves_once_when_the_upstream_reads_then_closes(method: str) -> None:
    calls = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            writer.write(OK)
        else:
            writer.close()

    async with upstream(script) as service, pool() as out:
        await (await out.request("GET", service.url(), ())).read(10)
        with pytest.raises(UpstreamFailed) as caught:
            await out.request(method, service.url(), ())
        assert caught.value.sent
        assert len(service.heads) == 2
