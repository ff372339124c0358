"""The codes of a rulebook that gives no decision, or gives people a moment only, each produced over a real socket.

One gate has a rulebook with some rules more: a denial whose work grows with the third power of an argument, a hold that
gives people one second, and terms that this version does not enforce. Another one's rulebook expires while it serves.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.calling import LIST, call, host, recorded, until
from tests.e2e.harness import ROOT, GateProcess, child_environment, edit_config, init_directory, read_config
from tests.e2e.hostile import HostileUpstream
from tests.e2e.raw import Answer, exchange, request
from tests.e2e.rulebook import add_rules, place_action, sign_until, widen_parameter

RULES = """
require_hitl contains {
	"code": "brief",
	"message": "a person has one second",
	"chain": "one-approver",
	"decide_within_seconds": 1,
} if {
	tidegate.of_connector("webhook")
	input.args.webhook_path == "brief"
	count(allow) > 0
}

deny contains {"code": "cancelling", "message": "three of the numbers cancel out"} if {
	tidegate.of_connector("webhook")
	some first in input.args.numbers
	some second in input.args.numbers
	some third in input.args.numbers
	round(first) + round(second) == 0 - round(third)
}

throttle contains {"code": "t", "key": "k", "limit": 9, "window_seconds": 60} if input.args.webhook_path == "throttle"

route contains {"code": "t", "target": "github"} if input.args.webhook_path == "route"

require_step_up contains {"code": "t", "acr_values": ["phr"], "max_age_seconds": 60} if {
	input.args.webhook_path == "step-up"
}

require_hitl contains {"code": "t", "chain": "two-person"} if input.args.webhook_path == "two-person"

require_hitl contains {"code": "t", "chain": "one-approver", "on_approval": "dispatch"} if {
	input.args.webhook_path == "dispatch"
}

require_hitl contains {"code": "t", "chain": "absent"} if input.args.webhook_path == "absent-chain"

redact contains {"args": "/event"} if input.args.webhook_path == "redact"

