"""What a simulated question must look like, and what is shown of its answer."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest

from pdp.decided import Decided
from pdp.documents import ApprovalObligation, Decision, Effect, Reason, encode_document, encode_input
from pdp.errors import InputRefused
from pdp.simulate import check_question, decision_document, simulation_document
from tests.pdp.parts import QUESTION

DOCUMENT: dict[str, Any] = orjson.loads(encode_input(QUESTION))
HELD = Decision(
    Effect.REQUIRE_HITL, (Reason("prod", "policies.shop.require_hitl", "a person"),), ApprovalObligation(("two",))
)
POLICY = {"policies/servicenow/x.rego": b"x if input.context.ticket"}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The question with the member at a dotted path set, or left out where the value is ``...``."""
    document = copy.deepcopy(DOCUMENT)
    *steps, last = path.split(".")
    target = document
    for step in steps:
        target = target[step]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return document


def test_question_is_accepted_when_the_gate_would_ask_it() -> None:
    assert check_question(DOCUMENT) is DOCUMENT
    assert encode_document(check_question(DOCUMENT)) == encode_input(QUESTION)


def test_question_is_accepted_when_facts_are_missing_inside_its_parts() -> None:
    bare = {**DOCUMENT, "args": {}, "subject": {"type": "a", "id": "", "properties": {}}}
    del bare["context"]
    assert check_question(bare) is bare


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        pytest.param("v", 2, "v is not 1", id="another version"),
        pytest.param("v", True, "v is not 1", id="a version that is true"),
        pytest.param("v", ..., "v is not 1", id="no version"),
        pytest.param("argz", {}, "'argz'", id="a misspelt part"),
        pytest.param("args", ..., "lacks 'args'", id="no arguments"),
        pytest.param("args", [], "args is not", id="arguments that are a list"),
        pytest.param("context", 1, "context is not", id="a context that is a number"),
        pytest.param("context.tickets", "T", "'tickets'", id="a misspelt fact of the context"),
        pytest.param("subject", "me", "subject is not", id="a subject that is text"),
        pytest.param("subject", ..., "lacks 'subject'", id="no subject"),
        pytest.param("subject.roles", [], "'roles'", id="roles beside the properties"),
        pytest.param("subject.id", 7, "subject.id is not text", id="a number for an id"),
        pytest.param("subject.properties", ..., "lacks 'properties'", id="no properties"),
        pytest.param("subject.properties", [], "subject.properties is not", id="properties that are a list"),
        pytest.param("action.name", None, "action.name is not text", id="no name"),
        pytest.param("action.id", "x", "'id'", id="an id for an action"),
        pytest.param("resource.type", ..., "lacks 'type'", id="no type"),
    ],
)
def test_question_is_refused_when_it_has(path: str, value: Any, named: str) -> None:
    with pytest.raises(InputRefused, match="malformed_request") as caught:
        check_question(changed(path, value))
    assert named in caught.value.detail


@pytest.mark.parametrize("document", [None, [], "x", 1])
def test_question_is_refused_when_it_is_no_object(document: object) -> None:
    with pytest.raises(InputRefused):
        check_question(document)


def test_decision_is_shown_with_its_obligations() -> None:
    assert decision_document(HELD) == {
        "effect": "REQUIRE_HITL",
        "reasons": [{"code": "prod", "message": "a person", "rule": "policies.shop.require_hitl"}],
        "obligations": {
            "approval": {
                "chains": ["two"],
                "decide_within_seconds": 86_400,
                "use_within_seconds": 900,
                "on_approval": "grant",
            }
        },
    }
    assert decision_document(Decision(Effect.ALLOW))["obligations"] == {}


def simulated(*, rules: bool) -> dict[str, Any]:
    decided = Decided(HELD, "r1", "sha256:00", 3, "wasm", "d1", "sha256:ff", 0.1)
    return simulation_document(decided, DOCUMENT, POLICY, rules=rules)


def test_simulation_names_rules_bundle_and_missing_facts() -> None:
    shown = simulated(rules=True)
    assert shown["rules"] == [{"rule": "policies.shop.require_hitl", "code": "prod"}]
    assert shown["missing_facts"] == ["context.ticket"]
    assert shown["bundle"] == {"revision": "r1", "digest": "sha256:00", "sequence": 3}
    assert (shown["engine"], shown["input_digest"]) == ("wasm", "sha256:ff")


def test_simulation_names_no_rule_and_no_fact_when_they_may_not_be_seen() -> None:
    shown = simulated(rules=False)
    assert shown["rules"] is None and shown["missing_facts"] is None
    assert b"require_hitl" not in orjson.dumps(shown)
    assert b"ticket" not in orjson.dumps(shown)
