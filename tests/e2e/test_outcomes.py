"""A write that has happened while the ledger takes nothing: the caller hears so, and the outcome is not lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.calling import JSON_TYPE, LIST, call, host, meanwhile, metrics, recorded, until, unwritable
from tests.e2e.harness import GateProcess, edit_config, init_directory, tidegate
from tests.e2e.hostile import HostileUpstream
from tests.e2e.raw import Answer, exchange, request

WAITING = "tidegate_ledger_outcomes_waiting"
KEYED = {**JSON_TYPE, "Idempotency-Key": "once-and-kept"}


@pytest.fixture
def upstream() -> Iterator[HostileUpstream]:
    """A service that answers when it is told to."""
    with HostileUpstream.start() as running:
        yield running


@pytest.fixture
def gate_of_its_own(tmp_path_factory: pytest.TempPathFactory, upstream: HostileUpstream) -> Iterator[GateProcess]:
    """A gate in front of it."""
    directory = init_directory(tmp_path_factory.mktemp("outcomes") / "gate")
    limits = {"limits": {"grace_seconds": 1}}
    edit_config(directory, {"instances": {"servicenow": {"base_url": f"http://127.0.0.1:{upstream.port}"}}, **limits})
    with GateProcess.start(directory) as running:
        yield running


def _waiting(gate: GateProcess, count: int) -> bool | None:
    return metrics(gate)[WAITING] == count or None


def _write(gate: GateProcess, headers: dict[str, str]) -> Answer:
    return call(gate, "PATCH", f"{LIST}/wait-1", {"state": "2"}, headers=headers)


def test_outcome_is_recorded_later_and_answered_again_when_the_ledger_failed_after_the_write(
    gate_of_its_own: GateProcess, upstream: HostileUpstream
) -> None:
    gate = gate_of_its_own
    gate.token("triage-bot", "triage")
    with meanwhile(lambda: _write(gate, KEYED)) as answers:
        until("the write is sent", lambda: upstream.times_asked("wait-1") or None)
        with unwritable(gate):
            upstream.released.set()
            until("the outcome waits", lambda: _waiting(gate, 1))
            until("the caller is told", lambda: answers or None)
    assert (answers[0].status, answers[0].code) == (503, "ledger_unavailable")
    assert answers[0].json()["call"] == answers[0].headers["tidegate-call"]
    until("the outcome is durable", lambda: _waiting(gate, 0))
    records = recorded(gate, answers[0])
    assert [(one["kind"], one["action"].get("status")) for one in records] == [("intent", None), ("outcome", 200)]
    again = _write(gate, KEYED)
    assert (again.status, again.json()) == (200, {"result": []})
    assert upstream.times_asked("wait-1") == 1
    assert tidegate("ledger", "verify", "--config", str(gate.config)).returncode == 0


def test_read_is_recorded_later_when_the_ledger_failed_after_it(
    gate_of_its_own: GateProcess, upstream: HostileUpstream
) -> None:
    gate = gate_of_its_own
    gate.token("triage-bot", "triage")
    with unwritable(gate):
        answer = call(gate, "GET", LIST)
        assert (answer.status, answer.code) == (503, "ledger_unavailable")
        until("the record waits", lambda: _waiting(gate, 1))
    until("the record is durable", lambda: _waiting(gate, 0))
    assert [(one["kind"], one["action"]["status"]) for one in recorded(gate, answer)] == [("call", 200)]


def test_outcome_is_unknown_when_the_gate_stops_while_the_write_has_no_answer(
    gate_of_its_own: GateProcess, upstream: HostileUpstream
) -> None:
    gate = gate_of_its_own
    headers = {"Host": host(gate), "Authorization": f"Bearer {gate.token('triage-bot', 'triage')}", **KEYED}
    raw = request("PATCH", f"{LIST}/hang-1", headers, b'{"state":"2"}')
    with meanwhile(lambda: _dropped(gate, raw)):
        until("the write is sent", lambda: upstream.times_asked("hang-1") or None)
        assert gate.stop() == 0
    done = tidegate("ledger", "tail", "-n", "5", "--json", "--config", str(gate.config))
    assert '"outcome_unknown"' in done.stdout
    assert '"gate:recovery"' not in done.stdout
    assert tidegate("ledger", "verify", "--config", str(gate.config)).returncode == 0


def _dropped(gate: GateProcess, raw: bytes) -> Answer:
    """An exchange whose connection the gate drops."""
    try:
        return exchange(gate.url, raw, hold_open=True)
    except (AssertionError, OSError):
        return Answer(0, {}, b"")
