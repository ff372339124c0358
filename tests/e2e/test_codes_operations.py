"""Operations of /v1 that are refused to a known caller: one code in the answer, the record, the log line, the metric.

And what such an answer never says: where the gate keeps its ledger.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.edge.problem import CODES
from tests.e2e.calling import JSON_TYPE, LIST, call, counted, host, logged, metrics, recorded, until
from tests.e2e.harness import GateProcess, init_directory, tidegate
from tests.e2e.raw import Answer, exchange, request

SWITCHES = "/v1/switches/tenant/acme"
CALL = {"instance": "servicenow", "action": "incident.list", "arguments": {}}
READ, VOTE = "tidegate.approval.read", "tidegate.approval.vote"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GateProcess]:
    """A gate of its own, so that its counters move for one reason."""
    with GateProcess.start(init_directory(tmp_path_factory.mktemp("alone") / "gate")) as running:
        yield running


REFUSED = [
    pytest.param("denied", "PUT", SWITCHES, {"reason": "r"}, "triage", "tidegate.switch.set", id="no rule sets it"),
    pytest.param("denied", "DELETE", SWITCHES, None, "triage", "tidegate.switch.clear", id="no rule clears it"),
    pytest.param("denied", "GET", "/v1/enforcement", None, "nobody", "tidegate.enforcement.read", id="no rule reads"),
    pytest.param("denied", "POST", "/v1/calls", CALL, "nobody", "tidegate.call.create", id="no rule calls"),
    pytest.param("not_found", "GET", "/v1/approvals/none", None, "operator", READ, id="no such approval"),
    pytest.param("not_found", "GET", "/v1/calls/none", None, "operator", "tidegate.call.read", id="no such call"),
    pytest.param("not_found", "GET", "/v1/nothing", None, "operator", "", id="no such noun"),
    pytest.param("not_found", "PUT", "/v1/switches/tenant/evil", {}, "operator", "", id="another tenant's switch"),
    pytest.param("arguments_invalid", "POST", "/v1/approvals/x/votes", {"odd": 1}, "operator", VOTE, id="odd members"),
    pytest.param("method_not_allowed", "PATCH", "/v1/approvals", None, "operator", "", id="no such method"),
    pytest.param("malformed_request", "GET", "/v1/approvals?state=odd", None, "operator", READ, id="no such state"),
]


@pytest.mark.parametrize(("code", "method", "target", "body", "role", "action"), REFUSED)
def test_refused_operation_has_one_code_everywhere_when_its_caller_is_known(
    alone: GateProcess, code: str, method: str, target: str, body: object, role: str, action: str
) -> None:
    token = alone.token("somebody", role)
    before = counted(alone, "tidegate_calls_total", code, action or "other")
    answer = call(alone, method, target, body, token=token)
    assert (answer.status, answer.code) == (CODES[code].status, code)
    named = answer.json()["call"]
    (record,) = _records(alone, named)
    assert (record["kind"], record["log"]) == ("refusal", ["acme", "ops"])
    assert (record["action"]["code"], record["action"]["name"]) == (code, action)
    assert (record["subject"]["id"], record["action"]["connector"]) == ("somebody", "tidegate")
    line = until("the operation is logged", lambda: logged(alone, named))
    assert (line["code"], line["status"], line["event"]) == (code, CODES[code].status, "call")
    assert (line["tenant"], line["subject"], line["action"]) == ("acme", "somebody", action)
    assert counted(alone, "tidegate_calls_total", code, action or "other") == before + 1
    assert any('tenant="acme"' in name and f'code="{code}"' in name for name in metrics(alone))


def _records(gate: GateProcess, named: str) -> list[dict[str, Any]]:
    return recorded(gate, Answer(0, {"tidegate-call": named}, b""))


UNKNOWN = [
    pytest.param("identity_missing", {}, id="no token"),
    pytest.param("identity_invalid", {"Authorization": "Bearer not.a.token"}, id="a token that is none"),
]


@pytest.mark.parametrize(("code", "headers"), UNKNOWN)
def test_refused_operation_is_counted_and_not_recorded_when_its_caller_is_unknown(
    alone: GateProcess, code: str, headers: dict[str, str]
) -> None:
    before = counted(alone, "tidegate_unauthenticated_total", code)
    answer = exchange(alone.url, request("GET", "/v1/approvals", {"Host": host(alone), **headers}))
    assert (answer.status, answer.code) == (401, code)
    assert _records(alone, answer.json()["call"]) == []
    assert counted(alone, "tidegate_unauthenticated_total", code) == before + 1
    line = until("the refusal is logged", lambda: logged(alone, answer.json()["call"]))
    assert (line["event"], line["tenant"]) == ("refused_unidentified", None)


def test_operation_is_counted_and_logged_and_not_recorded_when_it_is_done(alone: GateProcess) -> None:
    before = counted(alone, "tidegate_calls_total", "ok", "tidegate.switch.read")
    answer = call(alone, "GET", "/v1/switches", token=alone.token("op", "operator"))
    assert answer.status == 200
    assert counted(alone, "tidegate_calls_total", "ok", "tidegate.switch.read") == before + 1


# --- what is wrong inside stays inside ----------------------------------------------------------------------------
@pytest.fixture
def unrecorded(alone: GateProcess) -> Iterator[GateProcess]:
    """That gate while its ledger's file has a second name, under which somebody else might change it."""
    file = alone.directory / "state" / "tidegate.db"
    second = file.with_name("second.db")
    second.hardlink_to(file)
    try:
        yield alone
    finally:
        second.unlink()
        ready = request("GET", "/health/ready", {"Host": host(alone)})
        until("the gate is ready again", lambda: True if exchange(alone.url, ready).status == 200 else None)


