"""How access requests end and what they cannot be opened for, on a gate whose rulebook gives people a moment only.

Clocks of the store run as they do; that of the binding token is the gate's and is moved.
"""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.api.access_request_mapping import TOKEN_SECONDS
from gateway.app import Gate, start_gate
from gateway.config import load_config
from gateway.operations.log import LineLog
from tests.e2e.calling import until
from tests.e2e.harness import GateProcess, edit_config, free_port, init_directory, tidegate
from tests.e2e.rulebook import add_rules
from tests.integration.asking_people import (
    REQUESTS,
    URN,
    again,
    denial,
    evaluate,
    opened,
    prod,
    submission,
    submit,
    task,
    vote,
)
from tests.integration.test_authzen import EVALUATION
from tests.integration.test_v1 import send

RULES = """# What people are asked for in the tests of access requests.
package policies.authzen

holds := {
	"brief": {"chain": "one-approver", "decide_within_seconds": 1},
	"fleeting": {"chain": "one-approver", "use_within_seconds": 1},
	"patient": {"chain": "one-approver"},
	"sent": {"chain": "one-approver", "on_approval": "dispatch"},
	"by-two": {"chain": "two-person"},
	"by-others": {"chain": "one-approver"},
	"not-after-all": {"chain": "one-approver"},
}

allow contains "granted" if holds[input.action.name]

allow contains "free" if input.action.name == "free"

require_hitl contains object.union({"code": "held"}, holds[input.action.name]) if {
	not "operator" in input.subject.properties.roles
}

require_hitl contains {"code": "more", "chain": "second-look"} if {
	input.action.name == "by-others"
	input.context.approval.state == "approved"
}

deny contains "changed_mind" if {
	input.action.name == "not-after-all"
	input.context.approval.state == "approved"
}
"""
HELD_MAX = 4


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A starter directory with these rules."""
    made = init_directory(tmp_path_factory.mktemp("requests") / "gate")
    policy = made / "bundle" / "policies" / "authzen"
    policy.mkdir()
    (policy / "authzen.rego").write_text(RULES, encoding="utf-8")
    chains = made / "bundle" / "chains" / "data.json"
    document = json.loads(chains.read_text(encoding="utf-8"))
    document["second-look"] = {"steps": [{"id": "second", "role": "operator", "quorum": 1}]}
    chains.write_text(json.dumps(document), encoding="utf-8")
    edit_config(made, {"limits": {"holds_per_subject_max": HELD_MAX}})
    add_rules(made, "authzen", "")
    return made


def _copied(directory: Path, target: Path) -> Path:
    """The same starter directory on other ports, without what a gate has kept in it."""
    shutil.copytree(directory, target, ignore=shutil.ignore_patterns("state", "*.log"))
    ports = {name: f"127.0.0.1:{free_port()}" for name in ("gate", "metrics")}
    edit_config(target, {"listen": ports})
    return target


@pytest.fixture
def own(directory: Path, tmp_path: Path) -> Iterator[GateProcess]:
    """A gate of its own for a test that changes it."""
    copied = _copied(directory, tmp_path / "gate")
    with GateProcess.start(copied) as running:
        yield running


@pytest.fixture(scope="module")
def pdp(directory: Path) -> Iterator[GateProcess]:
    """A gate that tests share."""
    with GateProcess.start(directory) as running:
        yield running


def about(subject: str, action: str, context: dict[str, Any] | None = None) -> dict[str, Any]:
    """May this subject do something to a document?"""
    asked: dict[str, Any] = {
        "subject": {"type": "user", "id": subject},
        "action": {"name": action},
        "resource": {"type": "document", "id": "q4"},
    }
    return asked if context is None else {**asked, "context": context}


def test_request_expires_when_nobody_decides(pdp: GateProcess) -> None:
    bot, question = prod(pdp, "brief"), about("brief", "brief")
    body = submission(question, denial(pdp, bot, question))
    request_id = submit(pdp, bot, body).body["task"]["id"]
    ended = task(pdp, bot, request_id, {"Prefer": "wait=20"}).body
    assert ended["task"]["status"] == "expired"
    assert "result" not in ended
    assert vote(pdp, request_id, "approve").code == "stale_state"
    assert task(pdp, bot, request_id).body["task"]["status"] == "expired"
    context = evaluate(pdp, bot, again(question, request_id)).body["context"]
    assert (context["reason"], context["next_action"]) == ("approval_expired", "request")
    assert submit(pdp, bot, body).body["task"]["id"] == request_id, "the denial has had its request"


def test_approval_runs_out_when_it_is_used_too_late(pdp: GateProcess) -> None:
    bot, question = prod(pdp, "fleeting"), about("fleeting", "fleeting")
    request_id = opened(pdp, bot, question)
    assert vote(pdp, request_id, "approve").status == 200

    def run_out() -> dict[str, Any] | None:
        answered: dict[str, Any] = evaluate(pdp, bot, again(question, request_id)).body
        return None if answered["decision"] else answered["context"]

    context = until("the approval has run out", run_out)
    assert (context["reason"], context["next_action"]) == ("approval_expired", "request")
    assert task(pdp, bot, request_id).body["task"]["status"] == "approved", "a task ends once"


def test_policy_has_the_last_word_when_people_have_approved(pdp: GateProcess) -> None:
    bot = prod(pdp, "last")
    for action, reason, following in (
        ("not-after-all", "policy_denied", "none"),
        ("by-others", "out_of_scope", "request"),
    ):
        question = about("last", action)
        request_id = opened(pdp, bot, question)
        assert vote(pdp, request_id, "approve").status == 200
        answered = evaluate(pdp, bot, again(question, request_id)).body
        told = answered["context"]
        assert (answered["decision"], told["reason"], told["next_action"]) == (False, reason, following)
        assert ("access_request" in told) is (following == "request")


@pytest.mark.parametrize("action", ["sent", "by-two"])
def test_denial_offers_nothing_when_nobody_can_be_asked(pdp: GateProcess, action: str) -> None:
    context = evaluate(pdp, prod(pdp, "dead-end"), about("dead-end", action)).body["context"]
    assert (context["effect"], context["reason"]) == ("DENY", "not_supported")
    assert "access_request" not in context


def test_denial_offers_nothing_when_its_context_is_too_wide_to_bind(pdp: GateProcess) -> None:
    wide = {f"member-{number}-{'x' * 40}": number for number in range(100)}
    context = evaluate(pdp, prod(pdp, "wide"), about("wide", "patient", wide)).body["context"]
    assert context["effect"] == "REQUIRE_HITL"
    assert "access_request" not in context


def test_denial_offers_nothing_when_policy_simply_denies(pdp: GateProcess) -> None:
    answered = evaluate(pdp, prod(pdp, "nothing"), about("nothing", "unheard-of")).body
    assert answered["decision"] is False
    assert "access_request" not in answered["context"]
    free = evaluate(pdp, prod(pdp, "nothing"), again(about("nothing", "free"), "0" * 32)).body
    assert free["decision"] is True
    assert "approval" not in free["context"], "a reference to nothing leaves no trace"


def test_request_is_refused_when_policy_no_longer_holds_the_question(pdp: GateProcess) -> None:
    question = about("risen", "patient")
    denied = denial(pdp, prod(pdp, "risen"), question)
    answered = submit(pdp, prod(pdp, "risen", "operator"), submission(question, denied))
    assert (answered.status, answered.code, answered.body["type"]) == (
        400,
        "malformed_request",
        f"{URN}not_requestable",
    )


def test_request_is_refused_when_a_switch_stops_its_action(pdp: GateProcess) -> None:
    bot, question = prod(pdp, "stopped"), about("stopped", "patient")
    denied = denial(pdp, bot, question)
    scope, operator = "/v1/switches/tenant/acme/subject/stopped", prod(pdp, "op", "operator")
    assert send(pdp, "PUT", scope, operator, {"reason": "test"}).status == 200
    try:
        answered = submit(pdp, bot, submission(question, denied))
        assert (answered.status, answered.code) == (403, "killed")
        assert "access_request" not in evaluate(pdp, bot, question).body["context"]
    finally:
        send(pdp, "DELETE", scope, operator)


def test_request_is_throttled_when_its_caller_has_as_many_open_as_it_may(pdp: GateProcess) -> None:
    bot = prod(pdp, "eager")
    for number in range(HELD_MAX):
        opened(pdp, bot, about("eager", "patient", {"number": number}))
    question = about("eager", "patient", {"number": HELD_MAX})
    answered = submit(pdp, bot, submission(question, denial(pdp, bot, question)))
    assert (answered.status, answered.code) == (429, "throttled")
    assert opened(pdp, prod(pdp, "other"), about("other", "patient"))


def test_request_is_refused_when_the_bundle_has_changed_since_the_denial(own: GateProcess) -> None:
    bot, question = prod(own, "late"), about("late", "patient")
    approved = opened(own, bot, question)
    assert vote(own, approved, "approve").status == 200
    other = about("late", "patient", {"other": True})
    denied = denial(own, bot, other)
    chains = own.directory / "bundle" / "chains" / "data.json"
    document = json.loads(chains.read_text(encoding="utf-8"))
    document["one-approver"]["steps"][0]["id"] = "somebody-else"
    chains.write_text(json.dumps(document), encoding="utf-8")
    add_rules(own.directory, "authzen", "\n# another rulebook\n")
    assert own.reload()
    answered = submit(own, bot, submission(other, denied))
    assert (answered.status, answered.code) == (409, "stale_state")
    assert submit(own, bot, submission(other, denial(own, bot, other))).status == 202
    context = evaluate(own, bot, again(question, approved)).body["context"]
    assert context["reason"] == "approval_expired", "its chain is not what people voted by any more"


def test_request_outlives_the_gate_that_opened_it(own: GateProcess) -> None:
    bot, question = prod(own, "patient"), about("patient", "patient")
    body = submission(question, denial(own, bot, question))
    other = about("patient", "patient", {"other": True})
    unused = submission(other, denial(own, bot, other))
    request_id = submit(own, bot, body).body["task"]["id"]
    own.kill()
    with GateProcess.start(own.directory) as restarted:
        assert task(restarted, bot, request_id).body["task"]["status"] == "pending"
        assert submit(restarted, bot, body).body["task"]["id"] == request_id
        assert submit(restarted, bot, unused).status == 202
        done = tidegate(
            "approvals", "approve", request_id, "--gate", restarted.url, token=prod(restarted, "ann", "approver")
        )
        assert done.returncode == 0, done.stderr
        assert evaluate(restarted, bot, again(question, request_id)).body["decision"] is True


class MovedClock:
    """Wall seconds of a gate that are ahead of the machine's by as many as are asked for."""

    def __init__(self, gate: Gate) -> None:
        self._real = gate.running.services.clock
        self.ahead = 0.0
        gate.running.services = replace(gate.running.services, clock=self)

    def __call__(self) -> float:
        return self._real() + self.ahead


