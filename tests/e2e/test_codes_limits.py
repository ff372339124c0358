"""The codes of what is full: too many calls at once, too many held calls, a ledger that takes nothing more.

Each is produced over a real socket; nothing leaves without its record, and the gate goes on once there is room.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.edge.problem import RETRY_AFTER_SECONDS
from tests.e2e.calling import LIST, call, host, meanwhile, until
from tests.e2e.harness import GateProcess, edit_config, init_directory
from tests.e2e.hostile import HostileUpstream
from tests.e2e.raw import Answer, exchange, request

SWITCH = "/v1/switches/tenant/acme/connector/github"
TIGHT = {"calls_max": 1, "holds_per_subject_max": 1, "upstream_answer_seconds": 3}


@pytest.fixture(scope="module")
def upstream() -> Iterator[HostileUpstream]:
    """A service that answers, and counts what it is asked."""
    with HostileUpstream.start() as running:
        yield running


def _directory(directory: Path, upstream: HostileUpstream, limits: dict[str, int]) -> Path:
    here = {"base_url": f"http://127.0.0.1:{upstream.port}"}
    edit_config(init_directory(directory), {"limits": limits, "instances": {"servicenow": here}})
    return directory


def _sent(upstream: HostileUpstream, word: str) -> int:
    return len([line for line in upstream.asked if word in line])


# --- room for one call --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory, upstream: HostileUpstream) -> Iterator[GateProcess]:
    """A gate with room for one call and, per subject, one held call."""
    directory = _directory(tmp_path_factory.mktemp("tight") / "gate", upstream, TIGHT)
    with GateProcess.start(directory) as running:
        yield running


def test_throttled_when_the_gate_has_as_many_calls_as_it_may(tight: GateProcess, upstream: HostileUpstream) -> None:
    tight.token("triage-bot", "triage")
    with meanwhile(lambda: call(tight, "PATCH", f"{LIST}/hang-1", {"state": "2"})) as answers:
        until("the first call is sent", lambda: _sent(upstream, "hang-1") or None)
        second = call(tight, "PATCH", f"{LIST}/crowded", {"state": "2"})
    assert (second.status, second.code) == (429, "throttled")
    assert second.headers["retry-after"] == str(RETRY_AFTER_SECONDS)
    assert (answers[0].status, answers[0].code) == (504, "outcome_unknown")
    assert call(tight, "PATCH", f"{LIST}/crowded", {"state": "2"}).status == 200
    assert _sent(upstream, "crowded") == 1


def _hold(gate: GateProcess, subject: str, text: str) -> Answer:
    token = gate.token(subject, "triage", environment="prod")
    headers = {"Prefer": "wait=0"}
    return call(gate, "POST", LIST, {"short_description": text}, token=token, headers=headers)


def test_throttled_when_a_subject_has_as_many_held_calls_as_it_may(tight: GateProcess) -> None:
    assert _hold(tight, "bot-1", "the first").code == "approval_required"
    second = _hold(tight, "bot-1", "the second")
    assert (second.status, second.code) == (429, "throttled")
    assert second.headers["retry-after"] == str(RETRY_AFTER_SECONDS)
    assert _hold(tight, "bot-1", "the first").code == "approval_required"
    assert _hold(tight, "bot-2", "of somebody else").code == "approval_required"


# --- no record ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, upstream: HostileUpstream) -> Iterator[GateProcess]:
    """A gate with the ordinary limits."""
    directory = _directory(tmp_path_factory.mktemp("recording") / "gate", upstream, {})
    with GateProcess.start(directory) as running:
        yield running


def _readiness(gate: GateProcess) -> Answer:
    return exchange(gate.url, request("GET", "/health/ready", {"Host": host(gate)}))


def _await_readiness(gate: GateProcess, status: int) -> Answer:
    def asked() -> Answer | None:
        answer = _readiness(gate)
        return answer if answer.status == status else None

    return until(f"readiness answers {status}", asked)


@pytest.fixture
def unrecorded(recording: GateProcess) -> Iterator[GateProcess]:
    """That gate while its ledger's file has a second name, under which somebody else might change it."""
    file = recording.directory / "state" / "tidegate.db"
    second = file.with_name("second.db")
    second.hardlink_to(file)
    try:
        yield recording
    finally:
        second.unlink()
        _await_readiness(recording, 200)


UNRECORDED = [
    pytest.param("PATCH", f"{LIST}/unwritten", {"state": "2"}, "triage", id="a write"),
    pytest.param("GET", f"{LIST}/unwritten-read", None, "triage", id="a read"),
    pytest.param("PUT", SWITCH, {"reason": "tested"}, "operator", id="an operation of the gate"),
]


@pytest.mark.parametrize(("method", "target", "body", "role"), UNRECORDED)
def test_ledger_unavailable_when_no_record_can_be_written(
    unrecorded: GateProcess, method: str, target: str, body: object, role: str
) -> None:
    answer = call(unrecorded, method, target, body, token=unrecorded.token("somebody", role))
    assert (answer.status, answer.code) == (503, "ledger_unavailable")
    assert b"result" not in answer.body


def test_ledger_unavailable_and_nothing_is_held_when_no_record_can_be_written(unrecorded: GateProcess) -> None:
    answer = _hold(unrecorded, "bot-1", "without a record")
    assert (answer.status, answer.code) == (503, "ledger_unavailable")
    bot = unrecorded.token("bot-1", "triage", environment="prod")
    assert call(unrecorded, "GET", "/v1/approvals", token=bot).json()["items"] == []


def test_gate_is_not_ready_when_no_record_can_be_written(unrecorded: GateProcess) -> None:
    answer = _await_readiness(unrecorded, 503)
    assert answer.json() == {"ready": False, "missing": ["ledger"]}


def test_write_is_not_sent_when_its_record_cannot_be_written(
    unrecorded: GateProcess, upstream: HostileUpstream
) -> None:
    refused = call(unrecorded, "PATCH", f"{LIST}/unsent", {"state": "2"})
    assert (refused.status, refused.code) == (503, "ledger_unavailable")
    assert _sent(upstream, "unsent") == 0


def test_write_is_sent_when_records_can_be_written_again(recording: GateProcess, upstream: HostileUpstream) -> None:
    assert call(recording, "PATCH", f"{LIST}/recorded", {"state": "2"}).status == 200
    assert _sent(upstream, "/recorded") == 1
