"""``/v1/simulate`` and ``/v1/shadow`` through a real socket."""

from __future__ import annotations

import copy
import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.candidates import comparing_gate
from tests.e2e.harness import GateProcess, StandIns, edit_config, read_config
from tests.integration.test_v1 import INCIDENT, INCIDENTS, Answered, send

OWN_TYPE = "user"
"""The development issuer's subjects are people."""
SIMULATE = "/v1/simulate"
DELETE = {"instance": "servicenow", "action": "incident.delete", "arguments": {"sys_id": INCIDENT}}
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 20.0


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, stand_ins: StandIns) -> Iterator[GateProcess]:
    """A gate that keeps inputs and has a shadow."""
    with comparing_gate(tmp_path_factory.mktemp("comparing") / "gate", stand_ins) as running:
        yield running


def simulate(gate: GateProcess, body: Any, *roles: str, subject: str = "asker", **more: Any) -> Answered:
    return send(gate, "POST", SIMULATE, gate.token(subject, *roles, **more), body)


def whole(**changes: Any) -> dict[str, Any]:
    """A question about the auditor `asker` of the gate's tenant."""
    facts = {"tenant": "acme", "workspace": "ops", "environment": "test", "roles": ["auditor"], "amr": []}
    document: dict[str, Any] = {
        "v": 1,
        "subject": {"type": "agent", "id": "asker", "properties": facts},
        "action": {"name": "servicenow.incident.delete", "properties": {"mode": "write"}},
        "resource": {
            "type": "incident",
            "id": "1",
            "properties": {"connector": "servicenow", "instance": "servicenow"},
        },
        "args": {},
        "context": {},
    }
    document["subject"]["properties"].update(changes)
    return copy.deepcopy(document)


def test_simulation_decides_as_a_call_would_be_decided(gate: GateProcess) -> None:
    answered = simulate(gate, {**DELETE, "subject": {"id": "bot", "roles": ["triage"]}}, "auditor")
    assert answered.status == 200, answered.body
    assert answered.body["decision"]["effect"] == "DENY"
    assert answered.body["rules"] == [{"rule": "policies.servicenow.deny", "code": "no_deletes"}]
    assert answered.body["engine"] == "wasm" and answered.body["missing_facts"] == []
    called = send(gate, "POST", "/v1/calls", gate.token("bot", "triage"), DELETE)
    assert [reason["code"] for reason in called.body["reasons"]] == ["no_deletes"]
    assert answered.body["bundle"]["revision"] == called.headers["tidegate-bundle"]


def test_simulation_shows_a_hold_with_its_chain(gate: GateProcess) -> None:
    update = {**DELETE, "action": "servicenow.incident.update", "arguments": {"sys_id": INCIDENT, "work_notes": "w"}}
    answered = simulate(gate, {**update, "subject": {"roles": ["triage"], "environment": "prod"}}, "publisher")
    assert answered.body["decision"]["effect"] == "REQUIRE_HITL"
    assert answered.body["decision"]["obligations"]["approval"]["chains"] == ["one-approver"]


def test_simulation_opens_no_approval(gate: GateProcess) -> None:
    update = {**DELETE, "action": "incident.update", "arguments": {"sys_id": INCIDENT, "work_notes": "never"}}
    body = {**update, "subject": {"id": "ghost", "roles": ["triage"], "environment": "prod"}}
    answered = simulate(gate, body, "auditor", tenant="quiet")
    assert answered.body["decision"]["effect"] == "REQUIRE_HITL"
    approver = gate.token("ann", "approver", tenant="quiet")
    assert send(gate, "GET", "/v1/approvals", approver).body["items"] == []


def test_operator_simulates_for_itself_without_names_of_rules(gate: GateProcess) -> None:
    answered = simulate(gate, DELETE, "operator")
    assert answered.status == 200, answered.body
    assert (answered.body["rules"], answered.body["missing_facts"]) == (None, None)
    assert "policies." not in json.dumps(answered.body)


def test_whole_question_about_oneself_needs_no_more_authority(gate: GateProcess) -> None:
    question = whole(roles=["operator"])
    question["subject"]["type"] = OWN_TYPE
    assert simulate(gate, {"input": question}, "operator").status == 200


