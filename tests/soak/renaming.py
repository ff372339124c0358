"""A real gate process whose names lead where a test says: the gate's own application with another resolver.

Run as ``python -m tests.soak.renaming CONFIG ANSWERS QUESTIONS`` it is that process: it takes one answer after the other
from the file ANSWERS (the last one stays) and adds a line to the file QUESTIONS for each time it was asked.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.app import start_gate
from gateway.config import GatewayConfig, load_config
from gateway.egress.dialer import UpstreamPools
from tests.e2e.harness import ROOT, GateProcess, StartFailed, child_environment, read_config
from tests.e2e.hostile import HostileUpstream

START_SECONDS = 40.0
POLL_SECONDS = 0.05


@dataclass(slots=True)
class RenamingGate:
    """The running process, and what its resolver is to say and was asked."""

    gate: GateProcess
    service: HostileUpstream
    answers: Path
    asked: Path

    @classmethod
    @contextmanager
    def start(cls, directory: Path, service: HostileUpstream) -> Iterator[RenamingGate]:
        """Run it until the end of the block. Raises `StartFailed`."""
        answers, asked, log = directory / "answers.json", directory / "questions.txt", directory / "gate.log"
        command = [
            sys.executable,
            "-m",
            "tests.soak.renaming",
            str(directory / "tidegate.yaml"),
            str(answers),
            str(asked),
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=ROOT, env=child_environment(), stdout=output, stderr=output)
        gate = GateProcess(directory, f"http://{read_config(directory)['listen']['gate']}", process, log)
        try:
            wait_until_ready(gate)
            yield cls(gate, service, answers, asked)
        finally:
            gate.stop()

    def will_answer(self, *answers: tuple[str, ...]) -> None:
        """What the resolver says from now on: one after the other, the last one for good."""
        self.answers.write_text(json.dumps(answers), encoding="utf-8")
        self.asked.write_text("", encoding="utf-8")

    def questions(self) -> int:
        """How often it was asked since."""
        return len(self.asked.read_text(encoding="utf-8").splitlines())


def wait_until_ready(gate: GateProcess) -> None:
    """Wait for a gate that was started otherwise than by the harness. Raises `StartFailed`."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and gate.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{gate.url}/health/ready", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_SECONDS)
    raise StartFailed(gate.log.read_text(errors="replace")[-4000:])


class ChangingNames:
    """A resolver whose answers change from one question to the next."""

    def __init__(self, answers: Path, asked: Path) -> None:
        self._answers = answers
        self._asked = asked

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """The next answer, for whatever name."""
        return await asyncio.to_thread(self._next, host)

    def _next(self, host: str) -> tuple[str, ...]:
        first, *rest = json.loads(self._answers.read_text(encoding="utf-8"))
        if rest:
            self._answers.write_text(json.dumps(rest), encoding="utf-8")
        with self._asked.open("a", encoding="utf-8") as out:
            out.write(f"{host}\n")
        return tuple(first)


def read_config_file(path: Path) -> GatewayConfig:
    """The configuration, checked."""
    return load_config(path.read_text(encoding="utf-8"), path.resolve().parent, os.environ)


async def serve(config: GatewayConfig, names: ChangingNames) -> None:
    """Run the gate until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    gate = await start_gate(config)
    running = gate.running
    running.services = replace(running.services, pools=UpstreamPools(resolver=names))
    try:
        await gate.listen()
        await stop.wait()
    finally:
        await gate.close()


if __name__ == "__main__":
    asyncio.run(serve(read_config_file(Path(sys.argv[1])), ChangingNames(Path(sys.argv[2]), Path(sys.argv[3]))))
