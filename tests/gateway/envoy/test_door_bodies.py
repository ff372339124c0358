"""Bodies that the door did not see as Envoy would forward them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.envoy.door_flow import door_flow
from gateway.flow import commands as c
from gateway.flow.values import Trace
from tests.gateway.envoy.test_door_flow import ALLOWED, READ, WRITE, always, code_of, reason_of
from tests.gateway.flow.playbook import (
    IDENTIFIED,
    MANIFEST,
    NO_SWITCH,
    RECORDED,
    Answer,
    Played,
    context,
    plan,
    play,
    request,
)


def _played(line: tuple[str, str], body: bytes, answers: list[Answer]) -> Played:
    """A question whose head announces no body, with one."""
    trace = Trace("call-1", "desk", "desk")
    return play(door_flow(request(*line), body, trace, context(), always), trace, answers)


def test_door_flow_refuses_when_a_body_comes_that_nobody_announced() -> None:
    played = _played(READ, b"hidden", [IDENTIFIED, NO_SWITCH, ALLOWED, RECORDED])
    assert (code_of(played), reason_of(played)) == ("denied", "not_supported")
    assert played.finished is None


def test_door_flow_hands_over_when_there_is_no_body_and_none_was_announced() -> None:
    assert _played(READ, b"", [IDENTIFIED, NO_SWITCH, ALLOWED, RECORDED]).finished is not None


UPDATE = MANIFEST["actions"][1]
FORM = {**UPDATE, "arguments": {**UPDATE["arguments"], "body": "form"}}
FORMS: dict[str, dict[str, Any]] = {
    "the action": {"actions": [{**FORM, "caller_token": ["form:token"]}]},
    "the action, beside a header": {"actions": [{**FORM, "caller_token": ["bearer", "form:token"]}]},
    "the connector": {"actions": [FORM], "caller_token": ["form:token"]},
}


@pytest.mark.parametrize("where", FORMS)
def test_door_flow_records_no_intent_when_a_token_may_stand_in_a_form_because_so_says(where: str) -> None:
    on = replace(plan(FORMS[where]), has_token_overrides=True, wants_form=True)
    asked = request(*WRITE, on=on)
    headers = (("content-type", "application/x-www-form-urlencoded"),)
    asked = asked._replace(head=asked.head._replace(headers=headers), has_body=True)
    trace = Trace("call-1", "desk", "desk")
    answers: list[Answer] = [IDENTIFIED, NO_SWITCH, RECORDED]
    played = play(door_flow(asked, b"token=t&note=x", trace, context(), always), trace, answers)
    assert (code_of(played), reason_of(played)) == ("denied", "not_supported")
    assert played.all_of(c.AppendIntent) == [] and played.names[-1] == "AppendRecord:refusal"
