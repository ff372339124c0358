"""The codes of refusals as a client sees them, each produced over a real socket, with nothing lost behind it."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import GateProcess, edit_config, free_port, init_directory, tidegate
from tests.e2e.hostile import HostileUpstream
from tests.e2e.raw import Answer, exchange, request

LIST = "/c/servicenow/api/now/table/incident"
JSON_TYPE = {"Content-Type": "application/json"}
SHORT_LIMITS = {
    "header_read_seconds": 2,
    "body_read_seconds": 2,
    "upstream_answer_seconds": 2,
    "upstream_connect_seconds": 2,
}


def call(
    gate: GateProcess,
    method: str,
    target: str,
    body: object = None,
    *,
    token: str = "",
    headers: dict[str, str] | None = None,
) -> Answer:
    """One call as the triage bot, or with another token."""
    bearer = token or gate.token("triage-bot", "triage")
    sent = {"Authorization": f"Bearer {bearer}", **(JSON_TYPE if body is not None else {}), **(headers or {})}
    return exchange(gate.url, request(method, target, sent, json.dumps(body).encode() if body is not None else None), hold_open=True)


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
    pytest.param("GET", "/c/nobody/api/now/table/incident", id="an unknown instance"),
]


@pytest.mark.parametrize(("method", "target"), UNCLASSIFIED)
def test_unclassified_when_no_action_matches(gate: GateProcess, method: str, target: str) -> None:
    answer = call(gate, method, target)
    assert (answer.status, answer.code) in {(403, "unclassified"), (404, "not_found")}


def test_arguments_invalid_names_each_place_when_the_schema_refuses(gate: GateProcess) -> None:
    answer = call(gate, "POST", LIST, {"short_description": 7, "undeclared": True})
    assert (answer.status, answer.code) == (422, "arguments_invalid")
    assert all(error["pointer"].startswith("/") or error["pointer"] == "" for error in answer.json()["errors"])


def test_not_found_when_the_path_is_nothing(gate: GateProcess) -> None:
    assert call(gate, "GET", "/v1/nothing").code == "not_found"


def test_method_not_allowed_when_the_path_takes_another(gate: GateProcess) -> None:
    assert call(gate, "DELETE", "/v1/enforcement").code == "method_not_allowed"


# --- people -------------------------------------------------------------------------------------------------------
def _hold(gate: GateProcess, text: str, **headers: str) -> Answer:
    token = gate.token("triage-bot", "triage", environment="prod")
    sent = {"Prefer": "wait=0", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return call(gate, "POST", LIST, {"short_description": text}, token=token, headers=sent)


def _vote(gate: GateProcess, held: Answer, decision: str, token: str, digest: str = "") -> Answer:
    approval = held.json()["approval"]
    vote = {"decision": decision, "reason": "tested", "action_digest": digest or approval["action_digest"]}
    return call(gate, "POST", f"/v1/approvals/{approval['id']}/votes", vote, token=token)


def test_approval_required_then_runs_once_when_a_person_approves(gate: GateProcess) -> None:
    held = _hold(gate, "held and released")
    assert (held.status, held.code) == (403, "approval_required")
    assert _vote(gate, held, "approve", gate.token("maria", "approver", environment="prod")).status == 200
    assert _hold(gate, "held and released").status in {200, 201}
    again = _hold(gate, "held and released")
    assert again.code == "approval_required"
    assert again.json()["approval"]["id"] != held.json()["approval"]["id"]


def test_approval_denied_when_a_person_denies(gate: GateProcess) -> None:
    held = _hold(gate, "held and denied")
    assert _vote(gate, held, "deny", gate.token("maria", "approver", environment="prod")).status == 200
    assert _hold(gate, "held and denied").code in {"approval_denied", "approval_required"}


VOTERS = [
    pytest.param("triage-bot", ("triage", "approver"), id="the caller itself"),
    pytest.param("intern", ("triage",), id="somebody without the role"),
]


@pytest.mark.parametrize(("subject", "roles"), VOTERS)
def test_vote_is_refused_when_the_voter_may_not(gate: GateProcess, subject: str, roles: tuple[str, ...]) -> None:
    held = _hold(gate, f"not for {subject}")
    answer = _vote(gate, held, "approve", gate.token(subject, *roles, environment="prod"))
    assert answer.status == 403
    assert answer.code in {"vote_refused", "denied"}


def test_stale_state_when_the_vote_is_on_another_digest(gate: GateProcess) -> None:
    held = _hold(gate, "another digest")
    answer = _vote(gate, held, "approve", gate.token("maria", "approver", environment="prod"), "sha256:" + "0" * 64)
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


def test_still_running_when_the_key_is_in_use(harsh: GateProcess) -> None:
    headers = {"Idempotency-Key": "slow-1"}
    target = f"{LIST}/hang-1"
    first: list[Answer] = []
    body = {"short_description": "slow"}
    runner = threading.Thread(target=lambda: first.append(call(harsh, "PATCH", target, body, headers=headers)))
    runner.start()
    time.sleep(0.7)
    second = call(harsh, "PATCH", target, body, headers=headers)
    runner.join()
    assert (second.status, second.code) == (409, "still_running")
    assert (first[0].status, first[0].code) == (504, "outcome_unknown")


# --- switches -----------------------------------------------------------------------------------------------------
def test_killed_until_cleared_when_a_switch_is_set(harsh: GateProcess) -> None:
    operator = harsh.token("op", "operator")
    scope = "/v1/switches/tenant/acme/connector/servicenow"
    assert call(harsh, "PUT", scope, {"reason": "tested"}, token=operator).status in {200, 201, 204}
    answer = call(harsh, "GET", LIST)
    assert (answer.status, answer.code) == (403, "killed")
    assert call(harsh, "DELETE", scope, token=operator).status in {200, 204}
    assert call(harsh, "GET", LIST).status == 200


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
    assert answer.status in {302, 502}
    assert "meta-data" not in "".join(upstream.asked)


def test_client_sees_no_whole_answer_when_the_upstream_cuts_it(harsh: GateProcess) -> None:
    answer = call(harsh, "GET", f"{LIST}/cut")
    assert answer.code in {"upstream_failed", "upstream_timeout"} or len(answer.body) < 1000


# --- slow and large -----------------------------------------------------------------------------------------------
def test_too_slow_when_the_head_does_not_end(harsh: GateProcess) -> None:
    answer = exchange(harsh.url, f"GET {LIST} HTTP/1.1\r\nHost: gate.test\r\n".encode(), hold_open=True)
    assert (answer.status, answer.code) == (408, "too_slow")


def test_too_slow_when_the_body_does_not_end(harsh: GateProcess) -> None:
    token = harsh.token("triage-bot", "triage")
    headers = {"Authorization": f"Bearer {token}", **JSON_TYPE, "Content-Length": "100"}
    answer = exchange(harsh.url, request("POST", LIST, headers), b"{", hold_open=True)
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
    pytest.param({"surprise": True}, id="an unknown key"),
    pytest.param({"instances": {"slack": {"credential": {"token": "xoxb-inline"}}}}, id="an inline secret"),
    pytest.param({"instances": {"slack": {"credential": {"token": "file:keys/absent.secret"}}}}, id="a missing secret"),
    pytest.param({"listen": {"gate": "0.0.0.0:8080"}}, id="development settings beyond loopback"),
]


@pytest.mark.parametrize("changes", CONFIGURATIONS)
def test_gateway_check_refuses_when_the_configuration_is_wrong(
    starter_directory: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    directory = tmp_path / "gate"
    shutil.copytree(starter_directory, directory)
    edit_config(directory, changes)
    done = tidegate("gateway", "check", "--config", str(directory / "tidegate.yaml"))
    assert done.returncode in {1, 3}
    assert "Traceback" not in done.stderr


def test_gateway_run_refuses_when_the_port_is_taken(gate: GateProcess, starter_directory: Path, tmp_path: Path) -> None:
    directory = tmp_path / "gate"
    shutil.copytree(starter_directory, directory)
    edit_config(directory, {"listen": {"gate": gate.url.removeprefix("http://")}})
    done = tidegate("gateway", "run", "--config", str(directory / "tidegate.yaml"))
    assert done.returncode in {1, 3}
    assert "Traceback" not in done.stderr


def test_gateway_run_refuses_when_the_bundle_was_changed(starter_directory: Path, tmp_path: Path) -> None:
    directory = tmp_path / "gate"
    shutil.copytree(starter_directory, directory)
    bundle = directory / "bundle.tar.gz"
    raw = bytearray(bundle.read_bytes())
    raw[len(raw) // 2] ^= 1
    bundle.write_bytes(bytes(raw))
    done = tidegate("gateway", "check", "--config", str(directory / "tidegate.yaml"))
    assert done.returncode in {1, 3}
    assert "bundle_" in done.stdout + done.stderr