@pytest.mark.parametrize(
    ("roles", "body"),
    [
        pytest.param(("triage",), DELETE, id="a caller"),
        pytest.param(("approver",), DELETE, id="an approver"),
        pytest.param((), DELETE, id="nobody"),
        pytest.param(("operator",), {**DELETE, "subject": {"roles": ["triage"]}}, id="an operator for another role"),
        pytest.param(("operator",), {**DELETE, "subject": {"id": "asker"}}, id="an operator who names a subject"),
        pytest.param(("operator",), {"input": whole()}, id="an operator with an auditor's facts"),
        pytest.param(
            ("operator",), {"input": whole(roles=["operator"], acr="phr")}, id="an operator with one fact more"
        ),
        pytest.param(("auditor",), {"input": whole(tenant="evil")}, id="another tenant"),
        pytest.param(("auditor",), {"input": whole(workspace="other")}, id="another workspace"),
    ],
)
def test_simulation_is_denied_when_asked_by(gate: GateProcess, roles: tuple[str, ...], body: Any) -> None:
    answered = simulate(gate, body, *roles)
    assert (answered.status, answered.code) == (403, "denied"), answered.body


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param(b"{", 400, "malformed_request", id="no JSON"),
        pytest.param(b'{"input":{},"input":{}}', 400, "malformed_request", id="a member twice"),
        pytest.param({}, 422, "arguments_invalid", id="nothing"),
        pytest.param({"input": {}}, 422, "arguments_invalid", id="an empty question"),
        pytest.param({"input": {**whole(), "argz": {}}}, 422, "arguments_invalid", id="a misspelt part"),
        pytest.param(
            {"input": whole(), "instance": "servicenow"}, 422, "arguments_invalid", id="two questions at once"
        ),
        pytest.param({"call": "x", "subject": {}}, 422, "arguments_invalid", id="a call with another subject"),
        pytest.param({"call": ""}, 422, "arguments_invalid", id="a call without a name"),
        pytest.param({"call": "nosuch"}, 404, "not_found", id="a call that is not there"),
        pytest.param({**DELETE, "instance": "nosuch"}, 404, "not_found", id="no such instance"),
        pytest.param({**DELETE, "action": "nosuch"}, 403, "unclassified", id="no such action"),
        pytest.param({**DELETE, "arguments": {"x": 1}}, 422, "arguments_invalid", id="an undeclared argument"),
        pytest.param({**DELETE, "arguments": []}, 422, "arguments_invalid", id="arguments that are a list"),
        pytest.param({**DELETE, "subject": []}, 422, "arguments_invalid", id="a subject that is a list"),
        pytest.param({**DELETE, "subject": {"tenant": "evil"}}, 422, "arguments_invalid", id="a subject's tenant"),
        pytest.param({**DELETE, "subject": {"roles": "triage"}}, 422, "arguments_invalid", id="roles that are text"),
        pytest.param({**DELETE, "subject": {"auth_time": True}}, 422, "arguments_invalid", id="a time that is true"),
        pytest.param({**DELETE, "bundle": "other"}, 422, "arguments_invalid", id="an unknown member"),
    ],
)
def test_simulation_is_refused_when_it_gives(gate: GateProcess, body: Any, status: int, code: str) -> None:
    answered = simulate(gate, body, "auditor")
    assert (answered.status, answered.code) == (status, code), answered.body


@pytest.mark.parametrize("path", [SIMULATE, "/v1/shadow"])
def test_operation_is_refused_when_nobody_asks_or_the_method_is_wrong(gate: GateProcess, path: str) -> None:
    method, other = ("POST", "GET") if path == SIMULATE else ("GET", "POST")
    assert send(gate, method, path).code == "identity_missing"
    assert send(gate, other, path, gate.token("asker", "auditor")).code == "method_not_allowed"


def denied_call(gate: GateProcess, subject: str, **more: Any) -> str:
    """The id of a delete that was denied."""
    answered = send(gate, "POST", "/v1/calls", gate.token(subject, "triage", **more), DELETE)
    assert answered.code == "denied", answered.body
    return str(answered.body["call"])


def test_recorded_call_is_decided_again_from_what_was_kept(gate: GateProcess) -> None:
    call = denied_call(gate, "again")
    answered = simulate(gate, {"call": call}, "auditor")
    assert answered.status == 200, answered.body
    assert answered.body["decision"]["effect"] == "DENY"
    assert (answered.body["recorded"]["effect"], answered.body["recorded"]["now"]) == ("DENY", "same")
    assert answered.body["recorded"]["reasons"][0]["code"] == "no_deletes"


