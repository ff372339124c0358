"""The AuthZEN API over a real socket: the certification scenario, the Todo scenario, and everything it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.api.authzen_mapping import EVALUATIONS_MAX
from tests.e2e.harness import GateProcess, edit_config, init_directory, read_config
from tests.e2e.rulebook import add_rules
from tests.integration.authzen_decisions import (
    ACTIVE,
    ADMIN,
    ALICE,
    ARCHIVED,
    BOB,
    CERTIFIED,
    RECORD,
    SCENARIO_BATCHES,
    item,
    person,
    record_question,
    todo_decisions,
)
from tests.integration.test_v1 import Answered, send

RULES = Path(__file__).parent / "authzen_rules"
EVALUATION = "/access/v1/evaluation"
EVALUATIONS = "/access/v1/evaluations"
METADATA = "/.well-known/authzen-configuration"
READS = record_question(ALICE, "read", RECORD)


@pytest.fixture(scope="module")
def pdp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GateProcess]:
    """A gate whose bundle holds the scenarios' rules beside the starter policies."""
    directory = init_directory(tmp_path_factory.mktemp("authzen") / "gate")
    shutil.copytree(RULES, directory / "bundle" / "policies" / "authzen")
    edit_config(directory, {"external_url": f"http://{read_config(directory)['listen']['gate']}"})
    add_rules(directory, "tidegate", "\n# rebuilt with the scenarios' rules\n")
    with GateProcess.start(directory) as running:
        yield running


def ask(pdp: GateProcess, body: Any, path: str = EVALUATION, headers: dict[str, str] | None = None) -> Answered:
    """Ask as a policy enforcement point."""
    return send(pdp, "POST", path, pdp.token("pep", "enforcer"), body, headers)


def decisions(answered: Answered) -> list[bool]:
    """The decisions of a batch, in order."""
    assert answered.status == 200, answered.body
    assert "decision" not in answered.body
    return [one["decision"] for one in answered.body["evaluations"]]


@pytest.mark.parametrize(("request_body", "expected"), [case[1:] for case in CERTIFIED], ids=[c[0] for c in CERTIFIED])
def test_certification_decision_is_as_demanded(pdp: GateProcess, request_body: Any, expected: bool) -> None:
    for _ in range(2):
        answered = ask(pdp, request_body)
        assert (answered.status, answered.body["decision"]) == (200, expected)
    assert answered.headers["content-type"] == "application/json"
    assert isinstance(answered.body["context"], dict)


@pytest.mark.parametrize(
    ("request_body", "expected"), [case[1:] for case in todo_decisions()], ids=[c[0] for c in todo_decisions()]
)
def test_todo_decision_is_as_agreed(pdp: GateProcess, request_body: Any, expected: bool) -> None:
    answered = ask(pdp, request_body)
    assert (answered.status, answered.body["decision"]) == (200, expected)


@pytest.mark.parametrize(("who", "owners", "expected"), SCENARIO_BATCHES, ids=[case[0] for case in SCENARIO_BATCHES])
def test_todo_batch_is_as_agreed(pdp: GateProcess, who: str, owners: tuple[str, ...], expected: tuple[bool]) -> None:
    body = {
        "subject": person(who),
        "action": {"name": "can_update_todo"},
        "evaluations": [{"resource": item(owner)} for owner in owners],
    }
    assert decisions(ask(pdp, body, EVALUATIONS)) == list(expected)


ACCEPTED = {
    "a context is given": {**READS, "context": {"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"}},
    "further properties are given": record_question(
        {**ALICE, "properties": {"department": "Sales", "role": "manager"}},
        "read",
        {**RECORD, "properties": {"status": "active", "owner": "bob"}},
        method="GET",
    ),
    "fields are there that nobody defined": {**READS, "foo": "bar", "futureField": {"nested": True}},
}


