"""Swapping a bundle with 20 MB of data while calls go on: what the calls notice.

A real gate follows a real bundle service by long polling. Calls (writes: two flushed records each) start on a fixed schedule
at a share of what the gate was just seen to take, and time is counted from when a call was due. Meanwhile revisions are
published one after the other. A swap lasts from the service's answer to the publication until `/v1/enforcement` shows the
sequence, and half a second more, in which the old rulebook is freed; its calls are those due in that time. Steady are the
calls due while nothing is published or swapped. Most of a swap is checking the bundle aside; taking over is its end, shown
by itself: loading the engine, the swap, freeing the old one. Ratios are medians over the swaps to the median over the rests,
so that one stray stall of the machine decides neither. The service stands for another machine: all its threads run in the lowest
scheduling class, where nobody else wants the processor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop

from benchmarks.load import ANSWER_SECONDS, Connection, Sample, closed_loop
from benchmarks.measured import CONNECTOR, WRITE, measured_directory
from benchmarks.proxy import Address, server
from benchmarks.report import show, write
from benchmarks.sized import revised, sized_source
from bundles.service_client import RemoteBundle, read_token
from tests.e2e.bundle_services import ServiceProcess, follow
from tests.e2e.harness import GateProcess
from tests.e2e.raw import request

DATA_BYTES: Final = 20_000_000
LOAD_SHARE: Final = 0.5
CONCURRENCY: Final = 16
CONNECTIONS: Final = 64
CAPACITY_SECONDS: Final = 4.0
REST_SECONDS: Final = 6.0
"""How long calls go on undisturbed before each publication, and after the last swap."""
TAIL_SECONDS: Final = 0.5
TAKE_OVER_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 0.05
ROWS: Final = ("steady", "swaps", "taking over")
SWAP_MAX_SECONDS: Final = 120.0


@dataclass(slots=True)
class Calls:
    """What one schedule of calls gave: each answer's due time and latency in seconds, and what was refused."""

    answered: list[tuple[float, float]] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    offered: int = 0

    def refuse(self, why: str) -> None:
        """Count a call that was not answered with 200."""
        self.refused[why] = self.refused.get(why, 0) + 1

    def between(self, spans: Sequence[tuple[float, float]]) -> Sample:
        """The calls that were due within any of `spans`."""
        sample = Sample(seconds=sum(end - begin for begin, end in spans))
        for due, latency in self.answered:
            if any(begin <= due < end for begin, end in spans):
                sample.latencies.append(latency)
        return sample

    def worst_gap(self, begin: float, end: float) -> float:
        """The longest time without a good answer between two instants, in seconds."""
        instants = sorted(due + latency for due, latency in self.answered if begin <= due + latency < end)
        return max((later - earlier for earlier, later in zip(instants, instants[1:], strict=False)), default=0.0)


@dataclass(frozen=True, slots=True)
class Swap:
    """When one revision was published, answered for by the service, and seen in force."""

    published: float
    noticed: float
    seen: float

    @property
    def span(self) -> tuple[float, float]:
        """The time whose calls count for the swap."""
        return self.noticed, self.seen + TAIL_SECONDS

    @property
    def take_over(self) -> tuple[float, float]:
        """The end of it."""
        return max(self.noticed, self.seen - TAKE_OVER_SECONDS), self.seen + TAIL_SECONDS


@dataclass(frozen=True, slots=True)
class Stage:
    """A gate that follows a service, both running, and the revisions to publish."""

    gate: GateProcess
    endpoint: RemoteBundle
    revisions: tuple[bytes, ...]
    first_sequence: int


async def _call(link: Connection, raw: bytes, due: float, calls: Calls) -> None:
    try:
        status = await asyncio.wait_for(link.ask(raw), ANSWER_SECONDS)
    except (OSError, ValueError) as failed:
        calls.refuse(type(failed).__name__)
        link.close()
        return
    if status == 200:
        calls.answered.append((due, time.perf_counter() - due))
    else:
        calls.refuse(str(status))


