"""Access requests over a real socket: from a denial to people and back to policy, and everything that is refused."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.calling import counted, logged
from tests.e2e.harness import GateProcess, tidegate
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
    update,
    vote,
)
from tests.integration.test_authzen import EVALUATIONS, METADATA
from tests.integration.test_v1 import INCIDENT, INCIDENTS, Answered, send
from tests.integration.test_v1 import held as held_call

WAIT_SECONDS = 30.0


def _cli(gate: GateProcess, *arguments: str) -> str:
    done = tidegate(*arguments, "--gate", gate.url, token=prod(gate, "ann", "approver"))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _records(gate: GateProcess) -> list[dict[str, Any]]:
    done = tidegate("ledger", "tail", "-n", "400", "--json", "--config", str(gate.config))
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout)["items"])


def test_question_is_allowed_when_people_approved_and_policy_is_asked_again(gate: GateProcess) -> None:
    bot, question = prod(gate, "flow"), update("flow", "flow", {"channel": "chat", "time": "2026-01-01T00:00:00Z"})
    denied = denial(gate, bot, question)
    made = submit(gate, bot, submission(question, denied, "customer is waiting"))
    request_id = made.body["task"]["id"]
    here = f"{gate.url}{REQUESTS}/{request_id}"
    assert made.status == 202
    assert made.headers["location"] == made.body["task"]["status_endpoint"] == here
    assert made.body["task"]["status"] == "pending"
    assert made.body["task"]["links"] == {"cancel": f"{here}/cancel"}
    assert "result" not in made.body
    waiting = evaluate(gate, bot, again(question, request_id)).body
    assert (waiting["decision"], waiting["context"]["next_action"]) == (False, "retry")
    shown = _cli(gate, "approvals", "show", request_id)
    assert "access request: user flow asks for servicenow.incident.update" in " ".join(shown.split())
    assert "stated_reason_untrusted: customer is waiting" in shown
    assert "access request" in _cli(gate, "approvals", "list")
    assert "approved" in _cli(gate, "approvals", "approve", request_id, "--reason", "fine")
    done = task(gate, bot, request_id).body
    assert (done["task"]["status"], done["result"]["mode"]) == ("approved", "reevaluate")
    allowed = evaluate(gate, bot, again({**question, "context": {"channel": "chat"}}, done["result"]["approval"])).body
    assert allowed["decision"] is True, allowed
    until = done["result"]["approval"]["approved_until"]
    assert allowed["context"]["approval"] == {"id": request_id, "approved_until": until}
    assert evaluate(gate, bot, again(question, request_id)).body["decision"] is True, "its id alone refers to it too"
    assert evaluate(gate, bot, question).body["decision"] is False, "an approval that nobody refers to does nothing"
    told = [record for record in _records(gate) if record["ids"].get("approval") == request_id]
    assert [record["kind"] for record in told].count("vote") == 1
    opening = next(record for record in told if record["kind"] == "approval")
    assert opening["decision"]["id"] == denied["evaluation_id"]
    assert opening["action"]["kind"] == "access_request"
    assert any(record["kind"] == "evaluation" and record["action"]["permitted"] for record in told)
    assert "customer is waiting" not in json.dumps(told)


def test_approval_is_worth_nothing_for_another_question_or_another_caller(gate: GateProcess) -> None:
    bot, question = prod(gate, "narrow"), update("narrow", "narrow")
    request_id = opened(gate, bot, question)
    assert vote(gate, request_id, "approve").status == 200
    other = evaluate(gate, bot, again(update("narrow", "something else"), {"id": request_id})).body
    assert (other["decision"], other["context"]["reason"], other["context"]["next_action"]) == (
        False,
        "out_of_scope",
        "request",
    )
    assert other["context"]["access_request"]["binding_token"]
    wider = evaluate(gate, bot, again({**question, "context": {"more": True}}, {"id": request_id})).body
    assert wider["context"]["reason"] == "out_of_scope"
    environment = gate.token("narrow", "triage", environment="prod", tenant="rival")
    for token in (prod(gate, "pep", "enforcer"), environment):
        strange = evaluate(gate, token, again(question, {"id": request_id})).body
        absent = evaluate(gate, token, again(question, {"id": "0" * 32})).body
        for body in (strange, absent):
            assert (body["decision"], body["context"]["reason"]) == (False, "approval_unverifiable")
            assert body["context"]["next_action"] == "none"
            assert "access_request" not in body["context"]


def test_approved_request_releases_no_call(gate: GateProcess) -> None:
    bot, question = prod(gate, "caller"), update("caller", "one note")
    request_id = opened(gate, bot, question)
    assert vote(gate, request_id, "approve").status == 200
    body, wait = {"work_notes": "one note"}, {"Prefer": "wait=0"}
    proxied = send(gate, "PATCH", f"{INCIDENTS}/{INCIDENT}", bot, body, wait)
    assert (proxied.status, proxied.code) == (403, "approval_required")
    assert proxied.body["approval"]["id"] != request_id


def test_request_for_somebody_else_is_decided_by_neither_of_the_two(gate: GateProcess) -> None:
    pep, question = prod(gate, "pep-2", "enforcer"), update("boss", "for the boss")
    request_id = opened(gate, pep, question)
    for voter in (prod(gate, "boss", "approver"), prod(gate, "pep-2", "approver")):
        assert (vote(gate, request_id, "approve", voter).status, vote(gate, request_id, "deny", voter).code) == (
            403,
            "denied",
        )
    assert vote(gate, request_id, "approve").status == 200
    assert evaluate(gate, pep, again(question, request_id)).body["decision"] is True
    boss = prod(gate, "boss")
    assert evaluate(gate, boss, again(question, request_id)).body["context"]["reason"] == "approval_unverifiable"


def test_each_evaluation_of_a_batch_has_its_own_request(gate: GateProcess) -> None:
    pep = prod(gate, "pep-3", "enforcer")
    questions = [update("batch", note) for note in ("one", "two")]
    answered = send(gate, "POST", EVALUATIONS, pep, {"evaluations": [*questions, {}]})
    one, two, broken = (each["context"] for each in answered.body["evaluations"])
    assert one["access_request"]["binding_token"] != two["access_request"]["binding_token"]
    assert "access_request" not in broken
    denied = {
        "expires_at": two["access_request"]["expires_at"],
        "binding_token": two["access_request"]["binding_token"],
    }
    crossed = submit(gate, pep, submission(questions[0], denied))
    assert (crossed.status, crossed.body["type"]) == (400, f"{URN}invalid_denial_binding")
    request_id = submit(gate, pep, submission(questions[1], denied)).body["task"]["id"]
    assert vote(gate, request_id, "approve").status == 200
    both = send(gate, "POST", EVALUATIONS, pep, {"evaluations": questions, "context": {"approval": request_id}}).body
    assert [each["decision"] for each in both["evaluations"]] == [False, True]


def test_request_is_denied_when_a_person_says_no(gate: GateProcess) -> None:
    bot, question = prod(gate, "denied"), update("denied", "denied")
    request_id = opened(gate, bot, question)
    assert vote(gate, request_id, "deny").status == 200
    done = task(gate, bot, request_id).body
    assert done["task"]["status"] == "denied"
    assert done["task"]["display"]["description"] == "seen"
    assert "result" not in done
    context = evaluate(gate, bot, again(question, request_id)).body["context"]
    assert (context["reason"], context["next_action"]) == ("approval_denied", "none")
    assert "access_request" not in context


@pytest.mark.parametrize(("method", "suffix"), [("POST", "/cancel"), ("DELETE", "/cancel"), ("DELETE", "")])
def test_request_is_cancelled_once_and_its_token_opens_no_other(gate: GateProcess, method: str, suffix: str) -> None:
    who = f"cancelling-{method}{len(suffix)}"
    bot, question = prod(gate, who), update(who, "cancel")
    body = submission(question, denial(gate, bot, question))
    request_id = submit(gate, bot, body).body["task"]["id"]
    gone = send(gate, method, f"{REQUESTS}/{request_id}{suffix}", bot)
    assert (gone.status, gone.body["task"]["status"]) == (200, "cancelled")
    late = send(gate, method, f"{REQUESTS}/{request_id}{suffix}", bot)
    assert (late.status, late.code, late.body["type"]) == (409, "stale_state", f"{URN}invalid_task_state")
    repeated = submit(gate, bot, body)
    assert (repeated.status, repeated.body["task"]) == (202, gone.body["task"])
    assert (vote(gate, request_id, "approve").status, task(gate, bot, request_id).body["task"]["status"]) == (
        409,
        "cancelled",
    )
    assert opened(gate, bot, question) != request_id, "another denial opens another request"


def test_approved_request_is_revoked_when_its_requester_withdraws_it(gate: GateProcess) -> None:
    bot, question = prod(gate, "revoking"), update("revoking", "revoke")
    request_id = opened(gate, bot, question)
    assert vote(gate, request_id, "approve").status == 200
    late = send(gate, "DELETE", f"{REQUESTS}/{request_id}", bot)
    assert (late.status, late.body["type"]) == (409, f"{URN}invalid_task_state")
    assert send(gate, "POST", f"/v1/approvals/{request_id}/withdraw", bot).status == 200
    context = evaluate(gate, bot, again(question, request_id)).body["context"]
    assert (context["reason"], context["next_action"]) == ("approval_expired", "request")
    assert task(gate, bot, request_id).body["task"]["status"] == "approved", "a task ends once"


def test_one_request_is_opened_when_submissions_race(gate: GateProcess) -> None:
    bot, question = prod(gate, "racing"), update("racing", "race")
    body = submission(question, denial(gate, bot, question))
    others = [submission(question, denial(gate, bot, question)) for _ in range(3)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: submit(gate, bot, each), [body] * 5 + others))
    assert [each.status for each in answers] == [202] * 8, [each.body for each in answers]
    (request_id,) = {each.body["task"]["id"] for each in answers}
    records = [one for one in _records(gate) if one["ids"].get("approval") == request_id and one["kind"] == "approval"]
    assert len([one for one in records if "attached" not in one["action"]]) == 1
    assert vote(gate, request_id, "deny").status == 200
    for each in (body, *others):
        assert submit(gate, bot, each).body["task"]["id"] == request_id, "each denial has had its request"


def test_status_comes_at_the_vote_when_its_reader_waits(gate: GateProcess) -> None:
    bot, question = prod(gate, "waiting"), update("waiting", "wait")
    request_id = opened(gate, bot, question)
    unhurried = task(gate, bot, request_id, {"Prefer": "wait=0"})
    assert (unhurried.body["task"]["status"], unhurried.headers["preference-applied"]) == ("pending", "wait=0")
    got: list[Answered] = []
    started = time.monotonic()
    reader = threading.Thread(
        target=lambda: got.append(task(gate, bot, request_id, {"Prefer": f"wait={int(WAIT_SECONDS)}"}))
    )
    reader.start()
    assert vote(gate, request_id, "approve").status == 200
    reader.join(WAIT_SECONDS)
    assert got[0].body["task"]["status"] == "approved"
    assert time.monotonic() - started < WAIT_SECONDS


def test_same_key_gives_the_same_request_and_another_body_is_refused(gate: GateProcess) -> None:
    bot, question = prod(gate, "keyed"), update("keyed", "key")
    body, key = submission(question, denial(gate, bot, question)), {"Idempotency-Key": "k-1"}
    first = submit(gate, bot, body, key)
    assert (submit(gate, bot, body, key).body, first.status) == (first.body, 202)
    other = submit(gate, bot, {**body, "client": {"id": "x"}}, key)
    assert (other.status, other.code, other.body["type"]) == (
        409,
        "idempotency_mismatch",
        f"{URN}duplicate_request",
    )
    long = submit(gate, bot, body, {"Idempotency-Key": "k" * 256})
    assert (long.status, long.code) == (400, "malformed_request")


def test_operations_are_logged_and_counted_by_their_names(gate: GateProcess) -> None:
    bot, question = prod(gate, "counted"), update("counted", "count")
    names = {verb: f"tidegate.access_request.{verb}" for verb in ("create", "show", "cancel")}
    before = {verb: counted(gate, "tidegate_calls_total", "ok", name) for verb, name in names.items()}
    made = submit(gate, bot, submission(question, denial(gate, bot, question)))
    request_id = made.body["task"]["id"]
    task(gate, bot, request_id)
    send(gate, "DELETE", f"{REQUESTS}/{request_id}", bot)
    after = {verb: counted(gate, "tidegate_calls_total", "ok", name) for verb, name in names.items()}
    assert {verb: after[verb] - before[verb] for verb in names} == {"create": 1, "show": 1, "cancel": 1}
    line = logged(gate, made.headers["tidegate-call"])
    assert line is not None
    assert (line["action"], line["approval"], line["mode"]) == (names["create"], request_id, "write")


@pytest.mark.parametrize("who", ["another caller", "another tenant", "a held call's id", "an id that is none"])
def test_task_is_the_same_not_found_for(gate: GateProcess, who: str) -> None:
    bot, question = prod(gate, "hidden"), update("hidden", who)
    request_id = opened(gate, bot, question)
    token, wanted = {
        "another caller": (prod(gate, "pep", "enforcer"), request_id),
        "another tenant": (prod(gate, "hidden", tenant="rival"), request_id),
        "a held call's id": held_call(gate, "hidden", "hidden"),
        "an id that is none": (bot, "nothing"),
    }[who]
    for method in ("GET", "DELETE"):
        answered = send(gate, method, f"{REQUESTS}/{wanted}", token)
        assert (answered.status, answered.code, answered.body["type"]) == (404, "not_found", f"{URN}unknown_task")
        assert answered.body["detail"] == "there is no such access request"
        assert answered.headers["content-type"] == "application/problem+json"
    assert task(gate, bot, request_id).body["task"]["status"] == "pending"


UNBOUND: dict[str, Any] = {
    "no denial": lambda body: {name: value for name, value in body.items() if name != "denial"},
    "a denial that is no object": lambda body: {**body, "denial": "denied"},
    "no token": lambda body: {**body, "denial": {**body["denial"], "binding_token": ""}},
    "a token of nobody": lambda body: {**body, "denial": {**body["denial"], "binding_token": "AAAA.AAAA"}},
    "another expiry": lambda body: {**body, "denial": {**body["denial"], "expires_at": "2099-01-01T00:00:00.000Z"}},
    "another evaluation": lambda body: {**body, "denial": {**body["denial"], "evaluation_id": "0" * 32}},
    "other arguments": lambda body: {**body, "action": update("unbound", "changed")["action"]},
    "another subject's properties": lambda body: {**body, "subject": {**body["subject"], "properties": {}}},
    "another context": lambda body: {**body, "context": {**body["context"], "channel": "mail"}},
    "less context": lambda body: {**body, "context": {}},
}


@pytest.mark.parametrize("changed", UNBOUND.values(), ids=UNBOUND.keys())
def test_request_is_not_bound_by(gate: GateProcess, changed: Any) -> None:
    bot, question = prod(gate, "unbound"), update("unbound", "bound", {"channel": "chat"})
    answered = submit(gate, bot, changed(submission(question, denial(gate, bot, question))))
    assert (answered.status, answered.code) == (400, "malformed_request"), answered.body
    assert answered.body["type"] == f"{URN}invalid_denial_binding"
    assert answered.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("tenant", ["acme", "rival"])
def test_token_of_another_caller_is_as_good_as_none(gate: GateProcess, tenant: str) -> None:
    question = update("shared", "share")
    denied = denial(gate, prod(gate, "pep-4", "enforcer"), question)
    other = prod(gate, "pep-5", "enforcer", tenant=tenant)
    stolen = submit(gate, other, submission(question, denied))
    forged = submit(gate, other, submission(question, {**denied, "binding_token": "AAAA.AAAA"}))
    assert stolen.status == forged.status == 400
    assert {**stolen.body, "call": ""} == {**forged.body, "call": ""}


MALFORMED: dict[str, Any] = {
    "several questions at once": {"items": [{}]},
    "a callback": {"callback": {"endpoint": "https://pep.example"}},
    "other access than was denied": {"requested_access": {"requested_until": "2099-01-01T00:00:00Z"}},
    "a reason that is no text": {"context": {"business_justification": 7}},
    "a reason too long": {"context": {"business_justification": "x" * 2001}},
    "no subject": {"subject": None},
    "arguments without the resource": {"resource": {"type": "user", "id": INCIDENT}},
}


@pytest.mark.parametrize("changes", MALFORMED.values(), ids=MALFORMED.keys())
def test_request_is_malformed_with(gate: GateProcess, changes: dict[str, Any]) -> None:
    bot, question = prod(gate, "malformed"), update("malformed", "mal")
    answered = submit(gate, bot, {**submission(question, denial(gate, bot, question)), **changes})
    assert (answered.status, answered.code) == (400, "malformed_request"), answered.body


RAW: dict[str, tuple[Any, dict[str, str], int, str]] = {
    "no JSON": (b"{", {}, 400, "malformed_request"),
    "no object": ([], {}, 400, "malformed_request"),
    "another Content-Type": (b"{}", {"Content-Type": "text/plain"}, 400, "malformed_request"),
    "a body too large": (b" " * (3 << 20), {}, 413, "body_too_large"),
}


@pytest.mark.parametrize(("body", "headers", "status", "code"), RAW.values(), ids=RAW.keys())
def test_request_is_refused_with(gate: GateProcess, body: Any, headers: dict[str, str], status: int, code: str) -> None:
    answered = submit(gate, prod(gate, "raw"), body, {**headers, "X-Request-ID": "r-1"})
    assert (answered.status, answered.code, answered.headers["x-request-id"]) == (status, code, "r-1")


ELSEWHERE = [
    ("GET", REQUESTS, 405, "method_not_allowed"),
    ("PUT", f"{REQUESTS}/x", 405, "method_not_allowed"),
    ("GET", f"{REQUESTS}/x/cancel", 405, "method_not_allowed"),
    ("GET", f"{REQUESTS}/x/y", 404, "not_found"),
    ("POST", f"{REQUESTS}/x/cancel/y", 404, "not_found"),
]


@pytest.mark.parametrize(("method", "path", "status", "code"), ELSEWHERE)
def test_path_is_refused(gate: GateProcess, method: str, path: str, status: int, code: str) -> None:
    answered = send(gate, method, path, prod(gate, "lost"))
    assert (answered.status, answered.code) == (status, code)


OPERATIONS = [("POST", REQUESTS), ("GET", f"{REQUESTS}/x"), ("DELETE", f"{REQUESTS}/x")]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_operation_is_denied_when_no_role_grants_it(gate: GateProcess, method: str, path: str) -> None:
    answered = send(gate, method, path, prod(gate, "nobody", "auditor"), {} if method == "POST" else None)
    assert (answered.status, answered.code) == (403, "denied")
    assert answered.body["reasons"][0]["code"] == "no_rule_matched"


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_operation_is_refused_when_nobody_asks(gate: GateProcess, method: str, path: str) -> None:
    answered = send(gate, method, path)
    assert (answered.status, answered.code) == (401, "identity_missing")


def test_caller_asks_for_nobody_else_without_the_authority(gate: GateProcess) -> None:
    question = update("somebody", "else")
    denied = denial(gate, prod(gate, "pep-6", "enforcer"), question)
    answered = submit(gate, prod(gate, "pep-6"), submission(question, denied))
    assert (answered.status, answered.code) == (403, "denied")


def test_description_and_metadata_name_where_requests_are_handed_in(gate: GateProcess) -> None:
    paths = send(gate, "GET", "/openapi.json").body["paths"]
    assert paths[REQUESTS].keys() == {"post"}
    assert paths[f"{REQUESTS}/{{id}}"].keys() == {"get", "delete"}
    assert paths[f"{REQUESTS}/{{id}}/cancel"].keys() == {"post"}
    metadata = send(gate, "GET", METADATA).body
    assert metadata["access_request_endpoint"] == f"{gate.url}{REQUESTS}"
