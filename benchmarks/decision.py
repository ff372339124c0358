"""One embedded decision, input encoding and decision parsing included, against OPA's REST API on loopback.

Both answer from the same bundle, with 10 KB of data and with 1 MB, and both do the same work: encode the question, get the
answer, read the decision. Rounds alternate. OPA's side is a keep-alive connection with a prepared head, which is less than
any client library does, and it reads no more of the decision than its effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import orjson
import uvloop

from benchmarks.load import Connection, Sample
from benchmarks.measured import WRITE, load_measured, measured_directory
from benchmarks.messages import HEAD_END
from benchmarks.report import show, summary, write
from benchmarks.sized import sized_source
from bundles.trusted_set import TrustedBundle
from pdp.input_document import encode_input
from pdp.prepared import PolicyPlane
from pdp.wasm.host import WasmEngine
from tests.e2e.harness import ROOT, child_environment, free_port

CALLS = 2000
WARM_CALLS = 200
DATA_BYTES = (10_000, 1_000_000)
OPA_START_SECONDS = 20.0
REST_HEAD = b"POST /v1/data/tidegate/decision HTTP/1.1\r\nHost: opa\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


@contextlib.asynccontextmanager
async def opa_server(bundle: TrustedBundle, folder: Path) -> AsyncIterator[Connection]:
    """OPA with the bundle's policies and data, on loopback."""
    for name, content in bundle.rego.items():
        path = folder / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "data.json").write_text(json.dumps(bundle.data), encoding="utf-8")
    port = free_port()
    command = [str(ROOT / ".tools/opa"), "run", "--server", "--v1-compatible", "--log-level", "error"]
    process = await asyncio.create_subprocess_exec(
        *command, "--addr", f"127.0.0.1:{port}", str(folder), env=child_environment(), stdout=subprocess.DEVNULL
    )
    try:
        await _listening(port)
        link = Connection("127.0.0.1", port)
        yield link
        link.close()
    finally:
        process.kill()
        await process.wait()


async def _listening(port: int) -> None:
    deadline = time.monotonic() + OPA_START_SECONDS
    while time.monotonic() < deadline:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise RuntimeError("OPA did not start")


async def _embedded(plane: PolicyPlane, calls: int) -> Sample:
    sample = Sample()
    begun = time.perf_counter()
    for _ in range(calls):
        question = WRITE.question(time.time())  # facts, which the gate has
        started = time.perf_counter()
        decided = await plane.decide(question)
        sample.latencies.append(time.perf_counter() - started)
        sample.errors += decided.decision.effect.value != "ALLOW"
    sample.seconds = time.perf_counter() - begun
    sample.offered_per_second = calls / sample.seconds
    return sample


async def _rest(link: Connection, calls: int) -> Sample:
    sample = Sample()
    begun = time.perf_counter()
    for _ in range(calls):
        question = WRITE.question(time.time())
        started = time.perf_counter()
        body = b'{"input":%b}' % encode_input(question)
        status = await link.ask(REST_HEAD % len(body) + body)
        decision = orjson.loads(link.answer.partition(HEAD_END)[2])["result"]
        sample.latencies.append(time.perf_counter() - started)
        sample.errors += status != 200 or decision["effect"] != "ALLOW"
    sample.seconds = time.perf_counter() - begun
    sample.offered_per_second = calls / sample.seconds
    return sample


async def _measure(rounds: int, folder: Path, data_bytes: int) -> dict[str, dict[str, float]]:
    source = sized_source(folder / "source", data_bytes)
    bundle = load_measured(measured_directory(folder / "gate", "http://127.0.0.1:9", source))
    plane = PolicyPlane(WasmEngine())
    await plane.load(bundle)
    samples: dict[str, list[Sample]] = {"embedded": [], "OPA REST": []}
    async with opa_server(bundle, folder / "opa") as link:
        await _embedded(plane, WARM_CALLS)
        await _rest(link, WARM_CALLS)
        for _ in range(rounds):
            samples["embedded"].append(await _embedded(plane, CALLS))
            samples["OPA REST"].append(await _rest(link, CALLS))
    await plane.close()
    return {name: summary(runs) for name, runs in samples.items()}


def run(rounds: int, data_bytes: Sequence[int] = DATA_BYTES) -> dict[str, dict[str, dict[str, float]]]:
    """Measure with each size of data, print and write; the rows that were written, by size."""
    document = {}
    for size in data_bytes:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "opa").mkdir()
            rows = uvloop.run(_measure(rounds, Path(folder), size))
        for row in rows.values():
            row["of_rest_p50"] = round(row["p50_ms"] / max(rows["OPA REST"]["p50_ms"], 0.001), 4)
            row["of_rest_p99"] = round(row["p99_ms"] / max(rows["OPA REST"]["p99_ms"], 0.001), 4)
        show(f"one decision, {size:,} bytes of data, median of {rounds} alternating rounds of {CALLS}", rows)
        document[f"{size}_bytes_of_data"] = rows
    print(f"written to {write('decision', document)}")
    return document