def _post(url: str, token: str, body: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20) as answered:
            return answered.status, json.load(answered)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


async def test_denial_may_be_answered_until_its_token_has_expired(directory: Path, tmp_path: Path) -> None:
    copied = await asyncio.to_thread(_copied, directory, tmp_path / "gate")
    config = load_config((copied / "tidegate.yaml").read_text(encoding="utf-8"), copied, {})
    gate = await start_gate(config, log=LineLog(io.BytesIO()))
    try:
        clock = MovedClock(gate)
        await gate.listen()
        wanted = ("--subject", "slow", "--tenant", "acme", "--workspace", "ops", "--environment", "prod")
        made = await asyncio.to_thread(
            tidegate, "token", "--config", str(copied / "tidegate.yaml"), *wanted, "--role", "triage"
        )
        token, url = made.stdout.strip(), f"http://127.0.0.1:{gate.port}"
        bodies = []
        for number in range(2):
            question = about("slow", "patient", {"number": number})
            _, body = await asyncio.to_thread(_post, f"{url}{EVALUATION}", token, question)
            offered = body["context"]["access_request"]
            stated = {name: offered[name] for name in ("expires_at", "binding_token")}
            bodies.append(submission(question, stated))
        clock.ahead = TOKEN_SECONDS - 30
        status, body = await asyncio.to_thread(_post, f"{url}{REQUESTS}", token, bodies[0])
        assert (status, body["task"]["status"]) == (202, "pending")
        clock.ahead = TOKEN_SECONDS
        for each in bodies:
            status, body = await asyncio.to_thread(_post, f"{url}{REQUESTS}", token, each)
            assert (status, body["code"], body["type"]) == (410, "stale_state", f"{URN}expired_denial")
    finally:
        await gate.close()
