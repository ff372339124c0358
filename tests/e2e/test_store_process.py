"""The process that owns the store's file: a gate never outlives it, and it never outlives a gate."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.ledger.writer import STALL_SECONDS
from tests.e2e.calling import LIST, call, meanwhile, metrics, recorded, until
from tests.e2e.harness import GateProcess, edit_config, init_directory, tidegate
from tests.e2e.hostile import HostileUpstream


@pytest.fixture
def upstream() -> Iterator[HostileUpstream]:
    """A service that answers when it is told to."""
    with HostileUpstream.start() as running:
        yield running


@pytest.fixture
def directory(tmp_path: Path, upstream: HostileUpstream) -> Path:
    """A gate's directory whose ServiceNow is the upstream."""
    made = init_directory(tmp_path / "gate")
    edit_config(made, {"instances": {"servicenow": {"base_url": f"http://127.0.0.1:{upstream.port}"}}})
    return made


def _is_there(pid: int) -> bool:
    try:
        return b"process_driver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def test_gate_ends_and_recovers_when_its_store_process_is_killed(directory: Path, upstream: HostileUpstream) -> None:
    gate = GateProcess.spawn(directory)
    gate.token("triage-bot", "triage")
    with meanwhile(lambda: call(gate, "PATCH", f"{LIST}/wait-1", {"state": "2"})) as answers:
        until("the write is sent", lambda: upstream.times_asked("wait-1") or None)
        os.kill(gate.store_pid, signal.SIGKILL)
        upstream.released.set()
    until("the gate has ended", lambda: gate.process.poll() is not None or None)
    assert gate.process.returncode == 1
    assert "ledger_failed" in gate.log.read_text(encoding="utf-8")
    assert [(answer.status, answer.code) for answer in answers] == [(503, "ledger_unavailable")]
    with GateProcess.start(directory) as again:
        assert call(again, "GET", LIST).status == 200
        assert metrics(again)["tidegate_dispatch_unknown_total"] == 1
    assert '"unknown":1' in again.log.read_text(encoding="utf-8")
    assert tidegate("ledger", "verify", "--config", str(directory / "tidegate.yaml")).returncode == 0


def test_store_process_ends_by_itself_when_its_gate_is_killed(directory: Path) -> None:
    gate = GateProcess.spawn(directory)
    owner = gate.store_pid
    gate.kill()
    until("the store's process has ended", lambda: not _is_there(owner) or None)
    with GateProcess.start(directory) as again:
        assert call(again, "GET", LIST).status == 200


def test_signals_to_the_whole_group_leave_the_ending_to_the_gate(directory: Path) -> None:
    gate = GateProcess.spawn(directory)
    answered = call(gate, "GET", LIST)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(gate.store_pid, number)
    again = call(gate, "GET", LIST)
    assert (answered.status, again.status) == (200, 200)
    assert recorded(gate, again)
    assert gate.stop() == 0


def test_calls_are_refused_at_once_while_the_disk_hangs_and_go_on_afterwards(directory: Path) -> None:
    with GateProcess.start(directory) as gate:
        assert call(gate, "GET", LIST).status == 200
        os.kill(gate.store_pid, signal.SIGSTOP)
        try:
            with meanwhile(lambda: call(gate, "GET", LIST)) as answers:
                until("the gate is not ready", lambda: call(gate, "GET", "/health/ready").status == 503 or None)
                began = time.monotonic()
                refused = call(gate, "GET", LIST)
                assert (refused.status, refused.code) == (503, "ledger_unavailable")
                assert time.monotonic() - began < STALL_SECONDS
                os.kill(gate.store_pid, signal.SIGCONT)
        finally:
            os.kill(gate.store_pid, signal.SIGCONT)
        assert [answer.status for answer in answers] == [200]
        until("the gate is ready again", lambda: call(gate, "GET", "/health/ready").status == 200 or None)
        assert call(gate, "GET", LIST).status == 200
