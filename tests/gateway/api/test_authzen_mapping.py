"""The mapping alone: what the gate knows wins over what a request states, and nothing else is lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.authzen_mapping import (
    CONNECTOR,
    EVALUATIONS_MAX,
    KnownAction,
    MalformedQuestion,
    Question,
    decision_answer,
    input_document,
    metadata,
    parse_evaluation,
    parse_evaluations,
    refused_answer,
    settles,
)
from gateway.edge.identity import Subject
from pdp.documents import ActionFacts, ApprovalObligation, Decision, Effect, Reason
from pdp.errors import InputRefused

CALLER = Subject(
    id="pep",
    type="agent",
    issuer="urn:test",
    tenant="acme",
    workspace="ops",
    environment="test",
    roles=("enforcer",),
    acr="phr",
    amr=("hwk",),
    auth_time=1_700_000_000,
    on_behalf_of=None,
    actors=(),
    people=False,
    expires_at=1_800_000_000,
)
KNOWN = KnownAction(ActionFacts("mail.send", "write", "low", True, True), "mail", "mail-eu", "message", "m1")
NOW = 1_768_386_600.25

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def question(subject: Any = None, action: Any = None, resource: Any = None, context: Any = None) -> Question:
    """A question, parsed as it would come."""
    asked = parse_evaluation(
        {
            "subject": subject or {"type": "user", "id": "ann"},
            "action": action or {"name": "mail.send"},
            "resource": resource or {"type": "message", "id": "m1"},
            "context": context or {},
        }
    ).questions[0]
    assert isinstance(asked, Question)
    return asked


def document(asked: Question, known: KnownAction | None = None) -> dict[str, Any]:
    """Its input document."""
    return input_document(asked, CALLER, known, now=NOW, evaluation_id="e1")


def test_document_carries_the_callers_scope_when_nothing_is_stated() -> None:
    properties = document(question())["subject"]["properties"]
    assert properties == {"tenant": "acme", "workspace": "ops", "environment": "test", "roles": [], "amr": []}


def test_document_keeps_properties_that_the_gate_does_not_know() -> None:
    made = document(
        question(
            {"type": "user", "id": "ann", "properties": {"team": "red"}},
            {"name": "send", "properties": {"soft": True}},
            {"type": "message", "id": "m1", "properties": {"owner": "bob"}},
            {"ip": "192.0.2.7"},
        )
    )
    assert made["subject"]["properties"]["team"] == "red"
    assert made["action"]["properties"]["soft"] is True
    assert made["resource"]["properties"] == {"owner": "bob", "connector": CONNECTOR, "instance": CONNECTOR}
    assert made["context"]["ip"] == "192.0.2.7"


def test_document_takes_an_unknown_action_for_the_most_dangerous_kind() -> None:
    stated = {"mode": "read", "risk": "low", "reversible": True, "idempotent": True}
    made = document(question(action={"name": "burn", "properties": stated}))
    assert made["action"]["properties"] == {"mode": "write", "risk": "high", "reversible": False, "idempotent": False}


def test_document_takes_a_known_actions_facts_from_the_manifest() -> None:
    made = document(
        question(action={"name": "mail.send", "properties": {"risk": "none", "arguments": {"to": "x"}}}), KNOWN
    )
    assert made["action"]["properties"] == {"mode": "write", "risk": "low", "reversible": True, "idempotent": True}
    assert made["args"] == {"to": "x"}
    assert made["resource"]["properties"] == {"connector": "mail", "instance": "mail-eu"}


def test_document_believes_the_token_when_callers_ask_about_themselves() -> None:
    stated = {"roles": ["operator"], "acr": "none", "autonomy": "AL3", "on_behalf_of": "root", "team": "red"}
    made = document(question({"type": "agent", "id": "pep", "properties": stated}))["subject"]["properties"]
    assert (made["roles"], made["acr"], made["amr"]) == (["enforcer"], "phr", ["hwk"])
    assert "autonomy" not in made
    assert "on_behalf_of" not in made
    assert made["team"] == "red"


def test_document_does_not_take_another_type_of_subject_for_the_caller() -> None:
    made = document(question({"type": "user", "id": "pep", "properties": {"roles": ["reader"]}}))
    assert made["subject"]["properties"]["roles"] == ["reader"]


OWN = ["time", "clock", "call", "approval", "facts", "budget", "run", "request"]


@pytest.mark.parametrize("name", OWN)
def test_document_ignores_a_stated_context_member_that_is_the_gates_own(name: str) -> None:
    made = document(question(context={name: {"state": "approved"}}))["context"]
    assert made.get(name) != {"state": "approved"}
    assert made["call"] == "e1"
    assert made["time"] == "2026-01-14T10:30:00.250Z"


def test_document_carries_a_ticket_that_the_request_names() -> None:
    assert document(question(context={"ticket": "CHG7"}))["context"]["ticket"] == "CHG7"


FAULTS: dict[str, dict[str, Any]] = {
    "a tenant that is not the caller's": {"subject": {"type": "user", "id": "a", "properties": {"tenant": "globex"}}},
    "a tenant that is a number": {"subject": {"type": "user", "id": "a", "properties": {"tenant": 1}}},
    "an acr that is a number": {"subject": {"type": "user", "id": "a", "properties": {"acr": 1}}},
    "an auth_time that is true": {"subject": {"type": "user", "id": "a", "properties": {"auth_time": True}}},
    "another instance": {"resource": {"type": "message", "id": "m1", "properties": {"instance": "mail-us"}}},
    "another resource id": {"resource": {"type": "message", "id": "m2"}},
    "another resource type": {"resource": {"type": "letter", "id": "m1"}},
    "a ticket that is a number": {"context": {"ticket": 7}},
    "an empty ticket": {"context": {"ticket": ""}},
}


@pytest.mark.parametrize("parts", FAULTS.values(), ids=FAULTS.keys())
def test_document_is_refused_when_the_question_has(parts: dict[str, Any]) -> None:
    with pytest.raises(MalformedQuestion):
        document(question(**parts), KNOWN)


@given(JSON)
def test_parsing_ends_in_questions_or_a_refusal_whatever_the_body(body: Any) -> None:
    for parse in (parse_evaluation, parse_evaluations):
        try:
            asked = parse(body)
        except MalformedQuestion:
            continue
        assert asked.questions


@given(JSON, JSON, JSON)
def test_document_never_loses_the_callers_scope(subject: Any, action: Any, context: Any) -> None:
    body = {
        "subject": {"type": "user", "id": "ann", "properties": subject},
        "action": {"name": "x", "properties": action},
        "resource": {"type": "t", "id": "i"},
        "context": context,
    }
    try:
        asked = parse_evaluation(body).questions[0]
        if isinstance(asked, MalformedQuestion):
            raise asked
        made = document(asked)
    except (MalformedQuestion, InputRefused):
        return
    assert made["subject"]["properties"]["tenant"] == "acme"
    assert made["context"]["call"] == "e1"
    assert made["action"]["properties"]["mode"] == "write"


@pytest.mark.parametrize("effect", [effect for effect in Effect if effect is not Effect.ALLOW])
def test_answer_is_closed_when_the_effect_is(effect: Effect) -> None:
    answer = decision_answer(Decision(effect, (Reason("why", "rule", "words"),)), "e1")
    assert answer["decision"] is False


def test_answer_is_open_only_when_the_effect_is_allow() -> None:
    assert decision_answer(Decision(Effect.ALLOW), "e1")["decision"] is True


def test_answer_names_the_chains_when_a_person_must_agree() -> None:
    held = Decision(Effect.REQUIRE_HITL, (), ApprovalObligation(("two-person",), 60, 30))
    context = decision_answer(held, "e1")["context"]
    assert isinstance(context, dict)
    assert context["approval"] == {"chains": ["two-person"], "decide_within_seconds": 60, "use_within_seconds": 30}


@pytest.mark.parametrize(
    ("semantic", "permitted", "ends"),
    [
        ("execute_all", True, False),
        ("execute_all", False, False),
        ("deny_on_first_deny", False, True),
        ("deny_on_first_deny", True, False),
        ("permit_on_first_permit", True, True),
        ("permit_on_first_permit", False, False),
    ],
)
def test_batch_ends_when_its_semantic_says_so(semantic: Any, permitted: bool, ends: bool) -> None:
    assert settles(semantic, permitted) is ends


def test_metadata_offers_no_search() -> None:
    offered = metadata("https://pdp.example.com/gate")
    assert offered["policy_decision_point"] == "https://pdp.example.com/gate"
    assert not [name for name in offered if name.startswith("search_")]


READS: dict[str, Any] = {
    "subject": {"type": "user", "id": "ann"},
    "action": {"name": "read"},
    "resource": {"type": "message", "id": "m1"},
}


def several(**whole: Any) -> list[str]:
    """What a batch asks, one line each: who does what to which, or what is wrong."""
    asked = parse_evaluations(whole)
    assert asked.several
    return [
        one.detail if isinstance(one, MalformedQuestion) else f"{one.subject.id} {one.action} {one.resource.id}"
        for one in asked.questions
    ]


def test_batch_fills_in_whole_defaults() -> None:
    asked = several(
        **READS, evaluations=[{}, {"action": {"name": "write"}}, {"subject": {"type": "user", "id": "bob"}}]
    )
    assert asked == ["ann read m1", "ann write m1", "bob read m1"]


def test_batch_keeps_faults_in_their_places() -> None:
    asked = several(subject=READS["subject"], evaluations=[READS, {}, {**READS, "resource": {"type": "message"}}])
    assert asked == ["ann read m1", "action is missing", "resource.id is missing"]


@pytest.mark.parametrize("whole", [READS, {**READS, "evaluations": []}])
def test_batch_is_a_single_question_without_a_list(whole: dict[str, Any]) -> None:
    assert not parse_evaluations(whole).several


WHOLE_FAULTS: dict[str, Any] = {
    "a body that is text": "x",
    "a list that is none": {**READS, "evaluations": 1},
    "too many": {**READS, "evaluations": [{}] * (EVALUATIONS_MAX + 1)},
    "an evaluation that is none": {**READS, "evaluations": [1]},
    "a subject that is none": {**READS, "subject": 1, "evaluations": [{}]},
    "an action without a name": {**READS, "action": {}, "evaluations": [{}]},
    "a resource without an id": {**READS, "resource": {"type": "t"}, "evaluations": [{}]},
    "a context that is none": {**READS, "context": 1, "evaluations": [{}]},
    "options that are none": {**READS, "options": 1, "evaluations": [{}]},
    "another semantic": {**READS, "options": {"evaluations_semantic": "x"}, "evaluations": [{}]},
}


@pytest.mark.parametrize("whole", WHOLE_FAULTS.values(), ids=WHOLE_FAULTS.keys())
def test_batch_is_refused_as_a_whole_for(whole: Any) -> None:
    with pytest.raises(MalformedQuestion):
        parse_evaluations(whole)


def test_arguments_are_refused_when_they_are_no_object() -> None:
    with pytest.raises(MalformedQuestion):
        document(question(action={"name": "x", "properties": {"arguments": []}}))


def test_failure_is_answered_closed() -> None:
    failed = refused_answer("malformed_request", "words", 400)
    assert failed["decision"] is False
    assert failed["context"] == {"reason": "malformed_request", "error": {"status": 400, "message": "words"}}
