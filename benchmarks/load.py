"""A load generator that costs little: keep-alive connections, prepared bytes, answers read as they arrive.

Closed loop: each of `concurrency` connections sends its next request when the last was answered, so the offered rate is
what the target takes. Open loop: requests start on a fixed schedule, and time is counted from when a request was due,
so that a stall is not hidden by requests that were never sent.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import cast

from benchmarks.messages import message_size

ANSWER_SECONDS = 30.0


@dataclass(slots=True)
class Sample:
    """What one run gave: latencies in seconds, errors, and the two rates in requests a second."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    offered_per_second: float = 0.0

    @property
    def achieved_per_second(self) -> float:
        """Good answers a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def percentile_ms(self, percent: float) -> float:
        """A latency percentile in milliseconds; 0 when nothing was answered."""
        if not self.latencies:
            return 0.0
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time. What the load costs is not there for what is measured: no task, no
    stream and no timer per request."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._transport: asyncio.Transport | None = None
        self._held = b""
        self._waiter: asyncio.Future[int] | None = None
        self.answer = b""
        """The last answer, head and body."""

    async def ask(self, request: bytes) -> int:
        """Send one request and read its answer; the status. Errors: `OSError`, `ValueError`."""
        loop = asyncio.get_running_loop()
        if self._transport is None:
            await loop.create_connection(lambda: self, *self._address)
        transport = self._transport
        if transport is None:
            raise ConnectionResetError("the connection closed at once")
        waiter: asyncio.Future[int] = loop.create_future()
        self._waiter = waiter
        transport.write(request)
        try:
            return await waiter
        finally:
            self._waiter = None

    def close(self) -> None:
        """Drop the connection; the next request opens another."""
        if self._transport is not None:
            self._transport.abort()
        self._transport, self._held = None, b""

    def stalled(self) -> None:
        """Give the request that is under way up, if there is one."""
        self._end(TimeoutError("no answer in time"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._held = held = self._held + data if self._held else data
        try:
            size = message_size(held)
            if size is None:
                return
            if size != len(held) or self._waiter is None:
                raise ValueError("more came than was asked for")
            status = int(held[9:12])
        except ValueError as error:
            self._end(error)
            return
        self._held, self.answer = b"", held
        if not self._waiter.done():
            self._waiter.set_result(status)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport, self._held = None, b""
        self._end(error or ConnectionResetError("the connection ended before its answer"))

    def _end(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


async def _one(link: Connection, request: bytes, due: float, sample: Sample) -> None:
    try:
        status = await link.ask(request)
    except (OSError, ValueError):
        sample.errors += 1
        link.close()
        return
    if status == 200:
        sample.latencies.append(time.perf_counter() - due)
    else:
        sample.errors += 1


async def _finished(tasks: Collection[asyncio.Task[None]], links: Sequence[Connection], seconds: float) -> None:
    """Wait for the tasks; what `links` have not answered after `seconds` counts as an error."""
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)
        for link in links:
            link.stalled()
        await asyncio.gather(*tasks)
    for link in links:
        link.close()


async def closed_loop(address: tuple[str, int], request: bytes, concurrency: int, seconds: float) -> Sample:
    """Keep `concurrency` requests under way for `seconds`."""
    sample = Sample()
    end = time.perf_counter() + seconds
    sent = itertools.count()
    links = [Connection(*address) for _ in range(concurrency)]

    async def work(link: Connection) -> None:
        while time.perf_counter() < end:
            next(sent)
            await _one(link, request, time.perf_counter(), sample)

    started = time.perf_counter()
    await _finished([asyncio.create_task(work(link)) for link in links], links, seconds + ANSWER_SECONDS)
    sample.seconds = time.perf_counter() - started
    sample.offered_per_second = next(sent) / sample.seconds
    return sample


async def open_loop(address: tuple[str, int], request: bytes, rate: float, seconds: float) -> Sample:
    """Start `rate` requests a second for `seconds`, whatever the target does, on at most 256 connections."""
    sample = Sample()
    links = [Connection(*address) for _ in range(256)]
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for link in links:
        free.put_nowait(link)

    async def fire(due: float) -> None:
        link = await free.get()
        await _one(link, request, due, sample)
        free.put_nowait(link)

    started = time.perf_counter()
    running: set[asyncio.Task[None]] = set()
    for number in range(int(rate * seconds)):
        due = started + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(fire(due), name=f"request-{number}")
        running.add(task)
        task.add_done_callback(running.discard)
    await _finished(tuple(running), links, ANSWER_SECONDS)
    sample.seconds = time.perf_counter() - started
    sample.offered_per_second = int(rate * seconds) / sample.seconds
    return sample
