"""The gate against bare reverse proxies and the target itself, in alternating rounds of one run.

Read: one record before the answer. Write: intent before sending, outcome before the answer. Both with a JSON body, policy,
schema, a flushed ledger. A figure is the median of the rounds; only ratios inside one run mean anything.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from benchmarks.load import Sample, closed_loop, open_loop
from benchmarks.measured import CONNECTOR, KINDS, measured_directory
from benchmarks.report import show, summary, write
from tests.e2e.harness import ROOT, GateProcess, child_environment, free_port

OPEN_LOOP_SHARE = 0.5
CONCURRENCIES = (64, 16, 1)
"""The first keeps the gate busy all the time, so that its throughput shows; Envoy is compared at the others."""
BARE = ("floor", "application")
"""The bare proxies of `benchmarks.servers`: as lean as the stack allows, and as people usually write one."""
Address = tuple[str, int]


@contextlib.contextmanager
def server(kind: str, *arguments: int) -> Iterator[Address]:
    """Run one of `benchmarks.servers` until the end of the block."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.servers", kind, str(port), *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, env=child_environment(), stdout=subprocess.PIPE)
    try:
        if process.stdout is None or process.stdout.readline().strip() != b"ready":
            raise RuntimeError(f"the {kind} did not start")
        yield "127.0.0.1", port
    finally:
        process.kill()
        process.wait()


def prepared(address: Address, prefix: str, token: str) -> dict[str, bytes]:
    """Each kind of request as bytes for the side at `address`, below `prefix`."""
    return {name: kind.raw(f"{address[0]}:{address[1]}", prefix, token) for name, kind in KINDS.items()}


async def rounds_of(
    sides: dict[str, tuple[Address, dict[str, bytes]]], concurrency: int, rounds: int, seconds: float
) -> dict[str, list[Sample]]:
    """Every side and kind in turn, `rounds` times after a short one that warms up and does not count.

    Every other round goes backwards: what a side leaves behind (a processor that was driven hard, a disk that still
    writes) must not always hit the same next one.
    """
    turns = [
        (f"{side} {kind}", address, raw)
        for side, (address, requests) in sides.items()
        for kind, raw in requests.items()
    ]
    samples: dict[str, list[Sample]] = {name: [] for name, _, _ in turns}
    for number in range(rounds + 1):
        for name, address, raw in turns if number % 2 else reversed(turns):
            sample = await closed_loop(address, raw, concurrency, seconds if number else min(seconds, 1.0))
            if number:
                samples[name].append(sample)
    return samples


async def _scheduled(
    sides: dict[str, tuple[Address, dict[str, bytes]]], rate: float, seconds: float
) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {}
    for side, (address, requests) in sides.items():
        for kind, raw in requests.items():
            samples[f"{side} {kind}"] = [await open_loop(address, raw, rate, seconds)]
    return samples


def run(rounds: int, seconds: float) -> dict[str, object]:
    """Measure, print and write; the document that was written."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        target = stack.enter_context(server("target"))
        bare = {kind: stack.enter_context(server(kind, target[1])) for kind in BARE}
        directory = measured_directory(Path(folder) / "gate", f"http://{target[0]}:{target[1]}")
        with GateProcess.start(directory) as gate:
            token = gate.token("triage-bot", "triage")
            parts = urlsplit(gate.url)
            here = str(parts.hostname), int(parts.port or 0)
            sides = {"direct": (target, prepared(target, "", token))}
            sides |= {kind: (address, prepared(address, "", token)) for kind, address in bare.items()}
            sides["gate"] = (here, prepared(here, f"/c/{CONNECTOR}", token))
            document: dict[str, object] = {}
            for concurrency in CONCURRENCIES:
                samples = uvloop.run(rounds_of(sides, concurrency, rounds, seconds))
                rows = {name: summary(runs) for name, runs in samples.items()}
                add_ratios(rows)
                show(f"closed loop, concurrency {concurrency}, median of {rounds} rounds of {seconds:g} s", rows)
                document[f"concurrency_{concurrency}"] = rows
                if concurrency == 16:
                    rate = OPEN_LOOP_SHARE * rows["gate write"]["achieved_per_second"]
            scheduled = {name: summary(runs) for name, runs in uvloop.run(_scheduled(sides, rate, seconds)).items()}
            show(f"open loop, {rate:,.0f} requests a second offered", scheduled)
            document["open_loop"] = scheduled
    print(f"written to {write('proxy', document)}")
    return document


def add_ratios(rows: dict[str, dict[str, float]]) -> None:
    """Add to each row what it is of each bare proxy's throughput, where that ran, and what it adds to the floor's median."""
    for name, row in rows.items():
        kind = name.split()[1]
        for bare in BARE:
            if f"{bare} {kind}" in rows:
                rate = rows[f"{bare} {kind}"]["achieved_per_second"]
                row[f"of_{bare}"] = round(row["achieved_per_second"] / max(rate, 0.001), 3)
        row["added_p50_ms"] = round(row["p50_ms"] - rows[f"floor {kind}"]["p50_ms"], 3)
