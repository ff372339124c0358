"""Texts that are long and odd, on a real socket: the gate answers them in no time, and others meanwhile."""

from __future__ import annotations

import time

import pytest

from tests.e2e.calling import JSON_TYPE, LIST, host
from tests.e2e.harness import GateProcess
from tests.e2e.raw import Answer, exchange, request

UPDATE = f"{LIST}/a1"
SECONDS = 5.0
"""Each took longer than this when it was read in quadratic time, and a few milliseconds in linear."""
SPACES = " " * 31_000


def _answered(gate: GateProcess, method: str, target: str, headers: dict[str, str], body: bytes | None) -> Answer:
    began = time.monotonic()
    answer = exchange(gate.url, request(method, target, {"Host": host(gate), **headers}, body))
    assert time.monotonic() - began < SECONDS
    return answer


def _bearer(gate: GateProcess) -> dict[str, str]:
    return {"Authorization": f"Bearer {gate.token('triage-bot', 'triage')}"}


def test_gate_answers_at_once_when_nobody_asks_and_a_preference_is_all_spaces(gate: GateProcess) -> None:
    answer = _answered(gate, "GET", LIST, {"Prefer": f",{SPACES},"}, None)
    assert (answer.status, answer.code) == (401, "identity_missing")


def test_gate_serves_at_once_when_a_preference_is_all_spaces(gate: GateProcess) -> None:
    headers = {**_bearer(gate), "Prefer": f",{SPACES},"}
    assert _answered(gate, "GET", f"{LIST}?sysparm_limit=1", headers, None).status == 200


def test_gate_refuses_at_once_when_a_content_type_is_mostly_spaces(gate: GateProcess) -> None:
    headers = {**_bearer(gate), "Content-Type": f"application/json{SPACES}x"}
    answer = _answered(gate, "PATCH", UPDATE, headers, b"{}")
    assert (answer.status, answer.code) == (400, "malformed_request")


@pytest.mark.parametrize("named", ["content-type", "close, Content-Type", "authorization", "Tidegate-Ticket"])
def test_gate_refuses_when_connection_takes_a_header_away(gate: GateProcess, named: str) -> None:
    headers = {**_bearer(gate), **JSON_TYPE, "Connection": named}
    answer = _answered(gate, "PATCH", UPDATE, headers, b'{"short_description": "&state=7&"}')
    assert (answer.status, answer.code) == (400, "malformed_request")


def test_governed_call_is_refused_when_a_null_byte_would_stand_in_its_query(gate: GateProcess) -> None:
    body = (
        b'{"instance": "servicenow", "action": "servicenow.incident.list",'
        b' "arguments": {"sysparm_query": "active=true\\u0000\\u0007"}}'
    )
    answer = _answered(gate, "POST", "/v1/calls", {**_bearer(gate), **JSON_TYPE}, body)
    assert (answer.status, answer.code) == (422, "arguments_invalid")
