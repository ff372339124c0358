"""AuthZEN questions about the actions of connectors: the answer is the one a real call would get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.e2e.harness import GateProcess, tidegate
from tests.integration.test_authzen import EVALUATION, EVALUATIONS
from tests.integration.test_v1 import INCIDENT, INCIDENTS, Answered, send

UPDATE = "servicenow.incident.update"
AGENT = {"type": "agent", "id": "bot", "properties": {"roles": ["triage"]}}


def update(arguments: Any = None, resource_id: str = INCIDENT, subject: Any = None) -> dict[str, Any]:
    """May the subject change an incident?"""
    wanted = {"sys_id": INCIDENT, "work_notes": "seen"} if arguments is None else arguments
    return {
        "subject": subject or AGENT,
        "action": {"name": UPDATE, "properties": {"arguments": wanted}},
        "resource": {"type": "incident", "id": resource_id},
    }


def ask(gate: GateProcess, body: Any, environment: str = "test", path: str = EVALUATION) -> Answered:
    """Ask as a policy enforcement point in an environment."""
    return send(gate, "POST", path, gate.token("pep", "enforcer", environment=environment), body)


def test_evaluation_permits_what_a_call_would_be_let_do(gate: GateProcess) -> None:
    answered = ask(gate, update())
    assert (answered.status, answered.body["decision"]) == (200, True)
    assert answered.body["context"]["effect"] == "ALLOW"


def test_evaluation_says_which_approval_is_missing_when_a_person_must_agree(gate: GateProcess) -> None:
    answered = ask(gate, update(), environment="prod")
    context = answered.body["context"]
    assert answered.body["decision"] is False
    assert (context["reason"], context["effect"]) == ("approval_required", "REQUIRE_HITL")
    assert context["approval"] == {
        "chains": ["one-approver"],
        "decide_within_seconds": context["approval"]["decide_within_seconds"],
        "use_within_seconds": context["approval"]["use_within_seconds"],
    }
    assert context["reasons"][0]["code"] == "prod_write"
    assert context["access_request"]["endpoint"].endswith("/access/v1/requests")


def test_call_is_told_where_its_approval_waits_when_a_person_must_agree(gate: GateProcess) -> None:
    bot = gate.token("asker", "triage", environment="prod")
    held = send(gate, "PATCH", f"{INCIDENTS}/{INCIDENT}", bot, {"work_notes": "ask"}, {"Prefer": "wait=0"})
    assert (held.status, held.code) == (403, "approval_required")
    approval = held.body["approval"]
    assert approval.keys() == {"id", "url", "state", "decide_by", "action_digest"}
    assert approval["url"] == f"/v1/approvals/{approval['id']}"
    assert approval["action_digest"].startswith("sha256:")
    shown = send(gate, "GET", approval["url"], gate.token("ann", "approver", environment="prod")).body
    assert (shown["state"], shown["decide_by"]) == ("pending", approval["decide_by"])


REFUSED: dict[str, Any] = {
    "arguments that do not fit the action": update({"sys_id": INCIDENT, "surprise": True}),
    "no arguments for an action that needs some": update({}),
    "another resource than the arguments name": update(resource_id="0" * 32),
    "another type of resource": {**update(), "resource": {"type": "user", "id": INCIDENT}},
    "an instance that is none": {
        **update(),
        "resource": {"type": "incident", "id": INCIDENT, "properties": {"instance": "elsewhere"}},
    },
    "an instance of another connector": {
        **update(),
        "resource": {"type": "incident", "id": INCIDENT, "properties": {"instance": "slack"}},
    },
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_evaluation_of_a_known_action_is_bad_request_with(gate: GateProcess, body: Any) -> None:
    answered = ask(gate, body)
    assert answered.status == 400, answered.body
    batch = ask(gate, {"evaluations": [body, update()]}, path=EVALUATIONS)
    assert [one["decision"] for one in batch.body["evaluations"]] == [False, True]


CLOSED: dict[str, Any] = {
    "an action that nobody described": {**update(), "action": {"name": "servicenow.incident.burn"}},
    "a subject without a role": update(subject={"type": "agent", "id": "bot"}),
    "an operation of the gate itself": {**update(), "action": {"name": "tidegate.switch.set"}},
}


@pytest.mark.parametrize("body", CLOSED.values(), ids=CLOSED.keys())
def test_evaluation_denies(gate: GateProcess, body: Any) -> None:
    answered = ask(gate, body)
    assert (answered.status, answered.body["decision"]) == (200, False)
    assert answered.body["context"]["reason"] == "no_rule_matched"


STATED: dict[str, Any] = {
    "an approval": {"approval": {"state": "approved", "chains": ["one-approver"]}},
    "facts": {"facts": {"checks": "passed"}},
    "another clock": {"clock": {"unix": 0, "weekday": "Sunday", "minute_of_day": 0, "zone": "UTC"}},
}


@pytest.mark.parametrize("context", STATED.values(), ids=STATED.keys())
def test_evaluation_believes_nobody_who_states(gate: GateProcess, context: Any) -> None:
    answered = ask(gate, {**update(), "context": context}, environment="prod")
    assert answered.body["context"]["reason"] == "approval_required"


def test_evaluation_uses_verified_roles_when_callers_ask_about_themselves(gate: GateProcess) -> None:
    itself = {"type": "user", "id": "selfish", "properties": {"roles": ["operator", "triage"], "acr": "phr"}}
    bot = gate.token("selfish", "developer")
    answered = send(gate, "POST", EVALUATION, bot, update(subject=itself))
    assert (answered.status, answered.body["decision"]) == (200, False)
    assert answered.body["context"]["reason"] == "no_rule_matched"


def test_evaluation_is_recorded_with_its_request_id_in_the_callers_ledger(gate: GateProcess) -> None:
    token = gate.token("pep", "enforcer")
    decided = send(gate, "POST", EVALUATION, token, update(), {"X-Request-ID": "r-ledger"}).body
    tail = tidegate("ledger", "tail", "--config", str(gate.config), "-n", "200", "--json", cwd=Path(gate.directory))
    assert tail.returncode == 0, tail.stderr
    assert decided["context"]["evaluation_id"] in tail.stdout
    assert "r-ledger" in tail.stdout
    assert "seen" not in _evaluations(tail.stdout), "arguments stay out of the ledger"


def _evaluations(printed: str) -> str:
    lines = [line for line in printed.splitlines() if '"evaluation"' in line]
    return orjson.dumps(lines).decode()


def test_evaluation_denies_what_a_kill_switch_stops(gate: GateProcess) -> None:
    operator = gate.token("op", "operator")
    scope = "/v1/switches/tenant/acme/subject/stopped"
    stopped = {**AGENT, "id": "stopped"}
    assert ask(gate, update(subject=stopped)).body["decision"] is True
    assert send(gate, "PUT", scope, operator, {"reason": "test"}).status == 200
    try:
        answered = ask(gate, update(subject=stopped))
        assert (answered.body["decision"], answered.body["context"]["reason"]) == (False, "killed")
    finally:
        send(gate, "DELETE", scope, operator)
