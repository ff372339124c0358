"""What the tests of access requests say over a socket: a question, its denial, the request that answers it."""

from __future__ import annotations

from typing import Any

from tests.e2e.harness import GateProcess
from tests.integration.test_authzen import EVALUATION
from tests.integration.test_v1 import INCIDENT, Answered, send

REQUESTS = "/access/v1/requests"
URN = "urn:openid:authzen:access-request:error:"
UPDATE = "servicenow.incident.update"


def update(subject: str, note: str, context: dict[str, Any] | None = None) -> dict[str, Any]:
    """May this subject write a note into an incident?"""
    asked: dict[str, Any] = {
        "subject": {"type": "user", "id": subject, "properties": {"roles": ["triage"]}},
        "action": {"name": UPDATE, "properties": {"arguments": {"sys_id": INCIDENT, "work_notes": note}}},
        "resource": {"type": "incident", "id": INCIDENT},
    }
    return asked if context is None else {**asked, "context": context}


def prod(gate: GateProcess, subject: str, *roles: str, tenant: str = "acme") -> str:
    """A token in production, where writes wait for a person."""
    return gate.token(subject, *(roles or ("triage",)), environment="prod", tenant=tenant)


def evaluate(gate: GateProcess, token: str, question: Any) -> Answered:
    """Ask for a decision."""
    return send(gate, "POST", EVALUATION, token, question)


def denial(gate: GateProcess, token: str, question: Any) -> dict[str, Any]:
    """What a denial gives its asker to hand in a request with."""
    answered = evaluate(gate, token, question)
    context = answered.body["context"]
    assert (answered.status, answered.body["decision"]) == (200, False), answered.body
    offered = context["access_request"]
    return {
        "evaluation_id": context["evaluation_id"],
        "expires_at": offered["expires_at"],
        "binding_token": offered["binding_token"],
    }


def submission(question: dict[str, Any], denied: dict[str, Any], reason: str = "for the review") -> dict[str, Any]:
    """The body that answers a denial."""
    context = {**question.get("context", {}), "business_justification": reason}
    return {**question, "context": context, "denial": denied}


def submit(gate: GateProcess, token: str, body: Any, headers: dict[str, str] | None = None) -> Answered:
    """Hand a request in."""
    return send(gate, "POST", REQUESTS, token, body, headers)


def opened(gate: GateProcess, token: str, question: dict[str, Any]) -> str:
    """The id of a request that was just opened for a question."""
    answered = submit(gate, token, submission(question, denial(gate, token, question)))
    assert answered.status == 202, answered.body
    return str(answered.body["task"]["id"])


def vote(gate: GateProcess, request_id: str, decision: str, token: str = "") -> Answered:
    """A person's vote on a request."""
    person = token or prod(gate, "ann", "approver")
    shown = send(gate, "GET", f"/v1/approvals/{request_id}", person).body
    ballot = {"decision": decision, "reason": "seen", "action_digest": shown["action_digest"]}
    return send(gate, "POST", f"/v1/approvals/{request_id}/votes", person, ballot)


def task(gate: GateProcess, token: str, request_id: str, headers: dict[str, str] | None = None) -> Answered:
    """How a request stands."""
    return send(gate, "GET", f"{REQUESTS}/{request_id}", token, None, headers)


def again(question: dict[str, Any], approval: Any) -> dict[str, Any]:
    """The same question with the approval it now refers to."""
    return {**question, "context": {**question.get("context", {}), "approval": approval}}