redact contains {"response": "$.result"} if input.args.webhook_path == "redact-response"
"""
EVENT = "/c/webhook/events/one"
RUNAWAY = {"numbers": list(range(1, 601))}
HARMLESS = {"numbers": [1, 2, 3]}
CANCELLING = {"numbers": [1, 2, -3]}
LEASE_SECONDS = 8
SWITCH = "/v1/switches/tenant/acme/connector/servicenow"


@pytest.fixture(scope="module")
def upstream() -> Iterator[HostileUpstream]:
    """A service that answers, and counts what it is asked."""
    with HostileUpstream.start() as running:
        yield running


def _directory(directory: Path, upstream: HostileUpstream) -> Path:
    here = {"base_url": f"http://127.0.0.1:{upstream.port}"}
    edit_config(init_directory(directory), {"instances": {"webhook": here, "servicenow": here}})
    return directory


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory, upstream: HostileUpstream, opa_path: Path) -> Iterator[GateProcess]:
    """A gate with those rules."""
    directory = _directory(tmp_path_factory.mktemp("ruled") / "gate", upstream)
    place_action(directory, "servicenow", "change_request.read")
    widen_parameter(directory, "servicenow", "incident.read", "[A-Za-z0-9_-]{1,64}", "[a-z0-9]+(?:/[a-z0-9]+)?")
    add_rules(directory, "webhook", RULES)
    with GateProcess.start(directory) as running:
        yield running


def _post(gate: GateProcess, body: object, target: str = EVENT, wait_seconds: int = 0) -> Answer:
    headers = {"Prefer": f"wait={wait_seconds}"}
    return call(gate, "POST", target, body, token=gate.token("dev", "developer"), headers=headers)


def _sent(upstream: HostileUpstream, word: str) -> int:
    return len([line for line in upstream.asked if word in line])


# --- an engine that fails -----------------------------------------------------------------------------------------
def test_engine_failed_and_nothing_is_sent_when_a_rule_runs_away(ruled: GateProcess, upstream: HostileUpstream) -> None:
    answer = _post(ruled, RUNAWAY, "/c/webhook/events/runaway")
    assert (answer.status, answer.code) == (503, "engine_failed")
    assert answer.headers["x-should-retry"] == "false"
    assert _sent(upstream, "runaway") == 0


def test_next_decisions_are_right_when_a_rule_ran_away(ruled: GateProcess) -> None:
    assert _post(ruled, RUNAWAY).code == "engine_failed"
    denied = _post(ruled, CANCELLING)
    assert (denied.status, denied.code) == (403, "denied")
    assert [reason["code"] for reason in denied.json()["reasons"]] == ["cancelling"]
    assert _post(ruled, HARMLESS).status == 200


def test_engine_failed_is_recorded_when_a_rule_runs_away(ruled: GateProcess) -> None:
    answer = _post(ruled, RUNAWAY)
    records = recorded(ruled, answer)
    assert [(record["kind"], record["action"]["code"]) for record in records] == [("refusal", "engine_failed")]


# --- terms that are not enforced ----------------------------------------------------------------------------------
UNENFORCED = [
    pytest.param("throttle", "not_supported", id="a limit"),
    pytest.param("route", "not_supported", id="another target"),
    pytest.param("step-up", "not_supported", id="a stronger sign-in"),
    pytest.param("two-person", "not_supported", id="a chain of two steps"),
    pytest.param("dispatch", "not_supported", id="a dispatch by the gate itself"),
    pytest.param("absent-chain", "decision_malformed", id="a chain that is not there"),
    pytest.param("redact", "not_supported", id="redacted arguments"),
    pytest.param("redact-response", "not_supported", id="a redacted answer"),
]


@pytest.mark.parametrize(("word", "reason"), UNENFORCED)
def test_denied_and_nothing_is_sent_when_the_policy_asks_for_what_is_not_enforced(
    ruled: GateProcess, upstream: HostileUpstream, word: str, reason: str
) -> None:
    answer = _post(ruled, {"event": "unenforced"}, f"/c/webhook/{word}")
    assert (answer.status, answer.code) == (403, "denied")
    assert [each["code"] for each in answer.json()["reasons"]] == [reason]
    assert _sent(upstream, f"/{word} ") == 0


CHANGE = "/c/servicenow/api/now/table/change_request/placed"
PLACED = [
    pytest.param("GET", CHANGE, None, id="a request of the reverse proxy"),
    pytest.param(
        "POST",
        "/v1/calls",
        {"instance": "servicenow", "action": "change_request.read", "arguments": {"sys_id": "placed"}},
        id="a governed call",
    ),
]


@pytest.mark.parametrize(("method", "target", "body"), PLACED)
def test_denied_and_nothing_is_sent_when_the_manifest_places_the_action_at_an_agent(
    ruled: GateProcess, upstream: HostileUpstream, method: str, target: str, body: object
) -> None:
    answer = call(ruled, method, target, body)
    assert (answer.status, answer.code) == (403, "denied")
    assert [each["code"] for each in answer.json()["reasons"]] == ["not_supported"]
    assert _sent(upstream, "placed") == 0
    assert recorded(ruled, answer)[-1]["action"]["name"] == "servicenow.change_request.read"


def test_encoded_slash_goes_out_as_it_came_when_the_parameter_admits_it(
    ruled: GateProcess, upstream: HostileUpstream
) -> None:
    answer = call(ruled, "GET", "/c/servicenow/api/now/table/incident/a1%2Fb2")
    assert answer.status == 200
    assert _sent(upstream, "GET /api/now/table/incident/a1%2Fb2 HTTP/1.1") == 1
    assert recorded(ruled, answer)[-1]["action"]["resource"] == {"type": "incident", "id": "a1/b2"}


@pytest.mark.parametrize("value", ["a1%2F..%2Fb2", "a1%2F%2Fb2", "%2Fa1", "a1%5Cb2", "a1%3Bb2", "a1%252Fb2"])
def test_encoded_separator_is_refused_when_the_parameter_does_not_admit_it(
    ruled: GateProcess, upstream: HostileUpstream, value: str
) -> None:
    answer = call(ruled, "GET", f"/c/servicenow/api/now/table/incident/{value}")
    assert (answer.status, answer.code) == (400, "malformed_request")
    assert _sent(upstream, value) == 0


def test_enforcement_says_what_is_not_enforced_when_it_is_asked(ruled: GateProcess) -> None:
    document = call(ruled, "GET", "/v1/enforcement", token=ruled.token("op", "operator")).json()
    assert {"placement", "REQUIRE_STEP_UP", "THROTTLE", "ROUTE"} <= set(document["not_enforced_yet"])


# --- people who have a moment only --------------------------------------------------------------------------------
def test_approval_expired_when_nobody_decides_while_the_call_waits(
    ruled: GateProcess, upstream: HostileUpstream
) -> None:
    answer = _post(ruled, {"event": "brief"}, "/c/webhook/brief", wait_seconds=30)
    assert (answer.status, answer.code) == (403, "approval_expired")
    assert answer.json()["approval"]["state"] == "expired"
    assert answer.headers["tidegate-approval"] == answer.json()["approval"]["id"]
    assert _sent(upstream, "brief") == 0


def test_stale_state_when_a_vote_comes_after_the_approval_has_expired(ruled: GateProcess) -> None:
    held = _post(ruled, {"event": "late"}, "/c/webhook/brief")
    assert (held.status, held.code) == (403, "approval_required")
    approval = held.json()["approval"]
    maria, path = ruled.token("maria", "approver"), f"/v1/approvals/{approval['id']}"

    def expired() -> bool | None:
        return call(ruled, "GET", path, token=maria).json()["state"] == "expired" or None

    until("the approval expires", expired)
    vote = {"decision": "approve", "reason": "late", "action_digest": approval["action_digest"]}
    answer = call(ruled, "POST", f"{path}/votes", vote, token=maria)
    assert (answer.status, answer.code) == (409, "stale_state")


# --- a rulebook that is too old -----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def stale(tmp_path_factory: pytest.TempPathFactory, upstream: HostileUpstream) -> Iterator[GateProcess]:
    """A gate whose rulebook has expired since it came into force."""
    directory = _directory(tmp_path_factory.mktemp("stale") / "gate", upstream)
    with GateProcess.start(directory) as running:
        for subject, role in (("triage-bot", "triage"), ("op", "operator"), ("dev", "developer")):
            running.token(subject, role)
        sign_until(directory, LEASE_SECONDS, sequence=2)
        assert running.reload()
        assert call(running, "GET", LIST).status == 200

        def refused() -> Answer | None:
            answer = call(running, "GET", LIST)
            return answer if answer.status != 200 else None

        until("the rulebook expires", refused)
        yield running


STALE = [
    pytest.param("GET", LIST, None, id="a read"),
    pytest.param("PATCH", f"{LIST}/stale-1", {"short_description": "x"}, id="a write"),
    pytest.param("GET", "/v1/enforcement", None, id="an operation of the gate"),
    pytest.param("DELETE", SWITCH, None, id="clearing a kill switch"),
]


@pytest.mark.parametrize(("method", "target", "body"), STALE)
def test_policy_stale_when_the_rulebook_has_expired(
    stale: GateProcess, upstream: HostileUpstream, method: str, target: str, body: object
) -> None:
    before = len(upstream.asked)
    answer = call(stale, method, target, body, token=stale.token("op", "operator"))
    assert (answer.status, answer.code) == (503, "policy_stale")
    assert len(upstream.asked) == before


def test_kill_switch_is_set_by_emergency_roles_alone_when_the_policy_is_stale(stale: GateProcess) -> None:
    refused = call(stale, "PUT", SWITCH, {"reason": "stale"}, token=stale.token("dev", "developer"))
    assert (refused.status, refused.code) == (503, "policy_stale")
    assert call(stale, "PUT", SWITCH, {"reason": "stale"}, token=stale.token("op", "operator")).status == 200
    assert call(stale, "GET", LIST).code == "killed"


def test_expired_rulebook_is_not_taken_when_it_is_reloaded(stale: GateProcess) -> None:
    assert not stale.reload()
    assert call(stale, "GET", "/v1/enforcement", token=stale.token("op", "operator")).code == "policy_stale"


def test_gate_is_not_ready_when_the_rulebook_has_expired(stale: GateProcess) -> None:
    answer = exchange(stale.url, request("GET", "/health/ready", {"Host": host(stale)}))
    assert (answer.status, answer.json()) == (503, {"ready": False, "missing": ["freshness"]})


# --- no rulebook --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def ungoverned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GateProcess]:
    """A gate that listens and has no rulebook in force."""
    directory = init_directory(tmp_path_factory.mktemp("ungoverned") / "gate")
    log = directory / "gate.log"
    command = [sys.executable, "-m", "tests.e2e.ungoverned", str(directory / "tidegate.yaml")]
    pipe = subprocess.PIPE
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, env=child_environment(), stdin=pipe, stdout=pipe, stderr=errors, text=False
        )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"listening\n", log.read_text(errors="replace")
        yield GateProcess(directory, f"http://{read_config(directory)['listen']['gate']}", process, log)
        process.stdin.close()
    assert process.returncode == 0, log.read_text(errors="replace")


UNGOVERNED = [
    pytest.param("GET", LIST, None, id="a read"),
    pytest.param("PATCH", f"{LIST}/a1", {"short_description": "x"}, id="a write"),
    pytest.param("GET", "/v1/enforcement", None, id="an operation of the gate"),
]


@pytest.mark.parametrize(("method", "target", "body"), UNGOVERNED)
def test_policy_unavailable_when_no_rulebook_is_in_force(
    ungoverned: GateProcess, method: str, target: str, body: object
) -> None:
    answer = call(ungoverned, method, target, body, token=ungoverned.token("op", "operator"))
    assert (answer.status, answer.code) == (503, "policy_unavailable")


def test_gate_is_not_ready_when_no_rulebook_is_in_force(ungoverned: GateProcess) -> None:
    answer = exchange(ungoverned.url, request("GET", "/health/ready", {"Host": host(ungoverned)}))
    assert (answer.status, answer.json()) == (503, {"ready": False, "missing": ["policy"]})