PLACES = [
    pytest.param("PATCH", f"{LIST}/a1", {"state": "2"}, "triage", id="a call"),
    pytest.param("GET", LIST, None, "triage", id="a read"),
    pytest.param("PUT", SWITCHES, {"reason": "r"}, "operator", id="an operation"),
    pytest.param("POST", "/v1/calls", CALL, "triage", id="a governed call"),
]


@pytest.mark.parametrize(("method", "target", "body", "role"), PLACES)
def test_ledger_unavailable_names_no_file_to_the_caller_and_all_of_it_in_the_log(
    unrecorded: GateProcess, method: str, target: str, body: object, role: str
) -> None:
    token = unrecorded.token("somebody", role)
    instance = {"headers": JSON_TYPE} if body is None else {}
    answer = call(unrecorded, method, target, body, token=token, **instance)
    assert (answer.status, answer.code) == (503, "ledger_unavailable")
    assert str(unrecorded.directory).encode() not in answer.body
    assert b"tidegate.db" not in answer.body
    line = until("the failure is logged", lambda: logged(unrecorded, answer.json()["call"]))
    assert str(unrecorded.directory) in line["fault"]


def test_vote_is_ledger_unavailable_when_no_record_can_be_written(alone: GateProcess) -> None:
    token = alone.token("bot", "triage", environment="prod")
    body = {"short_description": "held while records can be written"}
    held = call(alone, "POST", LIST, body, token=token, headers={"Prefer": "wait=0"}).json()["approval"]
    file = alone.directory / "state" / "tidegate.db"
    second = file.with_name("third.db")
    second.hardlink_to(file)
    try:
        vote = {"decision": "approve", "reason": "", "action_digest": held["action_digest"]}
        maria = alone.token("maria", "approver", environment="prod")
        answer = call(alone, "POST", f"/v1/approvals/{held['id']}/votes", vote, token=maria)
    finally:
        second.unlink()
    assert (answer.status, answer.code) == (503, "ledger_unavailable")
    assert b"tidegate.db" not in answer.body
    until("the vote counts", lambda: _voted(alone, held["id"], vote, maria))


def _voted(gate: GateProcess, approval: str, vote: dict[str, str], token: str) -> bool | None:
    return call(gate, "POST", f"/v1/approvals/{approval}/votes", vote, token=token).status == 200 or None


def test_refusal_is_in_the_ledger_that_verifies(alone: GateProcess) -> None:
    assert tidegate("ledger", "verify", "--config", str(alone.config)).returncode == 0
