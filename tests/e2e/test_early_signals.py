"""A gate that is told to reload while it starts: it starts, and reloads then."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.e2e.calling import call, until
from tests.e2e.harness import GateProcess, StartFailed, child_environment, init_directory, read_config


def _has_store(gate: GateProcess) -> bool | None:
    try:
        return gate.store_pid > 0
    except StartFailed:
        return None


def _is_ready(gate: GateProcess) -> bool | None:
    assert gate.process.poll() is None, gate.log.read_text(encoding="utf-8")
    try:
        return call(gate, "GET", "/health/ready").status == 200 or None
    except OSError:
        return None


def test_gate_starts_and_reloads_when_it_is_told_to_reload_while_it_starts(tmp_path: Path) -> None:
    directory = init_directory(tmp_path / "gate")
    log = directory / "gate.log"
    command = [sys.executable, "-m", "cli.main", "gateway", "run", "--config", str(directory / "tidegate.yaml")]
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=directory, env=child_environment(), stdout=output, stderr=output)
    gate = GateProcess(directory, f"http://{read_config(directory)['listen']['gate']}", process, log)
    try:
        until("its store's process runs", lambda: _has_store(gate))
        process.send_signal(signal.SIGHUP)
        until("the gate is ready", lambda: _is_ready(gate))
        until("it has reloaded", lambda: '"what":"reloaded"' in log.read_text(encoding="utf-8") or None)
    finally:
        status = gate.stop()
    assert status == 0
