"""A load generator that costs little: keep-alive connections, prepared bytes, one reader per connection.

Closed loop: each of `concurrency` connections sends its next request when the last was answered, so the offered rate is
what the target takes. Open loop: requests start on a fixed schedule, and time is counted from when a request was due,
so that a stall is not hidden by requests that were never sent.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field

HEAD_END = b"\r\n\r\n"
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


class Connection:
    """One keep-alive connection that knows enough HTTP/1.1 to find the end of an answer."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> int:
        """Send one request and read its answer; the status. Errors: OSError, ValueError."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._reader, self._writer
        if reader is None:
            raise ValueError("the connection has no reading side")
        writer.write(request)
        head = (await reader.readuntil(HEAD_END)).lower()
        at = head.find(b"content-length:")
        if at >= 0:
            await reader.readexactly(int(head[at + 15 : head.index(b"\r", at)]))
        elif b"transfer-encoding: chunked" in head:
            await _skip_chunks(reader)
        return int(head[9:12])

    def close(self) -> None:
        """Drop the connection; the next request opens another."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def _skip_chunks(reader: asyncio.StreamReader) -> None:
    while True:
        size = int((await reader.readline()).split(b";")[0], 16)
        await reader.readexactly(size + 2)
        if not size:
            return


async def _one(link: Connection, request: bytes, due: float, sample: Sample) -> None:
    try:
        status = await asyncio.wait_for(link.ask(request), ANSWER_SECONDS)
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
        sample.errors += 1
        link.close()
        return
    if status == 200:
        sample.latencies.append(time.perf_counter() - due)
    else:
        sample.errors += 1


async def closed_loop(address: tuple[str, int], request: bytes, concurrency: int, seconds: float) -> Sample:
    """Keep `concurrency` requests under way for `seconds`."""
    sample = Sample()
    end = time.perf_counter() + seconds
    sent = itertools.count()

    async def work() -> None:
        link = Connection(*address)
        while time.perf_counter() < end:
            next(sent)
            await _one(link, request, time.perf_counter(), sample)
        link.close()

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    sample.seconds = time.perf_counter() - started
    sample.offered_per_second = next(sent) / sample.seconds
    return sample


async def open_loop(address: tuple[str, int], request: bytes, rate: float, seconds: float) -> Sample:
    """Start `rate` requests a second for `seconds`, whatever the target does, on at most 256 connections."""
    sample = Sample()
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(256):
        free.put_nowait(Connection(*address))

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
    await asyncio.gather(*running)
    sample.seconds = time.perf_counter() - started
    sample.offered_per_second = int(rate * seconds) / sample.seconds
    while not free.empty():
        free.get_nowait().close()
    return sample
