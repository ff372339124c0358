"""/v1 through a real socket: every operation decided by the bundle, stable codes, exact shapes."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.harness import GateProcess, tidegate

INCIDENTS = "/c/servicenow/api/now/table/incident"
INCIDENT = "01000000000000000000000000000001"


class Answered:
    """Status, headers and JSON body."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        raw = response.read()
        self.body: Any = json.loads(raw) if raw and "json" in self.headers.get("content-type", "") else raw

    @property
    def code(self) -> str:
        """The problem's code, or empty."""
        return str(self.body.get("code", "")) if isinstance(self.body, dict) else ""


def send(
    gate: GateProcess, method: str, path: str, token: str = "", body: Any = None, headers: dict[str, str] | None = None
) -> Answered:
    """One request as it stands."""
    parts = urlsplit(gate.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    sent = dict(headers or {})
    if token:
        sent["Authorization"] = f"Bearer {token}"
    payload = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    if payload is not None:
        sent.setdefault("Content-Type", "application/json")
    try:
        connection.request(method, path, payload, sent)
        return Answered(connection.getresponse())
    finally:
        connection.close()


def held(gate: GateProcess, note: str, subject: str = "holder") -> tuple[str, str]:
    """A held production write; the requester's token and the approval's id."""
    bot = gate.token(subject, "triage", environment="prod")
    wait = {"Prefer": "wait=0"}
    answered = send(gate, "PATCH", f"{INCIDENTS}/{INCIDENT}", bot, {"work_notes": note}, wait)
    assert answered.code == "approval_required", answered.body
    return bot, str(answered.body["approval"]["id"])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/approvals"),
        ("GET", "/v1/enforcement"),
        ("GET", "/v1/switches"),
        ("POST", "/v1/calls"),
        ("GET", "/v1/calls/abc"),
        ("GET", "/v1/nosuch"),
        ("GET", INCIDENTS),
    ],
)
def test_operation_is_refused_when_nobody_asks(gate: GateProcess, method: str, path: str) -> None:
    answered = send(gate, method, path)
    assert (answered.status, answered.code) == (401, "identity_missing")
    assert answered.headers["content-type"] == "application/problem+json"
    assert answered.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/approvals", None),
        ("GET", "/v1/enforcement", None),
        ("GET", "/v1/switches", None),
        ("PUT", "/v1/switches/tenant/acme", {"reason": "r"}),
        ("DELETE", "/v1/switches/tenant/acme", None),
        ("POST", "/v1/calls", {"instance": "servicenow", "action": "incident.list"}),
        ("POST", "/v1/approvals/x/votes", {"decision": "approve", "action_digest": "d"}),
    ],
)
def test_operation_is_denied_when_no_role_grants_it(gate: GateProcess, method: str, path: str, body: Any) -> None:
    answered = send(gate, method, path, gate.token("nobody", "stranger"), body)
    assert (answered.status, answered.code) == (403, "denied")
    assert answered.body["reasons"][0]["code"] == "no_rule_matched"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/health/live", 200), ("/health/ready", 200), ("/openapi.json", 200), ("/", 404), ("/c/nosuch/x", 401)],
)
def test_path_is_answered_without_a_token(gate: GateProcess, path: str, status: int) -> None:
    assert send(gate, "GET", path).status == status


def test_description_names_every_operation(gate: GateProcess) -> None:
    paths = send(gate, "GET", "/openapi.json").body["paths"]
    assert "/v1/approvals/{id}/votes" in paths
    assert "put" in paths["/v1/switches/tenant/{tenant}/{kind}/{name}"]


