"""Upstreams that misbehave, as plain socket servers: each gets the request's bytes and writes what it likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.egress.addresses import AddressClass
from gateway.egress.dialer import PoolLimits, UpstreamPool
from gateway.egress.exchange import UpstreamTimeouts

LOOPBACK = frozenset({AddressClass.LOOPBACK})
QUICK = UpstreamTimeouts(connect_seconds=0.5, write_seconds=0.3, first_byte_seconds=0.3, between_bytes_seconds=0.3)
PATIENT = UpstreamTimeouts()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]


@dataclass
class Upstream:
    """A listening upstream: where it is, the heads it received, how often it was connected to."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"


def answering(raw: bytes) -> Script:
    """A script that answers every request with the same bytes and keeps the connection."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(raw)

    return script


def closing(raw: bytes) -> Script:
    """A script that answers once and closes."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(raw)
        await writer.drain()
        writer.close()

    return script


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
    """A script that never answers."""
    await reader.read()


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """A body in these parts."""
    for part in parts:
        yield part


@asynccontextmanager
async def upstream(script: Script) -> AsyncIterator[Upstream]:
    """Run a script for every request head that arrives."""
    state = Upstream()
    writers: list[asyncio.StreamWriter] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.connections += 1
        writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                state.heads.append(head)
                await script(reader, writer, head)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for writer in writers:
            writer.close()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        await server.wait_closed()


@asynccontextmanager
async def pool(**limits: float) -> AsyncIterator[UpstreamPool]:
    """A pool that may go to loopback."""
    made = UpstreamPool(LOOPBACK, limits=PoolLimits(**limits))  # type: ignore[arg-type]
    try:
        yield made
    finally:
        await made.close()
