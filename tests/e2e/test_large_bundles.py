"""A gate that is given a bundle with megabytes of data: a process of its own checks it, and its death changes nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bundles.archive import read_archive, unpacks_beyond
from bundles.claims import MANIFEST_FILE
from pdp.bundle_verifier import FAILED, LARGE_BYTES
from tests.e2e.bundle_services import ServiceProcess, follow, resigned
from tests.e2e.calling import LIST, call, until
from tests.e2e.harness import GateProcess, StandIns, init_directory, point_at_stand_ins

PEOPLE = 60_000
KILLS_TRIED_MAX = 8
CALLS_MAX = 2_000


@pytest.fixture
def directory(tmp_path: Path, stand_ins: StandIns) -> Path:
    """A starter directory in front of the stand-ins."""
    made = init_directory(tmp_path / "gate")
    point_at_stand_ins(made, stand_ins)
    return made


@pytest.fixture
def service(tmp_path: Path, directory: Path) -> Iterator[ServiceProcess]:
    """A service with the starter bundle, and the gate's directory set to follow it."""
    made = ServiceProcess.prepare(tmp_path / "service", directory / "keys" / "bundle.pem")
    with made.running():
        assert made.publish(directory / "bundle.tar.gz").returncode == 0
        follow(directory, made, lease_seconds=300, long_poll=False)
        yield made


def large(directory: Path, sequence: int) -> Path:
    """The starter bundle with megabytes of data that only rules could read."""
    archive = directory / "bundle.tar.gz"
    manifest = json.loads(read_archive(archive.read_bytes())[MANIFEST_FILE])
    manifest["roots"].append("directory")
    people = {f"person-{number}": {"team": f"team-{number % 97}", "seat": number} for number in range(PEOPLE)}
    made = resigned(
        archive,
        directory / "keys" / "bundle.pem",
        directory / f"large-{sequence}.tar.gz",
        sequence=sequence,
        _dot_manifest=json.dumps(manifest).encode(),
        directory__data_dot_json=json.dumps(people).encode(),
    )
    assert unpacks_beyond(made.read_bytes(), LARGE_BYTES)
    return made


def enforced(gate: GateProcess) -> dict[str, Any]:
    """The bundle as `/v1/enforcement` shows it."""
    bundle: dict[str, Any] = call(gate, "GET", "/v1/enforcement", token=gate.token("ops", "operator")).json()[
        "bundles"
    ][0]
    return bundle


def children(gate: GateProcess) -> dict[int, bytes]:
    """The processes that the gate has started, and what each was asked to run."""
    found: dict[int, bytes] = {}
    for listed in Path(f"/proc/{gate.process.pid}/task").glob("*/children"):
        try:
            found |= {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in listed.read_text().split()}
        except OSError:
            continue  # It ended while being looked at.
    return found


def checking(gate: GateProcess) -> int | None:
    """The process that checks a bundle now."""
    return next((pid for pid, command in children(gate).items() if b"pdp.bundle_child" in command), None)


def started_by(pid: int) -> list[int]:
    """The processes that a process has started."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []  # It ended while being looked at.


def state(pid: int) -> str:
    """What the kernel says that a process does: T when it stands still, Z when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "Z"


def works_no_more(pid: int) -> bool:
    """Whether it ended; whoever inherits it buries it."""
    return state(pid) == "Z"


def refusals(gate: GateProcess) -> list[str]:
    """The codes of the refused bundles that the gate has logged."""
    lines = (json.loads(line) for line in gate.log.read_text().splitlines() if line.endswith("}"))
    return [line["code"] for line in lines if line.get("what") == "bundle_refused"]


def is_refused_when_killed(gate: GateProcess, sequence: int) -> bool:
    """End the process that checks, once it begins; false when it had answered before."""
    with suppress(ProcessLookupError):
        os.kill(until("a check begins", lambda: checking(gate)), signal.SIGKILL)

    def ended() -> bool | None:
        return True if refusals(gate) else False if enforced(gate)["sequence"] == sequence else None

    return until("a refusal, or the bundle", ended)


def test_large_bundle_comes_into_force_and_survives_a_restart(service: ServiceProcess, directory: Path) -> None:
    with GateProcess.start(directory) as gate:
        assert service.publish(large(directory, 40)).returncode == 0
        until("the large bundle", lambda: True if enforced(gate)["sequence"] == 40 else None)
        assert call(gate, "GET", LIST).status == 200
        assert checking(gate) is None
    with GateProcess.start(directory) as gate:
        assert enforced(gate)["sequence"] == 40
        assert call(gate, "GET", LIST).status == 200


def test_old_bundle_stays_and_the_next_question_brings_the_new_one_when_the_check_is_killed(
    service: ServiceProcess, directory: Path
) -> None:
    with GateProcess.start(directory) as gate:
        for sequence in range(40, 40 + KILLS_TRIED_MAX):
            assert service.publish(large(directory, sequence)).returncode == 0
            if is_refused_when_killed(gate, sequence):
                break
        assert refusals(gate) == [FAILED]
        assert call(gate, "GET", LIST).status == 200
        until("the large bundle", lambda: True if enforced(gate)["sequence"] == sequence else None)
        until("no error", lambda: True if enforced(gate)["source"]["last_error"] is None else None)


def test_no_process_is_left_when_the_gate_stops_during_a_check(service: ServiceProcess, directory: Path) -> None:
    with GateProcess.start(directory) as gate:
        assert service.publish(large(directory, 40)).returncode == 0
        pid = until("a check begins", lambda: checking(gate))
        checked_by = until("it is under way", lambda: started_by(pid) or None)
        assert gate.stop() == 0
        assert not Path(f"/proc/{pid}").exists()
        assert all(works_no_more(child) for child in checked_by)


def test_no_process_is_left_when_the_gate_is_killed_while_the_check_stands_still(
    service: ServiceProcess, directory: Path
) -> None:
    with GateProcess.start(directory) as gate:
        assert service.publish(large(directory, 40)).returncode == 0
        pid = until("a check begins", lambda: checking(gate))
        child = until("it is under way", lambda: next(iter(started_by(pid)), None))
        until("it stands still", lambda: True if state(child) == "T" else None)
        gate.kill()
        until("both are gone", lambda: True if works_no_more(pid) and works_no_more(child) else None)


def test_calls_are_answered_while_a_large_bundle_is_checked_in_slices(service: ServiceProcess, directory: Path) -> None:
    with GateProcess.start(directory) as gate:
        assert service.publish(large(directory, 40)).returncode == 0
        pid = until("a check begins", lambda: checking(gate))
        statuses = set()
        for _ in range(CALLS_MAX):
            statuses.add(call(gate, "GET", LIST).status)
            if checking(gate) != pid:
                break
        assert statuses == {200}
        until("the large bundle", lambda: True if enforced(gate)["sequence"] == 40 else None)