def test_call_is_made_and_followed_when_allowed(gate: GateProcess) -> None:
    bot = gate.token("caller", "triage")
    wanted = {"instance": "servicenow", "action": "incident.list", "arguments": {"sysparm_limit": 1}}
    made = send(gate, "POST", "/v1/calls", bot, wanted)
    assert made.status == 200, made.body
    assert made.body["state"] == "done"
    assert made.body["response"]["result"]
    followed = send(gate, "GET", f"/v1/calls/{made.body['id']}", bot).body
    assert (followed["state"], followed["status"], followed["effect"]) == ("done", 200, "ALLOW")
    response = send(gate, "GET", f"/v1/calls/{made.body['id']}/response", bot)
    assert response.body["result"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param(b"{", 400, "malformed_request", id="no JSON"),
        pytest.param(b'{"a":1,"a":2}', 400, "malformed_request", id="a key twice"),
        pytest.param(b"[]", 400, "malformed_request", id="no object"),
        pytest.param(b'{"instance":"servicenow","action":"x","b":1}', 422, "arguments_invalid", id="unknown member"),
        pytest.param(b'{"instance":"servicenow"}', 422, "arguments_invalid", id="no action"),
        pytest.param(b'{"instance":"nosuch","action":"x"}', 404, "not_found", id="no such instance"),
        pytest.param(b'{"instance":"servicenow","action":"nosuch"}', 403, "unclassified", id="no such action"),
        pytest.param(
            b'{"instance":"servicenow","action":"incident.list","arguments":{"x":1}}', 422, "arguments_invalid",
            id="undeclared argument",
        ),
    ],
)  # fmt: skip
def test_call_is_refused_before_anything_is_sent(gate: GateProcess, body: bytes, status: int, code: str) -> None:
    answered = send(gate, "POST", "/v1/calls", gate.token("caller", "triage"), body)
    assert (answered.status, answered.code) == (status, code)


def test_held_call_is_accepted_with_a_place_to_look(gate: GateProcess) -> None:
    bot = gate.token("poller", "triage", environment="prod")
    wanted = {
        "instance": "servicenow",
        "action": "incident.update",
        "arguments": {"sys_id": INCIDENT, "work_notes": "p"},
    }
    made = send(gate, "POST", "/v1/calls", bot, wanted)
    assert (made.status, made.body["state"]) == (202, "held")
    assert send(gate, "GET", made.headers["location"], bot).body["state"] == "held"
    approver = gate.token("ann", "approver", environment="prod")
    approval = made.body["approval"]["id"]
    assert tidegate("approvals", "approve", approval, token=approver, gate=gate.url).returncode == 0
    assert send(gate, "GET", made.headers["location"], bot).body["state"] == "approved"
    again = send(gate, "POST", "/v1/calls", bot, wanted)
    assert (again.status, again.body["state"]) == (200, "done"), again.body
    assert send(gate, "POST", "/v1/calls", bot, wanted).body["state"] == "held"


def test_proxied_call_is_accepted_when_it_asks_for_an_answer_later(gate: GateProcess) -> None:
    bot = gate.token("later", "triage", environment="prod")
    later = {"Prefer": "respond-async"}
    answered = send(gate, "PATCH", f"{INCIDENTS}/{INCIDENT}", bot, {"work_notes": "later"}, later)
    assert answered.status == 202
    assert answered.headers["location"] == f"/v1/calls/{answered.headers['tidegate-call']}"
    assert answered.headers["preference-applied"] == "respond-async"


def test_repeat_attaches_to_the_open_approval(gate: GateProcess) -> None:
    assert held(gate, "twice")[1] == held(gate, "twice")[1]


def test_vote_is_refused_when_it_names_another_digest(gate: GateProcess) -> None:
    _, approval = held(gate, "digest")
    vote = {"decision": "approve", "reason": "", "action_digest": "sha256:other"}
    path = f"/v1/approvals/{approval}/votes"
    answered = send(gate, "POST", path, gate.token("ann", "approver", environment="prod"), vote)
    assert (answered.status, answered.code) == (409, "stale_state")


def test_vote_is_refused_when_the_requester_casts_it(gate: GateProcess) -> None:
    both = gate.token("selfish", "triage", "approver", environment="prod")
    wait = {"Prefer": "wait=0"}
    asked = send(gate, "PATCH", f"{INCIDENTS}/{INCIDENT}", both, {"work_notes": "mine"}, wait)
    approval = asked.body["approval"]
    vote = {"decision": "approve", "reason": "", "action_digest": approval["action_digest"]}
    answered = send(gate, "POST", f"/v1/approvals/{approval['id']}/votes", both, vote)
    assert answered.status == 403


def test_denied_call_says_why_when_it_is_sent_and_waits(gate: GateProcess) -> None:
    bot, approval = held(gate, "refuse me")
    approver = gate.token("ann", "approver", environment="prod")
    done = tidegate("approvals", "deny", approval, "--reason", "not today", token=approver, gate=gate.url)
    assert done.returncode == 0, done.stderr
    assert send(gate, "GET", f"/v1/approvals/{approval}", bot).body["state"] == "denied"


