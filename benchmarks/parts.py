"""Where the time of one call goes: each part alone, in process, on the measured bundle; then a gate under load by stage.

A part alone finds its code and data in the processor's caches; the second table shows what it costs in a whole call.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from benchmarks.load import closed_loop
from benchmarks.measured import CONNECTOR, WRITE, load_measured, measured_directory
from benchmarks.proxy import server
from benchmarks.report import show, write
from benchmarks.sampled import measure
from bundles.manifest import load_manifests
from gateway.connectors.arguments import SchemaSet, gather
from gateway.connectors.classify import ActionTable
from gateway.ledger.record import RecordDraft
from gateway.ledger.writer import LedgerWriter
from gateway.store.process_client import store_link
from pdp.prepared import PolicyPlane
from pdp.wasm.host import WasmEngine

REPEATS = 2000
SAMPLED_SECONDS = 4.0
RECORDS = 400
SEGMENTS = tuple(WRITE.path[1:].split("/"))


def _timed(work: Callable[[], object]) -> list[float]:
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return taken


async def _timed_async(work: Callable[[], Awaitable[object]], repeats: int) -> list[float]:
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        await work()
        taken.append(time.perf_counter() - started)
    return taken


def _row(taken: list[float]) -> dict[str, float]:
    ordered = sorted(taken)
    return {
        "p50_us": round(1e6 * statistics.median(ordered), 1),
        "p99_us": round(1e6 * ordered[int(len(ordered) * 0.99)], 1),
    }


def _draft() -> RecordDraft:
    return RecordDraft(
        log=("acme", "ops"),
        kind="intent",
        ids={"call": secrets.token_hex(16), "attempt": 1},
        subject={"type": "agent", "id": "triage-bot", "environment": "test", "roles": ["triage"]},
        action={"name": "servicenow.incident.update", "mode": "write", "instance": "servicenow"},
        decision={"id": secrets.token_hex(16), "effect": "ALLOW", "engine": "wasm", "reasons": ["incident_writer"]},
        policy={"bundle": "sha256:" + "0" * 64, "revision": "measured", "sequence": 1},
        digests={"args": "0" * 64, "body": "0" * 64},
        actor="gateway",
    )


async def _records(folder: Path, flush: bool) -> list[float]:
    link = store_link(folder / f"ledger-{flush}.db", secrets.token_bytes(32), flush=flush)
    writer = LedgerWriter(link, node="measured", on_fatal=print)
    await writer.start()
    taken = await _timed_async(lambda: writer.append(_draft()), RECORDS)
    await writer.close()
    return taken


async def _measure(folder: Path) -> dict[str, dict[str, float]]:
    bundle = load_measured(measured_directory(folder / "gate", "http://127.0.0.1:9"))
    manifest = load_manifests(bundle.data)[CONNECTOR]
    table, schemas = ActionTable(manifest), SchemaSet(manifest)
    classified = table.classify(WRITE.method, SEGMENTS, (), None)

    def arguments() -> dict[str, object]:
        return dict(gather(classified.action, classified.path_arguments, (), "application/json", WRITE.body))

    gathered = gather(classified.action, classified.path_arguments, (), "application/json", WRITE.body)
    plane = PolicyPlane(WasmEngine())
    await plane.load(bundle)
    rows = {
        "classification": _row(_timed(lambda: table.classify(WRITE.method, SEGMENTS, (), None))),
        "parse and gather": _row(_timed(arguments)),
        "schema": _row(_timed(lambda: schemas.validate(classified.action.name, gathered))),
        "decision": _row(await _timed_async(lambda: plane.decide(WRITE.question(time.time())), REPEATS)),
        "record, flushed": _row(await _records(folder, True)),
        "record, not flushed": _row(await _records(folder, False)),
    }
    await plane.close()
    with server("target") as target, server("floor", target[1]) as floor:
        raw = WRITE.raw("floor", "", "")
        for name, address in (("direct answer", target), ("forward (bare proxy)", floor)):
            await closed_loop(address, raw, 1, 0.5)
            rows[name] = _row((await closed_loop(address, raw, 1, 2.0)).latencies)
            await asyncio.sleep(0)
    return rows


def run(rounds: int) -> dict[str, dict[str, float]]:
    """Measure `rounds` times, print and write the medians."""
    runs = []
    for _ in range(max(1, min(rounds, 5))):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(uvloop.run(_measure(Path(folder))))
    rows = {
        name: {column: round(statistics.median(one[name][column] for one in runs), 1) for column in runs[0][name]}
        for name in runs[0]
    }
    show(f"parts of one write call alone, median of {len(runs)} runs", rows)
    with tempfile.TemporaryDirectory() as folder:
        stages = measure(Path(folder), SAMPLED_SECONDS)
    show("where the processor time of one call goes, microseconds at concurrency 16", stages)
    print(f"written to {write('parts', {'rows': rows, 'stages': stages})}")
    return rows