async def _scheduled(address: Address, raw: bytes, rate: float, calls: Calls, ended: asyncio.Event) -> None:
    """Start `rate` calls a second until `ended`, whatever the gate does."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(Connection(*address))

    async def fire(due: float) -> None:
        link = await free.get()
        await _call(link, raw, due, calls)
        free.put_nowait(link)

    started = time.perf_counter()
    running: set[asyncio.Task[None]] = set()
    while not ended.is_set():
        due = started + calls.offered / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(fire(due), name=f"call-{calls.offered}")
        calls.offered += 1
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    while not free.empty():
        free.get_nowait().close()


class Looking:
    """Asks `/v1/enforcement` on a connection of its own."""

    def __init__(self, address: Address, token: str) -> None:
        self._address = address
        headers = {"Host": f"{address[0]}:{address[1]}", "Authorization": f"Bearer {token}"}
        self._raw = request("GET", "/v1/enforcement", {**headers, "Connection": "close"}, b"")

    async def sequence(self) -> int:
        """The sequence that is in force; raises `ValueError` or `KeyError` for an answer that says none."""
        reader, writer = await asyncio.open_connection(*self._address)
        writer.write(self._raw)
        answer = await asyncio.wait_for(reader.read(), ANSWER_SECONDS)
        writer.close()
        return int(json.loads(answer.partition(b"\r\n\r\n")[2])["bundles"][0]["sequence"])


class Memory:
    """The most memory that a process, and everything it started together, had at any look."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.children_mb = 0.0

    def look(self) -> None:
        """Look at the children now, and at theirs."""
        started = [child for own in _children(self._pid) for child in (own, *_children(own))]
        self.children_mb = max(self.children_mb, sum(_mb(pid, "VmRSS") for pid in started))

    @property
    def own_mb(self) -> float:
        """The process's own peak."""
        return _mb(self._pid, "VmHWM")

    @property
    def now_mb(self) -> float:
        """What the process has now."""
        return _mb(self._pid, "VmRSS")


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        listed = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
        return [int(child) for child in " ".join(listed).split()]
    return []


def _mb(pid: int, name: str) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return round(int(line.split()[1]) / 1024, 1)
    return 0.0


async def _swapped(stage: Stage, number: int, looking: Looking, memory: Memory) -> Swap:
    """Publish one revision and wait until it is in force."""
    published = time.perf_counter()
    held = await asyncio.to_thread(stage.endpoint.read, head_only=True)
    replaces = held.headers["etag"] if held is not None else None
    await asyncio.to_thread(stage.endpoint.publish, stage.revisions[number], None, replaces=replaces)
    noticed = time.perf_counter()
    while await looking.sequence() != stage.first_sequence + number + 1:
        memory.look()
        if time.perf_counter() - noticed > SWAP_MAX_SECONDS:
            raise RuntimeError(f"sequence {stage.first_sequence + number + 1} did not come into force")
        await asyncio.sleep(LOOK_SECONDS)
    return Swap(published, noticed, time.perf_counter())


async def measure(stage: Stage) -> dict[str, object]:
    """Load the gate, publish every revision, and give the figures."""
    host, _, port = stage.gate.url.removeprefix("http://").rpartition(":")
    address: Address = (host, int(port))
    raw = WRITE.raw(f"{host}:{port}", f"/c/{CONNECTOR}", stage.gate.token("triage-bot", "triage"))
    looking = Looking(address, stage.gate.token("ops", "operator"))
    memory = Memory(stage.gate.process.pid)
    await closed_loop(address, raw, CONCURRENCY, CAPACITY_SECONDS / 2)
    taken = await closed_loop(address, raw, CONCURRENCY, CAPACITY_SECONDS)
    rate = LOAD_SHARE * taken.achieved_per_second
    calls, ended = Calls(), asyncio.Event()
    load = asyncio.create_task(_scheduled(address, raw, rate, calls, ended), name="load")
    swaps = []
    try:
        for number in range(len(stage.revisions)):
            await asyncio.sleep(REST_SECONDS)
            swaps.append(await _swapped(stage, number, looking, memory))
        await asyncio.sleep(REST_SECONDS)
    finally:
        ended.set()
        await load
    return figures(calls, swaps, rate, memory)


