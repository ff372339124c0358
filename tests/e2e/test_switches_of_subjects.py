"""Kill switches for subjects whose ids are no plain names: set over HTTP and by the command, they stop the calls."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.e2e.calling import LIST, call
from tests.e2e.harness import GateProcess, tidegate

SUBJECTS = [
    "spiffe://acme/agent/7",
    "https://idp.example/u?1#a",
    "ACME\\bob",
    "a%b",
    "a%2Fb",
    "x;y",
    "two//slashes/",
    "with a space and ünï",
    "subject/of/subject/x",
]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_subject_is_killed_until_cleared_when_its_switch_is_set_over_http(gate: GateProcess, subject: str) -> None:
    operator, token = gate.token("op", "operator"), gate.token(subject, "triage")
    switch = "/v1/switches/tenant/acme/subject/" + quote(subject, safe="")
    assert call(gate, "GET", LIST, token=token).status == 200
    done = call(gate, "PUT", switch, {"reason": "tested"}, token=operator)
    assert (done.status, done.json()["scope"]) == (200, f"tenant/acme/subject/{subject}")
    stopped = call(gate, "GET", LIST, token=token)
    assert (stopped.status, stopped.code) == (403, "killed")
    assert call(gate, "GET", switch, token=operator).json()["reason"] == "tested"
    assert call(gate, "DELETE", switch, token=operator).status == 200
    assert call(gate, "GET", LIST, token=token).status == 200


@pytest.mark.parametrize("subject", SUBJECTS)
def test_subject_is_killed_until_cleared_when_its_switch_is_set_by_the_command(gate: GateProcess, subject: str) -> None:
    operator, token = gate.token("op", "operator"), gate.token(subject, "triage")
    scope = f"tenant/acme/subject/{subject}"
    done = tidegate("switch", "set", scope, "--reason", "tested", token=operator, gate=gate.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert call(gate, "GET", LIST, token=token).code == "killed"
    done = tidegate("switch", "clear", scope, token=operator, gate=gate.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert call(gate, "GET", LIST, token=token).status == 200


REFUSED = {
    "the id is not encoded": ("tenant/acme/subject/spiffe:/acme", 404, "not_found"),
    "another kind's name has a separator": ("tenant/acme/connector/a%2Fb", 400, "malformed_request"),
    "the tenant has a separator": ("tenant/ac%2Fme/subject/bob", 400, "malformed_request"),
    "something follows the id": ("tenant/acme/subject/a%2Fb/c", 400, "malformed_request"),
    "the id is a dot segment": ("tenant/acme/subject/%2e%2e", 400, "malformed_request"),
    "the id has a control character, as no subject's has": ("tenant/acme/subject/a%01", 400, "malformed_request"),
    "the id is no UTF-8": ("tenant/acme/subject/%FF", 400, "malformed_request"),
    "the id is too long": ("tenant/acme/subject/" + "%2F" * 257, 404, "not_found"),
}


@pytest.mark.parametrize(("scope", "status", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_switch_is_refused_when(gate: GateProcess, scope: str, status: int, code: str) -> None:
    answer = call(gate, "PUT", f"/v1/switches/{scope}", {"reason": "tested"}, token=gate.token("op", "operator"))
    assert (answer.status, answer.code) == (status, code)
