"""The way out over real sockets: when a connection is kept, dropped or waited for, and a caller's body that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.edge.problem import refusal
from gateway.egress import UpstreamFailed, UpstreamNotSent, UpstreamTimeout
from gateway.errors import GateMisuse
from tests.gateway.egress.upstreams import OK, QUICK, answering, hang, pieces, pool, upstream

# -- connections -------------------------------------------------------------------------------------------------------


async def test_connection_is_dropped_when_the_answer_is_left_unread() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
    async with upstream(answering(raw)) as service, pool() as out:
        response = await out.request("GET", service.url(), ())
        await response.close()
        await response.close()
        await (await out.request("GET", service.url(), ())).close(discard=True)
        assert service.connections == 2


async def test_connection_is_dropped_when_the_answer_comes_early() -> None:
    never = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        await never.wait()

    async with upstream(answering(OK)) as service, pool() as out:
        response = await out.request("POST", service.url(), (), slow())
        assert await response.read(10) == b"ok"
        await (await out.request("GET", service.url(), ())).read(10)
        assert service.connections == 2


async def test_connection_is_dropped_when_the_exchange_is_cancelled() -> None:
    async with upstream(hang) as service, pool(connections_max=1) as out:
        for attempt in (1, 2):
            task = asyncio.ensure_future(out.request("GET", service.url(), ()))
            while len(service.heads) < attempt:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert service.connections == 2


async def test_connection_is_dropped_when_more_comes_than_was_asked_for() -> None:
    async with upstream(answering(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")) as service, pool() as out:
        for _ in range(2):
            assert await (await out.request("GET", service.url(), ())).read(10) == b"ok"
        assert service.connections == 2


async def test_connection_is_fresh_when_an_unsafe_request_finds_only_idle_ones() -> None:
    async with upstream(answering(OK)) as service, pool(idle_unsafe_seconds=0.0) as out:
        await (await out.request("GET", service.url(), ())).read(10)
        await asyncio.sleep(0.01)
        await (await out.request("POST", service.url(), (), b"")).read(10)
        assert service.connections == 2


async def test_connection_is_kept_for_the_next_unsafe_request_when_there_is_an_older_one_too_many() -> None:
    async with upstream(answering(OK)) as service, pool(idle_max=1, idle_unsafe_seconds=0.2) as out:
        await (await out.request("GET", service.url(), ())).read(10)
        await asyncio.sleep(0.3)
        for _ in range(2):
            await (await out.request("POST", service.url(), (), b"")).read(10)
        assert service.connections == 2


async def test_connection_is_closed_when_nobody_used_it_for_long() -> None:
    gone = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(OK)
        if await reader.read() == b"":
            gone.set()

    async with upstream(script) as service, pool(idle_seconds=0.05) as out:
        await (await out.request("GET", service.url(), ())).read(10)
        async with asyncio.timeout(5):
            await gone.wait()


async def test_connection_is_kept_shorter_when_the_upstream_says_so() -> None:
    raw = b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok"
    async with upstream(answering(raw)) as service, pool() as out:
        await (await out.request("GET", service.url(), ())).read(10)
        await asyncio.sleep(0.15)
        await (await out.request("GET", service.url(), ())).read(10)
        assert service.connections == 2


async def test_request_times_out_unsent_when_every_connection_is_busy() -> None:
    async with upstream(answering(OK)) as service, pool(connections_max=1) as out:
        first = await out.request("GET", service.url(), ())
        with pytest.raises(UpstreamTimeout) as caught:
            await out.request("GET", service.url(), (), timeouts=QUICK)
        assert not caught.value.sent
        waiting = asyncio.ensure_future(out.request("GET", service.url(), ()))
        await asyncio.sleep(0)
        await first.read(10)
        assert await (await waiting).read(10) == b"ok"


async def test_request_is_not_sent_when_the_pool_is_closed() -> None:
    async with upstream(answering(OK)) as service, pool() as out:
        await out.close()
        with pytest.raises(UpstreamNotSent):
            await out.request("GET", service.url(), ())


async def test_request_is_misuse_and_frees_its_place_when_it_cannot_be_written() -> None:
    async with upstream(answering(OK)) as service, pool(connections_max=1) as out:
        for _ in range(3):
            with pytest.raises(GateMisuse):
                await out.request("GET", service.url(), (("a", "b\r\nc"),))
        assert await (await out.request("GET", service.url(), ())).read(10) == b"ok"
    assert len(service.heads) == 1


# -- the caller's body fails -------------------------------------------------------------------------------------------


async def test_request_fails_with_the_refusal_when_the_callers_body_ends_early() -> None:
    async def cut() -> AsyncIterator[bytes]:
        yield b"abc"
        raise refusal("too_slow", "the body arrived too slowly")

    received = asyncio.get_running_loop().create_future()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        try:
            received.set_result(await reader.read())
        except ConnectionError:
            received.set_result(b"reset")

    async with upstream(script) as service, pool() as out:
        with pytest.raises(UpstreamFailed) as caught:
            await out.request("POST", service.url(), (), cut())
        assert caught.value.sent
        assert caught.value.refused is not None
        assert caught.value.refused.code == "too_slow"
        assert b"0\r\n\r\n" not in await received


@pytest.mark.parametrize("parts", [pytest.param((b"ab",), id="short"), pytest.param((b"ab", b"cd"), id="long")])
async def test_request_is_misuse_when_the_body_is_not_as_long_as_declared(parts: tuple[bytes, ...]) -> None:
    async with upstream(hang) as service, pool() as out:
        with pytest.raises(GateMisuse):
            await out.request("POST", service.url(), (("Content-Length", "3"),), pieces(*parts))