@pytest.mark.parametrize("body", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_evaluation_decides_the_same_when(pdp: GateProcess, body: Any) -> None:
    assert ask(pdp, body).body["decision"] is True


WRITES = {"subject": ALICE, "action": {"name": "write"}}
BATCHES: dict[str, tuple[dict[str, Any], list[bool]]] = {
    "actions differ and the order counts": (
        {
            "subject": BOB,
            "resource": RECORD,
            "evaluations": [{"action": {"name": "read"}}, {"action": {"name": "write"}}],
        },
        [True, False],
    ),
    "resources differ in their properties": (
        {**WRITES, "evaluations": [{"resource": ACTIVE}, {"resource": ARCHIVED}]},
        [True, False],
    ),
    "subjects differ in their properties": (
        {"action": {"name": "write"}, "resource": ARCHIVED, "evaluations": [{"subject": ALICE}, {"subject": ADMIN}]},
        [False, True],
    ),
    "nothing is left to defaults": (
        {"evaluations": [READS, record_question(BOB, "write", RECORD)]},
        [True, False],
    ),
    "an evaluation replaces the whole default": (
        {**WRITES, "resource": ACTIVE, "evaluations": [{}, {"resource": ARCHIVED}]},
        [True, False],
    ),
    "one evaluation lacks a resource": (
        {**WRITES, "evaluations": [{"resource": RECORD}, {}], "options": {"evaluations_semantic": "execute_all"}},
        [True, False],
    ),
    "one evaluation replaces a default by something malformed": (
        {**READS, "evaluations": [{"resource": {"type": "record"}}, {}]},
        [False, True],
    ),
    "the first denial ends it": (
        {
            "subject": BOB,
            "resource": RECORD,
            "evaluations": [{"action": {"name": name}} for name in ("read", "write", "read")],
            "options": {"evaluations_semantic": "deny_on_first_deny", "unknown": 1},
        },
        [True, False],
    ),
    "a failure ends it as a denial does": (
        {**READS, "evaluations": [{"resource": 7}, {}], "options": {"evaluations_semantic": "deny_on_first_deny"}},
        [False],
    ),
    "the first permit ends it": (
        {
            "subject": BOB,
            "resource": RECORD,
            "evaluations": [{"action": {"name": name}} for name in ("write", "read", "read")],
            "options": {"evaluations_semantic": "permit_on_first_permit"},
        },
        [False, True],
    ),
}


@pytest.mark.parametrize(("body", "expected"), BATCHES.values(), ids=BATCHES.keys())
def test_batch_is_decided_in_order_when(pdp: GateProcess, body: Any, expected: list[bool]) -> None:
    assert decisions(ask(pdp, body, EVALUATIONS)) == expected


def test_batch_says_why_an_evaluation_failed_when_it_is_malformed(pdp: GateProcess) -> None:
    failed = ask(pdp, {**WRITES, "evaluations": [{}]}, EVALUATIONS).body["evaluations"][0]
    assert failed["context"]["error"] == {"status": 400, "message": "resource is missing"}


@pytest.mark.parametrize("evaluations", [{}, {"evaluations": []}], ids=["no list", "an empty list"])
def test_batch_answers_as_a_single_evaluation_when_it_has(pdp: GateProcess, evaluations: Any) -> None:
    assert ask(pdp, {**READS, **evaluations}, EVALUATIONS).body["decision"] is True


def without(name: str, member: str | None = None) -> dict[str, Any]:
    """The reading request with a part taken out."""
    body: dict[str, Any] = json.loads(json.dumps(READS))
    if member is None:
        del body[name]
    else:
        del body[name][member]
    return body


MALFORMED: dict[str, Any] = {
    "no subject": without("subject"),
    "no action": without("action"),
    "no resource": without("resource"),
    "a subject without type": without("subject", "type"),
    "a subject without id": without("subject", "id"),
    "an action without name": without("action", "name"),
    "a resource without type": without("resource", "type"),
    "a resource without id": without("resource", "id"),
    "a subject that is text": {**READS, "subject": "alice"},
    "a subject that is null": {**READS, "subject": None},
    "an empty subject id": {**READS, "subject": {"type": "user", "id": ""}},
    "an action name that is a number": {**READS, "action": {"name": 123}},
    "properties that are a list": {**READS, "action": {"name": "read", "properties": []}},
    "a context that is a list": {**READS, "context": []},
    "roles that are no list": {**READS, "subject": {**ALICE, "properties": {"roles": "admin"}}},
    "roles that are numbers": {**READS, "subject": {**ALICE, "properties": {"roles": [1]}}},
    "an authentication time in words": {**READS, "subject": {**ALICE, "properties": {"auth_time": "now"}}},
    "arguments that are text": record_question(ALICE, "read", RECORD, arguments="x"),
    "an id beyond its limit": {**READS, "resource": {"type": "record", "id": "r" * 1025}},
    "another connector": {**READS, "resource": {**RECORD, "properties": {"connector": "servicenow"}}},
    "a body that is a list": [READS],
    "broken JSON": b'{"subject": ',
    "a key that stands twice": b'{"subject": {}, "subject": {}}',
    "nothing": b"",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_evaluation_is_bad_request_when_the_body_has(pdp: GateProcess, body: Any) -> None:
    answered = ask(pdp, body, headers={"X-Request-ID": "r-400"})
    assert answered.status == 400, answered.body
    assert isinstance(answered.body, str)
    assert answered.body.startswith("malformed_request: ")
    assert answered.headers["x-request-id"] == "r-400"


MALFORMED_BATCHES: dict[str, Any] = {
    "evaluations that are an object": {**READS, "evaluations": {}},
    "an evaluation that is text": {**READS, "evaluations": ["x"]},
    "a default that is malformed": {"subject": "alice", "evaluations": [READS]},
    "a default action without a name": {"action": {}, "evaluations": [READS]},
    "a default context that is text": {"context": "x", "evaluations": [READS]},
    "a semantic that nobody defined": {"evaluations": [READS], "options": {"evaluations_semantic": "most"}},
    "a semantic that is a list": {"evaluations": [READS], "options": {"evaluations_semantic": ["execute_all"]}},
    "options that are a list": {"evaluations": [READS], "options": []},
    "one evaluation more than the limit": {**READS, "evaluations": [{}] * (EVALUATIONS_MAX + 1)},
    "an empty list and no subject": {**without("subject"), "evaluations": []},
}


@pytest.mark.parametrize("body", MALFORMED_BATCHES.values(), ids=MALFORMED_BATCHES.keys())
def test_batch_is_bad_request_when_the_body_has(pdp: GateProcess, body: Any) -> None:
    answered = ask(pdp, body, EVALUATIONS)
    assert (answered.status, answered.body[:18]) == (400, "malformed_request:")


def test_batch_is_taken_when_it_is_as_long_as_the_limit(pdp: GateProcess) -> None:
    assert (
        decisions(ask(pdp, {**READS, "evaluations": [{}] * EVALUATIONS_MAX}, EVALUATIONS)) == [True] * EVALUATIONS_MAX
    )


@pytest.mark.parametrize("content_type", ["text/plain", "application/json-patch+json", ""])
def test_evaluation_is_bad_request_when_the_content_type_is(pdp: GateProcess, content_type: str) -> None:
    assert ask(pdp, READS, headers={"Content-Type": content_type}).status == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", EVALUATION, 405), ("PUT", EVALUATIONS, 405), ("POST", "/access/v1/search/subject", 404)],
    ids=["an evaluation is fetched", "a batch is put", "a search is wanted"],
)
def test_access_is_refused_when(pdp: GateProcess, method: str, path: str, status: int) -> None:
    answered = send(pdp, method, path, pdp.token("pep", "enforcer"), READS)
    assert answered.status == status
    assert isinstance(answered.body, str)


def test_evaluation_is_unauthorized_when_nobody_asks(pdp: GateProcess) -> None:
    answered = send(pdp, "POST", EVALUATION, "", READS, {"X-Request-ID": "r-401"})
    assert (answered.status, answered.headers["x-request-id"]) == (401, "r-401")
    assert answered.headers["www-authenticate"].startswith("Bearer ")
    assert answered.body.startswith("identity_missing: ")


def test_evaluation_is_forbidden_when_no_role_lets_the_caller_ask(pdp: GateProcess) -> None:
    answered = send(pdp, "POST", EVALUATION, pdp.token("nobody", "stranger"), READS)
    assert (answered.status, answered.body[:7]) == (403, "denied:")


def test_evaluation_is_forbidden_when_a_caller_asks_about_somebody_else(pdp: GateProcess) -> None:
    token = pdp.token("curious", "triage")
    assert send(pdp, "POST", EVALUATION, token, READS).status == 403
    mixed = {**READS, "evaluations": [{"subject": {"type": "agent", "id": "curious"}}, {}]}
    assert send(pdp, "POST", EVALUATIONS, token, mixed).status == 403


def test_request_id_comes_back_when_it_was_given(pdp: GateProcess) -> None:
    assert ask(pdp, READS, headers={"X-Request-ID": "bfe9eb29-ab87"}).headers["x-request-id"] == "bfe9eb29-ab87"
    assert "x-request-id" not in ask(pdp, READS).headers


def test_request_id_is_refused_when_it_is_too_long(pdp: GateProcess) -> None:
    answered = ask(pdp, READS, headers={"X-Request-ID": "r" * 257})
    assert (answered.status, "x-request-id" in answered.headers) == (400, False)


@pytest.mark.parametrize("scope", ["tenant", "workspace", "environment"])
def test_evaluation_is_forbidden_when_it_names_another(pdp: GateProcess, scope: str) -> None:
    foreign = {**READS, "subject": {**ALICE, "properties": {scope: "globex"}}}
    assert ask(pdp, foreign).status == 403
    failed = ask(pdp, {"evaluations": [foreign, READS]}, EVALUATIONS).body["evaluations"]
    assert [one["decision"] for one in failed] == [False, True]
    assert failed[0]["context"]["error"]["status"] == 403


def test_metadata_names_what_is_offered_to_everybody(pdp: GateProcess) -> None:
    answered = send(pdp, "GET", METADATA)
    assert (answered.status, answered.headers["content-type"]) == (200, "application/json")
    assert answered.body == {
        "policy_decision_point": pdp.url,
        "access_evaluation_endpoint": f"{pdp.url}{EVALUATION}",
        "access_evaluations_endpoint": f"{pdp.url}{EVALUATIONS}",
        "access_request_endpoint": f"{pdp.url}/access/v1/requests",
        "capabilities": ["urn:openid:authzen:capability:access-request"],
    }


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", f"{METADATA}/tenant1", 404), ("GET", f"{METADATA}x", 404), ("POST", METADATA, 405)],
    ids=["another decision point", "another name", "another method"],
)
def test_metadata_is_refused_when_asked_for(pdp: GateProcess, method: str, path: str, status: int) -> None:
    assert send(pdp, method, path).status == status
