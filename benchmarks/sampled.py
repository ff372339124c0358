"""Where the processor time of one call goes: a gate that samples itself while another process loads it.

`python -m benchmarks.sampled DIRECTORY` starts the gate of a directory and prints a line of JSON when its input ends.
At each tick of the kernel's clock for used processor time a signal looks at what the loop's thread is doing, and gives
what that thread used since the last look to the innermost frame that has a stage. So the rows add up to the whole; time
in C (sockets, the engine) counts for the line that called it, and what has no frame of ours is the event loop's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

import uvloop

from benchmarks.load import closed_loop
from benchmarks.measured import CONNECTOR, KINDS, measured_directory
from benchmarks.proxy import Address, server
from gateway.app import start_gate
from gateway.config import load_config
from gateway.operations.log import LineLog
from tests.e2e.harness import ROOT, child_environment, read_config, tidegate

SAMPLE_SECONDS: Final = 0.001
CONCURRENCY: Final = 16
LOOP: Final = "event loop, sockets (no frame)"
OTHER_THREADS: Final = "other threads (ledger, log)"

# The first that fits counts: a file of ours, and where it matters the beginning of a function's name.
STAGES: Final = (
    ("pdp/wasm/", "", "decision: engine"),
    ("pdp/", "", "decision: question and answer"),
    ("flow/describe.py", "policy_input", "decision: question and answer"),
    ("flow/describe.py", "subject_facts", "decision: question and answer"),
    ("flow/driver.py", "CallDriver._ask", "decision: question and answer"),
    ("edge/identity.py", "", "identify"),
    ("edge/tokens.py", "", "identify"),
    ("flow/prepare.py", "identify", "identify"),
    ("flow/driver.py", "CallDriver._verify", "identify"),
    ("edge/url.py", "", "head, classify"),
    ("edge/headers.py", "", "head, classify"),
    ("edge/body.py", "", "head, classify"),
    ("connectors/classify.py", "", "head, classify"),
    ("connectors/bodies.py", "", "body, arguments, schema"),
    ("connectors/arguments.py", "", "body, arguments, schema"),
    ("flow/describe.py", "", "record: encode"),
    ("ledger/record.py", "", "record: encode"),
    ("ledger/writer.py", "", "record: append and wake"),
    ("flow/driver.py", "CallDriver._append", "record: append and wake"),
    ("egress/", "", "dispatch"),
    ("aiohttp/client_proto.py", "", "dispatch"),
    ("connectors/credentials.py", "", "dispatch"),
    ("flow/driver.py", "CallDriver._dispatch", "dispatch"),
    ("connectors/leaks.py", "", "answer"),
    ("connectors/rewrite.py", "", "answer"),
    ("connectors/outbound.py", "", "answer"),
    ("edge/answer.py", "", "answer"),
    ("flow/answering.py", "", "answer"),
    ("flow/driver.py", "CallDriver._began", "answer"),
    ("flow/driver.py", "CallDriver._rewrite", "answer"),
    ("flow/driver.py", "CallDriver._answer_at_hand", "answer"),
    ("operations/", "", "log, metrics"),
    ("gateway/proxying.py", "_line", "log, metrics"),
    ("gateway/proxying.py", "CallRunner.settled", "log, metrics"),
    ("edge/server.py", "", "HTTP in"),
    ("edge/framing.py", "", "HTTP in"),
    ("gateway/", "", "flow, driver"),
)


class Sampler:
    """Gives the processor time of the thread it was made in to stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stages: dict[object, str | None] = {}
        self._last = time.thread_time()

    def look(self, _: int, frame: FrameType | None) -> None:
        """The signal's handler."""
        now = time.thread_time()
        stage = self._stage(frame)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def _stage(self, frame: FrameType | None) -> str:
        while frame is not None:
            code = frame.f_code
            if code not in self._stages:
                self._stages[code] = _stage_of(code.co_filename, code.co_qualname)
            found = self._stages[code]
            if found is not None:
                return found
            frame = frame.f_back
        return LOOP


