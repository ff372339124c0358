"""The codes of refusals as a client sees them, each produced over a real socket, with nothing lost behind it."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.calling import JSON_TYPE, LIST, call, host, meanwhile, until
from tests.e2e.harness import GateProcess, edit_config, free_port, init_directory, tidegate
from tests.e2e.hostile import HostileUpstream
from tests.e2e.raw import Answer, exchange, request

SHORT_LIMITS = {
    "header_read_seconds": 2,
    "body_read_seconds": 2,
    "upstream_answer_seconds": 2,
    "upstream_connect_seconds": 2,
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[HostileUpstream]:
    """An upstream that misbehaves on request."""
    with HostileUpstream.start() as running:
        yield running


@pytest.fixture(scope="module")
def harsh(tmp_path_factory: pytest.TempPathFactory, upstream: HostileUpstream) -> Iterator[GateProcess]:
    """A gate with short limits in front of the hostile upstream."""
    directory = init_directory(tmp_path_factory.mktemp("harsh") / "gate")
    here = f"http://127.0.0.1:{upstream.port}"
    edit_config(
        directory,
        {
            "limits": SHORT_LIMITS,
            "instances": {
                "servicenow": {"base_url": here},
                "webhook": {"base_url": f"http://127.0.0.1:{free_port()}"},
                "github": {"base_url": "http://169.254.169.254"},
            },
        },
    )
    with GateProcess.start(directory) as running:
        yield running


# --- policy and classification ------------------------------------------------------------------------------------
def test_denied_when_no_rule_matches(gate: GateProcess) -> None:
    answer = call(gate, "POST", LIST, {"short_description": "x"}, token=gate.token("auditor-1", "auditor"))
    assert (answer.status, answer.code) == (403, "denied")
    assert answer.json()["reasons"][0]["code"] == "no_rule_matched"
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["tidegate-effect"] == "DENY"


def test_denied_with_the_policys_reason_when_a_rule_denies(gate: GateProcess) -> None:
    answer = call(gate, "DELETE", f"{LIST}/a1", token=gate.token("op", "operator"))
    assert (answer.status, answer.code) == (403, "denied")
    assert "no_deletes" in [reason["code"] for reason in answer.json()["reasons"]]


UNCLASSIFIED = [
    pytest.param("GET", "/c/servicenow/api/now/table/sys_user", id="an unknown table"),
    pytest.param("PUT", "/c/servicenow/api/now/table/incident", id="an unknown method"),
    pytest.param("GET", "/c/servicenow/other/table/incident", id="outside the base path"),
]


@pytest.mark.parametrize(("method", "target"), UNCLASSIFIED)
def test_unclassified_when_no_action_matches(gate: GateProcess, method: str, target: str) -> None:
    answer = call(gate, method, target)
    assert (answer.status, answer.code) == (403, "unclassified")


def test_arguments_invalid_names_each_place_when_the_schema_refuses(gate: GateProcess) -> None:
    answer = call(gate, "POST", LIST, {"short_description": 7, "undeclared": True})
    assert (answer.status, answer.code) == (422, "arguments_invalid")
    assert all(error["pointer"].startswith("/") or error["pointer"] == "" for error in answer.json()["errors"])


NOTHING = [
    pytest.param("/v1/nothing", id="an unknown noun"),
    pytest.param("/nothing", id="an unknown path"),
    pytest.param("/c/nobody/api/now/table/incident", id="an unknown instance"),
]


@pytest.mark.parametrize("target", NOTHING)
def test_not_found_when_the_path_is_nothing(gate: GateProcess, target: str) -> None:
    answer = call(gate, "GET", target)
    assert (answer.status, answer.code) == (404, "not_found")


def test_method_not_allowed_when_the_path_takes_another(gate: GateProcess) -> None:
    answer = call(gate, "DELETE", "/v1/enforcement")
    assert (answer.status, answer.code) == (405, "method_not_allowed")


# --- people -------------------------------------------------------------------------------------------------------
def _hold(gate: GateProcess, text: str, wait_seconds: int = 0) -> Answer:
    token = gate.token("triage-bot", "triage", environment="prod")
    headers = {"Prefer": f"wait={wait_seconds}"}
    return call(gate, "POST", LIST, {"short_description": text}, token=token, headers=headers)


def _vote(gate: GateProcess, approval: dict[str, Any], decision: str, token: str, digest: str = "") -> Answer:
    vote = {"decision": decision, "reason": "tested", "action_digest": digest or approval["action_digest"]}
    return call(gate, "POST", f"/v1/approvals/{approval['id']}/votes", vote, token=token)


def _pending(gate: GateProcess, text: str, token: str) -> dict[str, Any] | None:
    """The pending approval of the call with this text, once it is there."""
    items = call(gate, "GET", "/v1/approvals?state=pending", token=token).json()["items"]
    return next((item for item in items if item["arguments"].get("short_description") == text), None)


def test_approval_required_then_runs_once_when_a_person_approves(gate: GateProcess) -> None:
    held = _hold(gate, "held and released")
    assert (held.status, held.code) == (403, "approval_required")
    maria = gate.token("maria", "approver", environment="prod")
    assert _vote(gate, held.json()["approval"], "approve", maria).status == 200
    assert _hold(gate, "held and released").status == 201
    again = _hold(gate, "held and released")
    assert (again.status, again.code) == (403, "approval_required")
    assert again.json()["approval"]["id"] != held.json()["approval"]["id"]


def test_approval_denied_when_a_person_denies_a_waiting_call(gate: GateProcess) -> None:
    text = "held and denied"
    maria = gate.token("maria", "approver", environment="prod")
    gate.token("triage-bot", "triage", environment="prod")
    with meanwhile(lambda: _hold(gate, text, wait_seconds=30)) as answers:
        approval = until("the call is held", lambda: _pending(gate, text, maria))
        assert _vote(gate, approval, "deny", maria).status == 200
    assert (answers[0].status, answers[0].code) == (403, "approval_denied")
    assert answers[0].json()["detail"] == "tested"
    assert answers[0].json()["approval"]["id"] == approval["id"]


def test_call_is_held_anew_when_it_is_repeated_after_a_denial(gate: GateProcess) -> None:
    held = _hold(gate, "denied and repeated")
    maria = gate.token("maria", "approver", environment="prod")
    assert _vote(gate, held.json()["approval"], "deny", maria).status == 200
    again = _hold(gate, "denied and repeated")
    assert (again.status, again.code) == (403, "approval_required")
    assert again.json()["approval"]["id"] != held.json()["approval"]["id"]


VOTERS = [
    pytest.param("triage-bot", ("triage", "approver"), id="the caller itself"),
    pytest.param("intern", ("triage",), id="somebody whom no rule lets vote"),
]


@pytest.mark.parametrize(("subject", "roles"), VOTERS)
def test_vote_is_denied_when_the_voter_may_not_vote(gate: GateProcess, subject: str, roles: tuple[str, ...]) -> None:
    held = _hold(gate, f"not for {subject}")
    answer = _vote(gate, held.json()["approval"], "approve", gate.token(subject, *roles, environment="prod"))
    assert (answer.status, answer.code) == (403, "denied")


def test_vote_refused_when_the_voter_lacks_the_steps_role(gate: GateProcess) -> None:
    held = _hold(gate, "for approvers alone")
    answer = _vote(gate, held.json()["approval"], "approve", gate.token("op", "operator", environment="prod"))
    assert (answer.status, answer.code) == (403, "vote_refused")
    assert _hold(gate, "for approvers alone").code == "approval_required"


def test_stale_state_when_the_vote_is_on_another_digest(gate: GateProcess) -> None:
    held = _hold(gate, "another digest")
    maria = gate.token("maria", "approver", environment="prod")
    answer = _vote(gate, held.json()["approval"], "approve", maria, "sha256:" + "0" * 64)
    assert (answer.status, answer.code) == (409, "stale_state")


def test_not_found_when_the_approval_is_another_tenants(gate: GateProcess) -> None:
    held = _hold(gate, "of acme alone")
    stranger = gate.token("eve", "approver", environment="prod", tenant="globex")
    path = f"/v1/approvals/{held.json()['approval']['id']}"
    other, nothing = call(gate, "GET", path, token=stranger), call(gate, "GET", "/v1/approvals/none", token=stranger)
    assert (other.status, other.code) == (nothing.status, nothing.code) == (404, "not_found")


# --- once ---------------------------------------------------------------------------------------------------------
def test_same_answer_when_the_key_is_repeated(gate: GateProcess) -> None:
    headers = {"Idempotency-Key": "repeat-1"}
    first = call(gate, "POST", LIST, {"short_description": "once"}, headers=headers)
    second = call(gate, "POST", LIST, {"short_description": "once"}, headers=headers)
    assert first.status == second.status
    assert first.body == second.body


def test_idempotency_mismatch_when_the_key_names_another_call(gate: GateProcess) -> None:
    headers = {"Idempotency-Key": "repeat-2"}
    call(gate, "POST", LIST, {"short_description": "one"}, headers=headers)
    answer = call(gate, "POST", LIST, {"short_description": "two"}, headers=headers)
    assert (answer.status, answer.code) == (422, "idempotency_mismatch")


def test_still_running_when_the_key_is_in_use(harsh: GateProcess, upstream: HostileUpstream) -> None:
    target, body, headers = f"{LIST}/hang-1", {"short_description": "slow"}, {"Idempotency-Key": "slow-1"}
    with meanwhile(lambda: call(harsh, "PATCH", target, body, headers=headers)) as answers:
        until("the first call is sent", lambda: any("hang-1" in line for line in upstream.asked) or None)
        second = call(harsh, "PATCH", target, body, headers=headers)
    assert (second.status, second.code) == (409, "still_running")
    assert (answers[0].status, answers[0].code) == (504, "outcome_unknown")
    assert len([line for line in upstream.asked if "hang-1" in line]) == 1


def test_outcome_unknown_and_nothing_is_sent_when_the_key_of_an_unknown_call_is_repeated(
    harsh: GateProcess, upstream: HostileUpstream
) -> None:
    target, body, headers = f"{LIST}/close-keyed", {"short_description": "lost"}, {"Idempotency-Key": "lost-1"}
    first = call(harsh, "PATCH", target, body, headers=headers)
    second = call(harsh, "PATCH", target, body, headers=headers)
    assert (first.status, first.code) == (504, "outcome_unknown")
    assert (second.status, second.code) == (504, "outcome_unknown")
    assert second.json()["earlier"] == first.headers["tidegate-call"]
    assert len([line for line in upstream.asked if "close-keyed" in line]) == 1


# --- switches -----------------------------------------------------------------------------------------------------
SCOPES = [
    pytest.param("tenant/acme", id="the tenant"),
    pytest.param("tenant/acme/connector/servicenow", id="the connector"),
    pytest.param("tenant/acme/action/servicenow.incident.list", id="the action"),
    pytest.param("tenant/acme/subject/triage-bot", id="the subject"),
]


@pytest.mark.parametrize("scope", SCOPES)
def test_killed_until_cleared_when_a_switch_is_set(harsh: GateProcess, upstream: HostileUpstream, scope: str) -> None:
    operator, switch = harsh.token("op", "operator"), f"/v1/switches/{scope}"
    assert call(harsh, "PUT", switch, {"reason": "tested"}, token=operator).status == 200
    before = len(upstream.asked)
    answer = call(harsh, "GET", LIST)
    assert call(harsh, "DELETE", switch, token=operator).status == 200
    assert (answer.status, answer.code) == (403, "killed")
    assert len(upstream.asked) == before
    assert call(harsh, "GET", LIST).status == 200


def test_call_is_made_when_the_switches_that_are_set_cover_others(harsh: GateProcess) -> None:
    operator = harsh.token("op", "operator")
    others = ["connector/github", "action/servicenow.incident.read", "subject/triage-bo"]
    switches = [f"/v1/switches/tenant/acme/{other}" for other in others]
    for switch in switches:
        assert call(harsh, "PUT", switch, {"reason": "tested"}, token=operator).status == 200
    answer = call(harsh, "GET", LIST)
    for switch in switches:
        assert call(harsh, "DELETE", switch, token=operator).status == 200
    assert answer.status == 200


FOREIGN = [
    pytest.param("tenant/globex", id="another tenant"),
    pytest.param("tenant/acme/weather/rain", id="a scope that is none"),
]


@pytest.mark.parametrize("scope", FOREIGN)
def test_not_found_when_the_switch_is_not_the_callers_to_set(harsh: GateProcess, scope: str) -> None:
    answer = call(harsh, "PUT", f"/v1/switches/{scope}", {"reason": "x"}, token=harsh.token("op", "operator"))
    assert (answer.status, answer.code) == (404, "not_found")


# --- upstream -----------------------------------------------------------------------------------------------------
def test_upstream_failed_when_it_refuses_the_connection(harsh: GateProcess) -> None:
    answer = call(harsh, "POST", "/c/webhook/hooks/one", {"a": 1}, token=harsh.token("dev", "developer"))
    assert (answer.status, answer.code) == (502, "upstream_failed")


def test_egress_forbidden_when_the_address_is_metadata(harsh: GateProcess) -> None:
    answer = call(harsh, "GET", "/c/github/repos/acme/widgets", token=harsh.token("dev", "developer"))
    assert (answer.status, answer.code) == (403, "egress_forbidden")


def test_upstream_timeout_when_a_read_hangs(harsh: GateProcess) -> None:
    answer = call(harsh, "GET", f"{LIST}/hang")
    assert (answer.status, answer.code) == (504, "upstream_timeout")


FAULTS = [
    pytest.param("hang-2", id="hangs"),
    pytest.param("close", id="reads and closes"),
    pytest.param("garbage", id="answers no HTTP"),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_outcome_unknown_and_sent_once_when_a_write_gets_no_answer(
    harsh: GateProcess, upstream: HostileUpstream, fault: str
) -> None:
    before = len(upstream.asked)
    answer = call(harsh, "PATCH", f"{LIST}/{fault}", {"short_description": "sent"})
    assert (answer.status, answer.code) == (504, "outcome_unknown")
    assert len([line for line in upstream.asked[before:] if fault in line]) == 1


def test_redirect_is_not_followed_when_it_leads_to_metadata(harsh: GateProcess, upstream: HostileUpstream) -> None:
    answer = call(harsh, "GET", f"{LIST}/redirect")
    assert (answer.status, answer.code) == (302, "")
    assert "meta-data" not in "".join(upstream.asked)


def test_upstream_failed_when_the_upstream_cuts_its_answer(harsh: GateProcess) -> None:
    answer = call(harsh, "GET", f"{LIST}/cut")
    assert (answer.status, answer.code) == (502, "upstream_failed")


# --- slow and large -----------------------------------------------------------------------------------------------
def test_too_slow_when_the_head_does_not_end(harsh: GateProcess) -> None:
    answer = exchange(harsh.url, f"GET {LIST} HTTP/1.1\r\nHost: {host(harsh)}\r\n".encode(), hold_open=True)
    assert (answer.status, answer.code) == (408, "too_slow")


SLOW_BODIES = [
    pytest.param("POST", LIST, {"Content-Length": "100"}, b"{", id="a length that is never reached"),
    pytest.param("POST", LIST, {"Transfer-Encoding": "chunked"}, b"2\r\n{}\r\n", id="chunks without an end"),
    pytest.param("POST", LIST, {"Content-Length": "100"}, b"", id="nothing at all"),
    pytest.param("POST", "/v1/calls", {"Content-Length": "100"}, b"{", id="a governed call"),
]


@pytest.mark.parametrize(("method", "target", "framing", "begun"), SLOW_BODIES)
def test_too_slow_when_the_body_does_not_end(
    harsh: GateProcess, method: str, target: str, framing: dict[str, str], begun: bytes
) -> None:
    token = harsh.token("triage-bot", "triage")
    headers = {"Host": host(harsh), "Authorization": f"Bearer {token}", **JSON_TYPE, **framing}
    answer = exchange(harsh.url, request(method, target, headers), begun, hold_open=True)
    assert (answer.status, answer.code) == (408, "too_slow")


def test_gate_serves_others_when_clients_are_slow(harsh: GateProcess) -> None:
    slow = [
        threading.Thread(target=exchange, args=(harsh.url, b"GET / HTTP/1.1\r\n"), kwargs={"hold_open": True})
        for _ in range(20)
    ]
    for thread in slow:
        thread.start()
    started = time.monotonic()
    assert call(harsh, "GET", LIST).status == 200
    assert time.monotonic() - started < 10
    for thread in slow:
        thread.join()


# --- configuration and start --------------------------------------------------------------------------------------
CONFIGURATIONS = [
    pytest.param({"surprise": True}, "config_invalid", id="an unknown key"),
    pytest.param(
        {"instances": {"slack": {"credential": {"token": "xoxb-inline"}}}}, "config_invalid", id="an inline secret"
    ),
    pytest.param(
        {"instances": {"slack": {"credential": {"token": "file:keys/absent.secret"}}}},
        "secret_missing",
        id="a missing secret",
    ),
    pytest.param({"listen": {"gate": "0.0.0.0:8080"}}, "config_unsafe", id="development settings beyond loopback"),
]


def _changed(starter_directory: Path, directory: Path, changes: Mapping[str, object]) -> str:
    """A copy of a starter directory with a changed configuration; the file's path."""
    shutil.copytree(starter_directory, directory)
    edit_config(directory, changes)
    return str(directory / "tidegate.yaml")


