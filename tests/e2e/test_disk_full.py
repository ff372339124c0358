"""A full disk under the whole gate: nothing goes out unrecorded, nothing recorded is lost, and work resumes."""

from __future__ import annotations

import json
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.calling import host
from tests.e2e.harness import GateProcess, edit_config, free_port
from tests.e2e.hostile import HostileUpstream
from tests.e2e.raw import Answer, exchange, request
from tests.soak.ledger_reading import records_of, store_of, verify_store
from tests.soak.small_disk import LOW_WATER_BYTES, SmallDisk

POLL_SECONDS = 0.05
WAIT_SECONDS = 30.0
WARM_CALLS = 10
UNRECORDED = (503, "ledger_unavailable")


@pytest.fixture
def service() -> Iterator[HostileUpstream]:
    """The service behind the gate; it says what reached it, and answers `wait` when released."""
    with HostileUpstream.start() as running:
        yield running


@pytest.fixture
def directory(tmp_path: Path, starter_directory: Path, service: HostileUpstream) -> Path:
    """A starter directory of its own, in front of the service."""
    copied = tmp_path / "gate"
    shutil.copytree(starter_directory, copied)
    base = {"base_url": f"http://127.0.0.1:{service.port}"}
    listen = {"gate": f"127.0.0.1:{free_port()}", "metrics": None}
    edit_config(copied, {"listen": listen, "instances": {"webhook": base, "servicenow": base}})
    return copied


def _write(gate: GateProcess, event: str) -> Answer:
    headers = {"Content-Type": "application/json", "Idempotency-Key": event}
    return _call(gate, "POST", f"/c/webhook/{event}", headers, json.dumps({"event": event}).encode())


def _read(gate: GateProcess) -> Answer:
    return _call(gate, "GET", "/c/servicenow/api/now/table/incident", {}, None)


def _call(gate: GateProcess, method: str, target: str, headers: dict[str, str], body: bytes | None) -> Answer:
    sent = {"Host": host(gate), "Authorization": f"Bearer {gate.token('caller', 'developer', 'triage')}", **headers}
    return exchange(gate.url, request(method, target, sent, body), hold_open=True)


def _ready(gate: GateProcess) -> bool:
    return exchange(gate.url, request("GET", "/health/ready", {"Host": host(gate)}), hold_open=True).status == 200


def _until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(POLL_SECONDS)
    return False


@contextmanager
def _in_flight(gate: GateProcess, service: HostileUpstream) -> Iterator[list[Answer]]:
    """A write that has reached the service; its answer stands in the list once the service was released."""
    answers: list[Answer] = []
    runner = threading.Thread(target=lambda: answers.append(_write(gate, "wait")), name="in-flight")
    runner.start()
    try:
        assert _until(lambda: service.times_asked("/wait ") == 1)
        yield answers
    finally:
        service.released.set()
        runner.join()


def _release(service: HostileUpstream, answers: list[Answer]) -> Answer:
    service.released.set()
    assert _until(lambda: bool(answers))
    return answers[0]


def _check_nothing_goes_out(gate: GateProcess, service: HostileUpstream) -> None:
    for event in ("while-full-1", "while-full-2"):
        refused = _write(gate, event)
        assert (refused.status, refused.code) == UNRECORDED
        assert service.times_asked(event) == 0


def _check_resumed(gate: GateProcess, service: HostileUpstream) -> None:
    assert _until(lambda: _ready(gate))
    assert _read(gate).status == 200
    assert _write(gate, "while-full-1").status == 200
    assert service.times_asked("while-full-1") == 1


def _check_ended_once(directory: Path, call: str, *codes: str | None) -> None:
    """The write in flight has its intent and one outcome, in a ledger that verifies."""
    ends = records_of(directory, call)
    assert [end.kind for end in ends if end.kind in {"intent", "outcome"}] == ["intent", "outcome"]
    assert next(end.code for end in ends if end.kind == "outcome") in codes
    assert verify_store(store_of(directory)) > 0


