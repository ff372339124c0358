"""Real answers of a running gate against the schemas in its own description."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from gateway.api.shadow import KINDS
from gateway.api.switches import _SCOPE
from tests.e2e.harness import GateProcess
from tests.integration.test_v1 import INCIDENT, Answered, held, send

SWITCH = "/v1/switches/tenant/{tenant}/{kind}/{name}"
LIST = {"instance": "servicenow", "action": "incident.list", "arguments": {"sysparm_limit": 1}}


@pytest.fixture
def described(gate: GateProcess) -> dict[str, Any]:
    document: dict[str, Any] = send(gate, "GET", "/openapi.json").body
    return document


def _fits(described: dict[str, Any], method: str, path: str, answered: Answered) -> None:
    """The answer is one that the description has for the operation, and has no member that it does not name."""
    content = described["paths"][path][method]["responses"][str(answered.status)]["content"]
    schema = content["application/json"]["schema"]
    jsonschema_rs.Draft202012Validator({**schema, "components": described["components"]}).validate(answered.body)
    properties = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]
    assert set(answered.body) <= set(properties)


def test_calls_are_answered_as_described(gate: GateProcess, described: dict[str, Any]) -> None:
    bot = gate.token("describer", "triage")
    done = send(gate, "POST", "/v1/calls", bot, LIST)
    _fits(described, "post", "/v1/calls", done)
    _fits(described, "get", "/v1/calls/{id}", send(gate, "GET", f"/v1/calls/{done.body['id']}", bot))
    arguments = {"sys_id": INCIDENT, "work_notes": "described"}
    asked = {"instance": "servicenow", "action": "incident.update", "arguments": arguments}
    producer = gate.token("describer", "triage", environment="prod")
    waits = send(gate, "POST", "/v1/calls", producer, asked)
    assert waits.status == 202
    _fits(described, "post", "/v1/calls", waits)
    _fits(described, "get", "/v1/calls/{id}", send(gate, "GET", waits.headers["location"], producer))


def test_approvals_are_answered_as_described(gate: GateProcess, described: dict[str, Any]) -> None:
    bot, approval = held(gate, "described", "described-bot")
    maria = gate.token("maria", "approver", environment="prod")
    one = send(gate, "GET", f"/v1/approvals/{approval}", maria)
    _fits(described, "get", "/v1/approvals/{id}", one)
    _fits(described, "get", "/v1/approvals", send(gate, "GET", "/v1/approvals?state=pending", maria))
    vote = {"decision": "approve", "reason": "fine", "action_digest": one.body["action_digest"]}
    voted = send(gate, "POST", f"/v1/approvals/{approval}/votes", maria, vote)
    _fits(described, "post", "/v1/approvals/{id}/votes", voted)
    withdrawn = send(gate, "POST", f"/v1/approvals/{approval}/withdraw", bot)
    _fits(described, "post", "/v1/approvals/{id}/withdraw", withdrawn)


def test_switches_are_answered_as_described(gate: GateProcess, described: dict[str, Any]) -> None:
    operator = gate.token("op", "operator", tenant="initech")
    path = "/v1/switches/tenant/initech/connector/slack"
    _fits(described, "put", SWITCH, send(gate, "PUT", path, operator, {"reason": "described"}))
    _fits(described, "get", SWITCH, send(gate, "GET", path, operator))
    _fits(described, "get", "/v1/switches", send(gate, "GET", "/v1/switches", operator))
    _fits(described, "delete", SWITCH, send(gate, "DELETE", path, operator))


@pytest.mark.parametrize("path", ["/v1/enforcement", "/v1/shadow", "/v1/switches", "/v1/approvals"])
def test_list_is_answered_as_described(gate: GateProcess, described: dict[str, Any], path: str) -> None:
    answered = send(gate, "GET", path, gate.token("op", "operator", "auditor", "approver"))
    assert answered.status == 200, answered.body
    _fits(described, "get", path, answered)


def test_simulation_is_answered_as_described(gate: GateProcess, described: dict[str, Any]) -> None:
    _fits(described, "post", "/v1/simulate", send(gate, "POST", "/v1/simulate", gate.token("aud", "auditor"), LIST))


def test_parameters_are_those_that_are_read(described: dict[str, Any]) -> None:
    kinds = next(p for p in described["paths"]["/v1/shadow"]["get"]["parameters"] if p["name"] == "kind")
    assert set(kinds["schema"]["enum"]) == KINDS
    scopes = next(p for p in described["paths"][SWITCH]["get"]["parameters"] if p["name"] == "kind")
    assert all(_SCOPE.fullmatch(f"tenant/acme/{kind}/x") for kind in scopes["schema"]["enum"])
    called = {given["name"] for given in described["paths"]["/v1/calls"]["post"]["parameters"]}
    assert {"Prefer", "Tidegate-Reason"} <= called