def _failed_with(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """Exit status and stable code of a command that was run with ``--json``."""
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)["error"]["code"]


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(("changes", "code"), CONFIGURATIONS)
def test_gateway_refuses_when_the_configuration_is_wrong(
    starter_directory: Path, tmp_path: Path, changes: dict[str, object], code: str, command: str
) -> None:
    config = _changed(starter_directory, tmp_path / "gate", changes)
    assert _failed_with(tidegate("gateway", command, "--config", config, "--json")) == (1, code)


def test_gateway_run_is_unavailable_when_the_port_is_taken(
    gate: GateProcess, starter_directory: Path, tmp_path: Path
) -> None:
    taken = {"listen": {"gate": gate.url.removeprefix("http://")}}
    config = _changed(starter_directory, tmp_path / "gate", taken)
    assert _failed_with(tidegate("gateway", "run", "--config", config, "--json")) == (3, "listen_failed")


@pytest.mark.parametrize("command", ["check", "run"])
def test_gateway_refuses_when_the_bundle_was_changed(starter_directory: Path, tmp_path: Path, command: str) -> None:
    config = _changed(starter_directory, tmp_path / "gate", {})
    bundle = tmp_path / "gate" / "bundle.tar.gz"
    raw = bytearray(bundle.read_bytes())
    raw[len(raw) // 2] ^= 1
    bundle.write_bytes(bytes(raw))
    done = tidegate("gateway", command, "--config", config, "--json")
    assert _failed_with(done) == (1, "bundle_archive_invalid")