# --- the system refuses to let the file grow -----------------------------------------------------------------------
def _check_growth_refused(directory: Path, service: HostileUpstream) -> None:
    """Forbid the store file to grow, as a quota or a broken disk does: an I/O error, after which nothing is known."""
    gate = GateProcess.spawn(directory)
    try:
        assert all(_write(gate, f"warm-{number}").status == 200 for number in range(WARM_CALLS))
        with _in_flight(gate, service) as answers:
            log_bytes = store_of(directory).with_name("tidegate.db-wal").stat().st_size
            _, hard = resource.prlimit(gate.store_pid, resource.RLIMIT_FSIZE)
            resource.prlimit(gate.store_pid, resource.RLIMIT_FSIZE, (log_bytes, hard))
            refused = _write(gate, "while-full-1")
            assert (refused.status, refused.code) == UNRECORDED
            unrecorded = _release(service, answers)
            assert (unrecorded.status, unrecorded.code) == UNRECORDED
        assert _until(lambda: gate.process.poll() is not None)
        assert gate.process.returncode == 1
    finally:
        gate.kill()
    assert service.times_asked("while-full-1") == 0
    verify_store(store_of(directory))
    with GateProcess.start(directory) as again:
        _check_resumed(again, service)
        repeated = _write(again, "wait")
        assert (repeated.status, repeated.code) == (504, "outcome_unknown")
    assert service.times_asked("/wait ") == 1
    _check_ended_once(directory, unrecorded.headers["tidegate-call"], "outcome_unknown")


def test_gate_ends_and_loses_nothing_when_the_store_may_not_grow(directory: Path, service: HostileUpstream) -> None:
    _check_growth_refused(directory, service)


# --- the file system is full ---------------------------------------------------------------------------------------
def test_last_outcome_is_kept_and_work_resumes_when_the_disk_was_low(
    directory: Path, service: HostileUpstream, tmp_path: Path
) -> None:
    with SmallDisk.mount(directory) as disk:
        if disk is None:  # no namespaces here: the same calls against a store that may not grow
            return _check_growth_refused(directory, service)
        gate = disk.spawn()
        try:
            assert _write(gate, "warm").status == 200
            with _in_flight(gate, service) as answers:
                disk.fill(leave_bytes=LOW_WATER_BYTES // 2)
                _check_nothing_goes_out(gate, service)
                refused = _read(gate)
                assert (refused.status, refused.code) == UNRECORDED
                assert not _ready(gate)
                ended = _release(service, answers)
                assert ended.status == 200
            disk.empty()
            _check_resumed(gate, service)
        finally:
            status = gate.stop()
        assert status == 0
        _check_ended_once(disk.copy_state(tmp_path / "copy"), ended.headers["tidegate-call"], None)


def test_write_is_never_called_done_when_the_disk_is_full(
    directory: Path, service: HostileUpstream, tmp_path: Path
) -> None:
    with SmallDisk.mount(directory) as disk:
        if disk is None:  # no namespaces here: the same calls against a store that may not grow
            return _check_growth_refused(directory, service)
        gate = disk.spawn()
        try:
            assert _write(gate, "warm").status == 200
            with _in_flight(gate, service) as answers:
                disk.fill()
                _check_nothing_goes_out(gate, service)
                unrecorded = _release(service, answers)
                assert (unrecorded.status, unrecorded.code) == UNRECORDED
            disk.empty()
            _check_resumed(gate, service)
        finally:
            status = gate.stop()
        assert status == 0
        again = disk.spawn()
        try:
            repeated = _write(again, "wait")
        finally:
            again.stop()
        assert (repeated.status, repeated.code) in {(504, "outcome_unknown"), (200, "")}
        assert service.times_asked("/wait ") == 1
        copied = disk.copy_state(tmp_path / "copy")
        _check_ended_once(copied, unrecorded.headers["tidegate-call"], "outcome_unknown", None)


LEFT = [pytest.param(0, id="full"), pytest.param(LOW_WATER_BYTES // 2, id="low")]


@pytest.mark.parametrize("left", LEFT)
def test_gate_does_not_start_until_there_is_room_when_the_disk_is(
    directory: Path, service: HostileUpstream, left: int
) -> None:
    with SmallDisk.mount(directory) as disk:
        if disk is None:  # no namespaces here: the same calls against a store that may not grow
            return _check_growth_refused(directory, service)
        disk.fill(leave_bytes=left)
        refused = disk.popen("gateway", "run")
        try:
            assert refused.wait(WAIT_SECONDS) == 3
        finally:
            refused.kill()
        said = (directory / "gate.log").read_text(encoding="utf-8")
        assert "ledger_unavailable" in said
        assert "Traceback" not in said
        disk.empty()
        gate = disk.spawn()
        try:
            assert _write(gate, "after").status == 200
        finally:
            gate.stop()