def figures(calls: Calls, swaps: Sequence[Swap], rate: float, memory: Memory) -> dict[str, object]:
    """The document of one run."""
    quiet = _quiet(swaps)
    steady, during = calls.between(quiet), calls.between([swap.span for swap in swaps])
    taking_over = [swap.take_over for swap in swaps]
    rests_p99 = [calls.between([span]).percentile_ms(99) for span in quiet]
    steady_p99 = max(statistics.median(rests_p99), 0.001)
    each = [
        {
            "seconds": round(swap.seen - swap.noticed, 3),
            "p50_ms": round(sample.percentile_ms(50), 3),
            "p99_ms": round(sample.percentile_ms(99), 3),
            "take_over_p99_ms": round(calls.between([swap.take_over]).percentile_ms(99), 3),
            "worst_gap_ms": round(1000 * calls.worst_gap(*swap.span), 3),
            "publish_seconds": round(swap.noticed - swap.published, 3),
        }
        for swap in swaps
        for sample in (calls.between([swap.span]),)
    ]
    return {
        "offered_per_second": round(rate, 1),
        "load_share": LOAD_SHARE,
        "calls": calls.offered,
        "refused": calls.refused,
        "steady": _row(steady, max(calls.worst_gap(*span) for span in quiet)),
        "swaps": _row(during, max(calls.worst_gap(*swap.span) for swap in swaps)),
        "taking over": _row(calls.between(taking_over), max(calls.worst_gap(*span) for span in taking_over)),
        "rests_p99_ms": [round(p99, 3) for p99 in rests_p99],
        "p99_of_steady": round(statistics.median([row["p99_ms"] for row in each]) / steady_p99, 3),
        "worst_p99_of_steady": round(max(row["p99_ms"] for row in each) / steady_p99, 3),
        "take_over_p99_of_steady": round(statistics.median([row["take_over_p99_ms"] for row in each]) / steady_p99, 3),
        "seconds_a_swap": round(statistics.median([row["seconds"] for row in each]), 3),
        "gate_peak_mb": memory.own_mb,
        "gate_after_mb": memory.now_mb,
        "children_peak_mb": memory.children_mb,
        "each": each,
    }


def _quiet(swaps: Sequence[Swap]) -> list[tuple[float, float]]:
    """The rests: before each publication and after the last swap."""
    begins = [swaps[0].published - REST_SECONDS, *(swap.span[1] for swap in swaps)]
    ends = [*(swap.published for swap in swaps), swaps[-1].seen + REST_SECONDS]
    return list(zip(begins, ends, strict=True))


def _row(sample: Sample, gap_seconds: float) -> dict[str, float]:
    return {
        "calls": len(sample.latencies),
        "p50_ms": round(sample.percentile_ms(50), 3),
        "p99_ms": round(sample.percentile_ms(99), 3),
        "worst_gap_ms": round(1000 * gap_seconds, 3),
    }


def _give_way(pid: int) -> None:
    """Let a process run only where nobody else wants to, the threads that it has already included."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))


@contextlib.contextmanager
def staged(folder: Path, target: Address, swaps: int, data_bytes: int) -> Iterator[Stage]:
    """Build, sign, serve and follow until the end of the block."""
    source = sized_source(folder / "source", data_bytes, governed=True)
    directory = measured_directory(folder / "gate", f"http://{target[0]}:{target[1]}", source)
    key, archive = directory / "keys" / "bundle.pem", directory / "bundle.tar.gz"
    service = ServiceProcess.prepare(folder / "service", key)
    first = archive.read_bytes()
    revisions = tuple(revised(first, key, data_bytes, 3 + number) for number in range(swaps))
    with service.running():
        done = service.publish(archive)
        if done.returncode or service.process is None:
            raise RuntimeError(f"the bundle was not published: {done.stdout}{done.stderr}")
        _give_way(service.process.pid)
        follow(directory, service, lease_seconds=600, poll_seconds=60)
        with GateProcess.start(directory) as gate:
            endpoint = RemoteBundle(service.url, read_token(service.token_file))
            yield Stage(gate, endpoint, revisions, 2)


def run(swaps: int, data_bytes: int = DATA_BYTES) -> dict[str, object]:
    """Measure, print and write; the document that was written."""
    with tempfile.TemporaryDirectory() as folder, server("target") as target:
        with staged(Path(folder), target, swaps, data_bytes) as stage:
            document = {"data_bytes": data_bytes, **uvloop.run(measure(stage))}
    rows = {name: row for name in ROWS for row in (document[name],) if isinstance(row, dict)}
    show(f"{swaps} swaps of a bundle with {data_bytes:,} bytes of data", rows)
    for name in (
        "offered_per_second",
        "refused",
        "p99_of_steady",
        "worst_p99_of_steady",
        "take_over_p99_of_steady",
        "seconds_a_swap",
        "gate_peak_mb",
        "children_peak_mb",
    ):
        print(f"{name}: {document[name]}")
    print(f"written to {write('swap', document)}")
    return document