def test_recorded_call_of_another_is_denied_without_authority(gate: GateProcess) -> None:
    assert simulate(gate, {"call": denied_call(gate, "other")}, "operator").code == "denied"


def test_recorded_call_of_another_tenant_is_absent(gate: GateProcess) -> None:
    call = denied_call(gate, "tenant")
    assert simulate(gate, {"call": call}, "auditor", tenant="evil").code == "not_found"


def await_items(gate: GateProcess, token: str, path: str = "/v1/shadow") -> dict[str, Any]:
    """The list once it has an item; comparing comes after the answer."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        listed: dict[str, Any] = send(gate, "GET", path, token).body
        if listed["items"]:
            return listed
        time.sleep(POLL_SECONDS)
    pytest.fail("no difference within the time")


def test_shadow_lists_looser_and_stricter_calls_of_the_own_tenant(gate: GateProcess) -> None:
    call = denied_call(gate, "shadowed", tenant="shadowed")
    bot = gate.token("shadowed", "triage", tenant="shadowed")
    assert send(gate, "GET", INCIDENTS, bot).status == 200
    auditor = gate.token("aud", "auditor", tenant="shadowed")
    looser = await_items(gate, auditor, "/v1/shadow?kind=loosening")
    (item,) = looser["items"]
    assert (item["call"], item["kind"], item["action"]) == (call, "loosening", "servicenow.incident.delete")
    assert (item["before"]["effect"], item["after"]["effect"]) == ("DENY", "ALLOW")
    (stricter,) = await_items(gate, auditor, "/v1/shadow?kind=tightening")["items"]
    assert stricter["after"]["reasons"][0]["code"] == "lists_closed"
    listed = send(gate, "GET", "/v1/shadow", auditor).body
    assert listed["counts"] == {"loosening": 1, "tightening": 1}
    assert listed["shadow"]["sequence"] == 90 and listed["error"] is None
    assert (listed["offered"], listed["dropped"], listed["next"]) == (2, 0, None)
    assert send(gate, "GET", "/v1/shadow", gate.token("aud", "auditor", tenant="empty")).body["items"] == []
    assert INCIDENT not in json.dumps(listed)


@pytest.mark.parametrize("query", ["kind=same", "kind=reasons", "kind=", "cursor=x", "cursor=0", "cursor=1&cursor=2"])
def test_shadow_is_refused_when_asked_with(gate: GateProcess, query: str) -> None:
    answered = send(gate, "GET", f"/v1/shadow?{query}", gate.token("aud", "auditor"))
    assert answered.code == "malformed_request"


@pytest.mark.parametrize("roles", [("triage",), ("approver",), ()])
def test_shadow_is_denied_when_no_role_grants_it(gate: GateProcess, roles: tuple[str, ...]) -> None:
    assert send(gate, "GET", "/v1/shadow", gate.token("asker", *roles)).code == "denied"


def test_shadow_is_counted_in_metrics(gate: GateProcess) -> None:
    denied_call(gate, "metered", tenant="metered")
    await_items(gate, gate.token("aud", "auditor", tenant="metered"))
    url = f"http://{read_config(gate.directory)['listen']['metrics']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answered:
        text = answered.read().decode()
    assert 'tidegate_shadow_differences_total{kind="loosening"}' in text
    assert "tidegate_shadow_compared_total" in text and "tidegate_shadow_dropped_total 0.0" in text


def test_gate_goes_on_without_a_shadow_when_it_cannot_be_loaded(gate: GateProcess) -> None:
    auditor = gate.token("aud", "auditor")
    directory: Path = gate.directory
    (directory / "broken.tar.gz").write_bytes(b"no archive")
    edit_config(directory, {"shadow": {"source": "file:broken.tar.gz"}})
    try:
        assert gate.reload()
        listed = send(gate, "GET", "/v1/shadow", auditor).body
        assert listed["shadow"] is None and listed["error"]["code"] == "bundle_archive_invalid"
        assert send(gate, "GET", INCIDENTS, gate.token("caller", "triage")).status == 200
    finally:
        edit_config(directory, {"shadow": {"source": "file:candidate.tar.gz"}})
        assert gate.reload()
    assert send(gate, "GET", "/v1/shadow", auditor).body["shadow"]["sequence"] == 90