def _stage_of(file: str, function: str) -> str | None:
    return next((stage for part, name, stage in STAGES if part in file and function.startswith(name)), None)


async def _serve(directory: Path) -> None:
    text = await asyncio.to_thread((directory / "tidegate.yaml").read_text, encoding="utf-8")
    config = load_config(text, directory, os.environ)
    with contextlib.closing(await asyncio.to_thread(Path(os.devnull).open, "wb")) as nowhere:
        gate = await start_gate(config, config_path=directory / "tidegate.yaml", log=LineLog(nowhere))
        await gate.listen()
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            sampler = Sampler()
            threads = _thread_seconds()
            signal.signal(signal.SIGPROF, sampler.look)
            signal.setitimer(signal.ITIMER_PROF, SAMPLE_SECONDS, SAMPLE_SECONDS)
            print("sampling", flush=True)
            await loop.run_in_executor(None, sys.stdin.readline)
            signal.setitimer(signal.ITIMER_PROF, 0)
            others = _thread_seconds() - threads
            print(json.dumps({**sampler.seconds, OTHER_THREADS: others}), flush=True)
        await gate.close()


def _thread_seconds() -> float:
    """Processor time of all threads but this one."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime - time.thread_time()


def measure(folder: Path, seconds: float) -> dict[str, dict[str, float]]:
    """Load the gate with each kind of call; microseconds of processor time a call by stage, and their sum."""
    rows: dict[str, dict[str, float]] = {}
    with server("target") as target:
        directory = measured_directory(folder / "sampled", f"http://{target[0]}:{target[1]}")
        command = [sys.executable, "-m", "benchmarks.sampled", str(directory)]
        with subprocess.Popen(
            command, cwd=ROOT, env=child_environment(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as gate:
            if gate.stdin is None or gate.stdout is None or gate.stdout.readline().strip() != "ready":
                raise RuntimeError("the sampled gate did not start")
            for kind, spent in _each_kind(gate, directory, seconds):
                for stage, microseconds in spent.items():
                    rows.setdefault(stage, dict.fromkeys(KINDS, 0.0))[kind] = microseconds
            gate.stdin.close()
    order = dict.fromkeys([*(stage for _, _, stage in STAGES), LOOP, OTHER_THREADS])
    table = {stage: rows[stage] for stage in order if stage in rows}
    table["the whole call"] = {kind: round(sum(row[kind] for row in table.values()), 1) for kind in KINDS}
    return table


def _each_kind(gate: subprocess.Popen[str], directory: Path, seconds: float) -> list[tuple[str, dict[str, float]]]:
    if gate.stdin is None or gate.stdout is None:
        raise RuntimeError("the sampled gate has no pipes")
    host, _, port = str(read_config(directory)["listen"]["gate"]).rpartition(":")
    address: Address = (host, int(port))
    token = _token(directory)
    found = []
    for kind, asked in KINDS.items():
        raw = asked.raw(f"{host}:{port}", f"/c/{CONNECTOR}", token)
        uvloop.run(closed_loop(address, raw, CONCURRENCY, seconds / 2))
        _say(gate)
        gate.stdout.readline()
        sample = uvloop.run(closed_loop(address, raw, CONCURRENCY, seconds))
        _say(gate)
        spent: dict[str, float] = json.loads(gate.stdout.readline())
        calls = max(1, len(sample.latencies))
        found.append((kind, {stage: round(1e6 * used / calls, 1) for stage, used in spent.items()}))
    return found


def _token(directory: Path) -> str:
    names = ("--subject", "triage-bot", "--tenant", "acme", "--workspace", "ops", "--environment", "test")
    config = ("--config", str(directory / "tidegate.yaml"))
    return tidegate("token", *names, *config, "--role", "triage").stdout.strip()


def _say(gate: subprocess.Popen[str]) -> None:
    if gate.stdin is not None:
        gate.stdin.write("\n")
        gate.stdin.flush()


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1])))
