"""The parts of evaluation requests: defaults that are checked though unused, and facts of the wrong kind."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.api.authzen_mapping import MalformedQuestion, input_document, parse_evaluation, parse_evaluations
from gateway.flow.describe import early_refusal
from gateway.flow.values import Trace
from tests.gateway.api.test_authzen_mapping import CALLER, KNOWN, NOW
from tests.gateway.flow.playbook import SUBJECT

WHOLE: dict[str, Any] = {
    "subject": {"type": "user", "id": "ann"},
    "action": {"name": "mail.send"},
    "resource": {"type": "message", "id": "m1"},
    "context": {"time": "now"},
}
ITEM = {name: value for name, value in WHOLE.items() if name != "context"}


@pytest.mark.parametrize("absent", [(), *((name,) for name in WHOLE), tuple(WHOLE)], ids="/".join)
def test_evaluations_need_no_defaults_when_each_says_everything(absent: tuple[str, ...]) -> None:
    defaults = {name: value for name, value in WHOLE.items() if name not in absent}
    asked = parse_evaluations({**defaults, "evaluations": [ITEM, ITEM]})
    assert (asked.several, len(asked.questions)) == (True, 2)


DEFAULTS: dict[str, Any] = {
    "subject": {"type": "user"},
    "action": {"name": ""},
    "resource": [],
    "context": "now",
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_evaluations_are_malformed_when_a_default_that_nobody_uses_is_wrong_in_its(name: str) -> None:
    with pytest.raises(MalformedQuestion):
        parse_evaluations({name: DEFAULTS[name], "evaluations": [{**WHOLE}]})


PARTS: dict[str, Any] = {
    "subject": "ann",
    "action": "mail.send",
    "resource": ["m1"],
    "context": ["now"],
}


@pytest.mark.parametrize("name", PARTS)
def test_evaluation_is_malformed_when_it_is_no_object_in_its(name: str) -> None:
    with pytest.raises(MalformedQuestion, match=name):
        parse_evaluation({**WHOLE, name: PARTS[name]})


FACTS: dict[str, Any] = {
    "roles that are one text": {"roles": "admin"},
    "roles among which is a number": {"roles": ["admin", 1]},
    "roles that are an object": {"roles": {"admin": True}},
    "amr that is null": {"amr": None},
    "amr among which is null": {"amr": ["pwd", None]},
}


@pytest.mark.parametrize("fault", FACTS)
def test_question_is_malformed_when_its_subject_states(fault: str) -> None:
    asked = parse_evaluation({**WHOLE, "subject": {"type": "user", "id": "ann", "properties": FACTS[fault]}})
    (question,) = asked.questions
    assert not isinstance(question, MalformedQuestion)
    with pytest.raises(MalformedQuestion, match="no array of texts"):
        input_document(question, CALLER, KNOWN, now=NOW, evaluation_id="e1")


@pytest.mark.parametrize("approval", [None, "app-1"], ids=["no approval", "an approval"])
def test_record_of_an_early_refusal_names_the_approval_when_the_request_is_about(approval: str | None) -> None:
    trace = Trace("call-1", "tidegate", "tidegate", subject=SUBJECT, approval_id=approval)
    ids = early_refusal(trace, SUBJECT, "denied").ids
    assert ids == ({"call": "call-1"} if approval is None else {"call": "call-1", "approval": "app-1"})


def test_record_of_an_early_refusal_names_the_call_that_issued_the_ticket() -> None:
    trace = Trace("call-2", "files", "files", subject=SUBJECT, issued_by="call-1")
    assert early_refusal(trace, SUBJECT, "denied").ids == {"call": "call-2", "issued_by": "call-1"}
