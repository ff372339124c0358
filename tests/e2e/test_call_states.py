"""`GET /v1/calls/{id}` of a held call: what its caller is told while and after people decide about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.calling import LIST, call, metrics, until
from tests.e2e.harness import GateProcess, StandIns, init_directory, point_at_stand_ins
from tests.e2e.rulebook import add_rules

RULES = """
require_hitl contains {
	"code": "brief",
	"message": "an approval is good for a second",
	"chain": "one-approver",
	"decide_within_seconds": 600,
	"use_within_seconds": 1,
} if {
	input.args.short_description == "used too late"
}

require_hitl contains {
	"code": "brief",
	"message": "a person has a second",
	"chain": "one-approver",
	"decide_within_seconds": 1,
} if {
	input.args.short_description == "decided too late"
}
"""


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory, stand_ins: StandIns, opa_path: Path) -> Iterator[GateProcess]:
    """A gate that also gives people, or callers, a moment only."""
    directory = init_directory(tmp_path_factory.mktemp("brief") / "gate")
    point_at_stand_ins(directory, stand_ins)
    add_rules(directory, "servicenow", RULES)
    with GateProcess.start(directory) as running:
        yield running


def _bot(gate: GateProcess) -> str:
    return gate.token("triage-bot", "triage", environment="prod")


def _send(gate: GateProcess, text: str, token: str = "") -> dict[str, Any]:
    """Send a production write; the id of the call and its answer."""
    body, headers = {"short_description": text}, {"Prefer": "respond-async"}
    answer = call(gate, "POST", LIST, body, token=token or _bot(gate), headers=headers)
    return {"id": answer.headers["tidegate-call"], "status": answer.status, **answer.json()}


def _vote(gate: GateProcess, held: dict[str, Any], decision: str) -> int:
    vote = {"decision": decision, "reason": "tested", "action_digest": held["approval"]["action_digest"]}
    maria = gate.token("maria", "approver", environment="prod")
    return call(gate, "POST", f"/v1/approvals/{held['approval']['id']}/votes", vote, token=maria).status


def _state(gate: GateProcess, held: dict[str, Any], token: str = "") -> dict[str, Any]:
    answer = call(gate, "GET", f"/v1/calls/{held['id']}", token=token or _bot(gate))
    assert answer.status == 200
    document: dict[str, Any] = answer.json()
    assert (document["id"], document["approval"]["id"]) == (held["id"], held["approval"]["id"])
    return {name: document[name] for name in ("state", "code", "status", "response")}


def _nothing(state: str, code: str | None) -> dict[str, Any]:
    return {"state": state, "code": code, "status": None, "response": None}


def test_call_is_held_when_nobody_has_decided(gate: GateProcess) -> None:
    held = _send(gate, "undecided")
    assert held["status"] == 202
    assert _state(gate, held) == _nothing("held", "approval_required")


def test_approval_is_counted_once_when_its_call_is_repeated(gate: GateProcess) -> None:
    before = metrics(gate)["tidegate_approvals_created_total"]
    first, again = _send(gate, "sent twice"), _send(gate, "sent twice")
    assert first["approval"]["id"] == again["approval"]["id"]
    assert metrics(gate)["tidegate_approvals_created_total"] == before + 1


PENDING, WAITING = "tidegate_approvals_pending", "tidegate_callers_waiting"


def _open_approvals(gate: GateProcess, count: int) -> None:
    until(f"{count} approvals are counted", lambda: metrics(gate)[PENDING] == count or None)


def test_open_approvals_are_counted_until_they_are_decided_when_no_caller_waits(brief: GateProcess) -> None:
    _open_approvals(brief, 0)
    held = _send(brief, "waits for a person")
    _open_approvals(brief, 1)
    assert metrics(brief)[WAITING] == 0
    assert _vote(brief, held, "deny") == 200
    _open_approvals(brief, 0)


def test_call_is_approved_when_its_approval_waits_to_be_used(gate: GateProcess) -> None:
    held = _send(gate, "approved and unused")
    assert _vote(gate, held, "approve") == 200
    assert _state(gate, held) == _nothing("approved", None)


def test_call_is_refused_when_a_person_denied_it(gate: GateProcess) -> None:
    held = _send(gate, "denied for good")
    assert _vote(gate, held, "deny") == 200
    assert _state(gate, held) == _nothing("refused", "approval_denied")


def test_call_is_refused_when_its_approval_was_withdrawn(gate: GateProcess) -> None:
    held = _send(gate, "withdrawn")
    assert call(gate, "POST", f"/v1/approvals/{held['approval']['id']}/withdraw", token=_bot(gate)).status == 200
    assert _state(gate, held) == _nothing("refused", "approval_denied")


def test_call_is_done_with_its_answer_when_its_approval_was_used(gate: GateProcess) -> None:
    held = _send(gate, "approved and used")
    assert _vote(gate, held, "approve") == 200
    sent = _send(gate, "approved and used")
    assert (sent["status"], sent["id"] == held["id"]) == (201, False)
    state = _state(gate, held)
    assert (state["state"], state["code"], state["status"]) == ("done", None, 201)
    assert state["response"]["result"]["short_description"] == "approved and used"
    stored = call(gate, "GET", f"/v1/calls/{held['id']}/response", token=_bot(gate))
    assert (stored.status, stored.json()["result"]) == (201, state["response"]["result"])
    assert _state(gate, {**held, "id": sent["id"]}) == state


def test_response_is_only_for_whom_the_call_was_made_when_others_may_read_how_it_stands(gate: GateProcess) -> None:
    held = _send(gate, "somebody else's answer")
    assert _vote(gate, held, "approve") == 200
    assert _send(gate, "somebody else's answer")["status"] == 201
    auditor = gate.token("auditor-1", "auditor", environment="prod")
    state = _state(gate, held, auditor)
    assert (state["state"], state["status"], state["response"]) == ("done", 201, None)
    answer = call(gate, "GET", f"/v1/calls/{held['id']}/response", token=auditor)
    assert (answer.status, answer.code) == (404, "not_found")


@pytest.mark.parametrize(("text", "vote"), [("decided too late", ""), ("used too late", "approve")])
def test_call_is_refused_when_its_approval_has_expired(brief: GateProcess, text: str, vote: str) -> None:
    held = _send(brief, text)
    if vote:
        assert _vote(brief, held, vote) == 200
    expired = _nothing("refused", "approval_expired")
    until("the approval expires", lambda: _state(brief, held) == expired or None)