def test_approval_of_another_tenant_is_absent(gate: GateProcess) -> None:
    _, approval = held(gate, "tenant")
    stranger = gate.token("eve", "approver", environment="prod", tenant="evil")
    assert send(gate, "GET", f"/v1/approvals/{approval}", stranger).code == "not_found"
    assert send(gate, "GET", "/v1/approvals", stranger).body["items"] == []


def test_requester_withdraws_its_own_call(gate: GateProcess) -> None:
    bot, approval = held(gate, "withdraw")
    assert send(gate, "POST", f"/v1/approvals/{approval}/withdraw", bot).body["state"] == "withdrawn"


def test_switch_stops_calls_and_clearing_lets_them_go(gate: GateProcess) -> None:
    operator = gate.token("op", "operator", tenant="switched")
    bot = gate.token("caller", "triage", tenant="switched")
    path = "/v1/switches/tenant/switched/connector/servicenow"
    assert send(gate, "PUT", path, operator, {"reason": "drill"}).status == 200
    assert send(gate, "GET", INCIDENTS, bot).code == "killed"
    assert send(gate, "GET", "/v1/switches", operator).body["items"][0]["reason"] == "drill"
    assert send(gate, "DELETE", path, operator).status == 200
    assert send(gate, "GET", INCIDENTS, bot).status == 200
    assert send(gate, "DELETE", path, operator).code == "not_found"


@pytest.mark.parametrize("scope", ["tenant/other", "tenant/switched/nosuch/x", "switched"])
def test_switch_is_not_found_when_its_scope_is_not_the_callers(gate: GateProcess, scope: str) -> None:
    operator = gate.token("op", "operator", tenant="switched")
    assert send(gate, "PUT", f"/v1/switches/{scope}", operator, {"reason": "r"}).code == "not_found"


def test_enforcement_names_bundle_engine_and_instances(gate: GateProcess) -> None:
    document = send(gate, "GET", "/v1/enforcement", gate.token("op", "operator")).body
    assert document["engines"] == ["wasm"]
    assert document["bundles"][0]["freshness"] == "local"
    assert "servicenow" in [instance["name"] for instance in document["instances"]]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        pytest.param("PATCH", "/v1/approvals", "method_not_allowed", id="method of a list"),
        pytest.param("GET", "/v1/calls", "method_not_allowed", id="calls are made by POST"),
        pytest.param("GET", "/v1/approvals?state=nosuch", "malformed_request", id="no such state"),
        pytest.param("GET", "/v1/approvals?state=a&state=b", "malformed_request", id="a parameter twice"),
        pytest.param("GET", "/v1/approvals/nosuch", "not_found", id="no such approval"),
        pytest.param("GET", "/v1/../v1/approvals", "malformed_request", id="dot segments"),
        pytest.param("GET", "/v1/%2e%2e/approvals", "malformed_request", id="encoded dot segments"),
    ],
)
def test_request_is_refused_with_a_stable_code(gate: GateProcess, method: str, path: str, code: str) -> None:
    assert send(gate, method, path, gate.token("op", "operator")).code == code


def test_answer_of_a_call_names_decision_and_bundle(gate: GateProcess) -> None:
    headers = send(gate, "GET", INCIDENTS, gate.token("caller", "triage")).headers
    assert headers["tidegate-effect"] == "ALLOW"
    assert headers["content-security-policy"] == "sandbox"
    assert {"tidegate-call", "tidegate-decision", "tidegate-bundle"} <= headers.keys()


def test_key_gives_the_first_answer_again_and_refuses_another_request(gate: GateProcess) -> None:
    bot = gate.token("keyed", "triage")
    key = {"Idempotency-Key": "k-1"}
    path = f"{INCIDENTS}/{INCIDENT}"
    first = send(gate, "PATCH", path, bot, {"work_notes": "once"}, key)
    again = send(gate, "PATCH", path, bot, {"work_notes": "once"}, key)
    assert first.status == again.status == 200
    assert first.body == again.body
    other = send(gate, "PATCH", path, bot, {"work_notes": "other"}, key)
    assert (other.status, other.code) == (422, "idempotency_mismatch")
