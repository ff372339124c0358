"""What somebody without a token can learn of the gate: nothing that differs between what is there and what is not."""

from __future__ import annotations

import json

import pytest

from tests.e2e.calling import call, host, recorded, until
from tests.e2e.harness import GateProcess
from tests.e2e.raw import Answer, exchange, request

KNOWN, UNKNOWN = "servicenow", "nosuch"
PATH = "/api/now/table/incident"


def _ask(gate: GateProcess, instance: str, headers: dict[str, str]) -> Answer:
    return exchange(gate.url, request("GET", f"/c/{instance}{PATH}", {"Host": host(gate), **headers}))


def _said(answer: Answer) -> tuple[int, dict[str, str], dict[str, object]]:
    """Everything an answer says but the ids that differ between any two calls."""
    headers = {name: value for name, value in answer.headers.items() if name != "tidegate-call"}
    document = {name: value for name, value in answer.json().items() if name != "call"}
    return answer.status, {name: value for name, value in headers.items() if name != "content-length"}, document


UNIDENTIFIED = [
    pytest.param({}, (401, "identity_missing"), id="no token"),
    pytest.param({"Authorization": "Bearer "}, (401, "identity_missing"), id="an empty token"),
    pytest.param({"Authorization": "Bearer not.a.token"}, (401, "identity_invalid"), id="a token that is none"),
    pytest.param({"Authorization": "Basic eDpub3Rva2Vu"}, (401, "identity_invalid"), id="a password that is no token"),
    pytest.param({"X-HTTP-Method-Override": "GET"}, (400, "malformed_request"), id="a method override"),
]


@pytest.mark.parametrize(("headers", "expected"), UNIDENTIFIED)
def test_instance_names_cannot_be_probed_when_the_caller_is_unknown(
    gate: GateProcess, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    known, unknown = _ask(gate, KNOWN, headers), _ask(gate, UNKNOWN, headers)
    assert (unknown.status, unknown.code) == expected
    assert _said(unknown) == _said(known)


def test_absent_instance_is_told_recorded_and_logged_when_the_caller_is_known(gate: GateProcess) -> None:
    answer = call(gate, "GET", f"/c/{UNKNOWN}{PATH}")
    assert (answer.status, answer.code) == (404, "not_found")
    (record,) = recorded(gate, answer)
    assert (record["kind"], record["action"]["instance"], record["action"]["code"]) == ("refusal", UNKNOWN, "not_found")

    def logged() -> dict[str, object] | None:
        lines = [line for line in gate.log.read_text(encoding="utf-8").splitlines() if record["ids"]["call"] in line]
        return json.loads(lines[0]) if lines else None

    line = until("the refusal is logged", logged)
    assert (line["tenant"], line["code"]) == ("acme", "not_found")
