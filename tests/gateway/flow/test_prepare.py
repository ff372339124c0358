"""Calls in our own words, rendered and checked as if a client had sent them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.edge.headers import NO_PREFERENCE
from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.flow.call import api_flow
from gateway.flow.values import ApiRequest, Trace
from gateway.store.port import SaveAnswer, SaveCall
from pdp.documents import Effect
from tests.gateway.flow.playbook import (
    BEGAN,
    NO_SWITCH,
    NOW,
    READ,
    RECORDED,
    REWRITTEN,
    SUBJECT,
    Answer,
    Played,
    context,
    decided,
    plan,
    play,
)

ALLOWED = e.PolicyAnswered(decided())


def _call(
    action: str, arguments: dict[str, Any], answers: list[Answer], *, tenants: tuple[str, ...] = ("*",)
) -> Played:
    trace = Trace("call-1", "desk", "desk")
    on = plan(tenants=tenants)
    request = ApiRequest("call-1", on, SUBJECT, action, arguments, None, None, None, "", NO_PREFERENCE, NOW)
    return play(api_flow(request, trace, context()), trace, answers)


def test_call_is_rendered_as_the_request_its_action_stands_for() -> None:
    answers: list[Answer] = [NO_SWITCH, ALLOWED, RECORDED, NO_SWITCH, BEGAN, READ, REWRITTEN, RECORDED]
    played = _call("desk.item.update", {"id": "7", "note": "n"}, answers)
    sent = played.all_of(c.Dispatch)[0].outbound
    assert (sent.method, sent.path, sent.body) == ("PATCH", "/api/items/7", b'{"note":"n"}')


def test_call_can_be_followed_because_its_row_and_answer_are_kept() -> None:
    answers: list[Answer] = [NO_SWITCH, ALLOWED, BEGAN, READ, REWRITTEN, RECORDED]
    played = _call("desk.item.list", {}, answers)
    kinds = [type(effect) for effect in played.all_of(c.AppendRecord)[-1].effects]
    assert kinds == [SaveAnswer, SaveCall]


@pytest.mark.parametrize(
    ("action", "arguments", "code"),
    [
        pytest.param("desk.nosuch", {}, "unclassified", id="no such action"),
        pytest.param("desk.item.update", {"id": "7"}, "arguments_invalid", id="a required argument missing"),
        pytest.param("desk.item.update", {"id": "..", "note": "n"}, "arguments_invalid", id="a dot segment"),
        pytest.param("desk.item.update", {"id": "a/b", "note": "n"}, "arguments_invalid", id="a slash in a segment"),
        pytest.param("desk.item.update", {"id": "7", "note": "n", "x": 1}, "arguments_invalid", id="undeclared"),
    ],
)
def test_call_is_refused_and_recorded(action: str, arguments: dict[str, Any], code: str) -> None:
    played = _call(action, arguments, [RECORDED])
    assert played.refused is not None
    assert played.refused.code == code
    assert played.names == ["AppendRecord:refusal"]


def test_call_is_unclassified_when_the_instance_is_not_for_the_tenant() -> None:
    played = _call("desk.item.list", {}, [RECORDED], tenants=("other",))
    assert played.refused is not None
    assert played.refused.code == "unclassified"


def test_denied_call_keeps_a_row_that_says_so() -> None:
    played = _call("desk.item.list", {}, [NO_SWITCH, e.PolicyAnswered(decided(Effect.DENY)), RECORDED])
    rows = [effect.row.state for effect in played.all_of(c.AppendRecord)[0].effects]
    assert rows == ["refused"]


def test_answer_too_large_to_hold_is_refused_for_a_governed_call() -> None:
    cut = e.AnswerRead(b"x", complete=False, leaked=False)
    played = _call("desk.item.list", {}, [NO_SWITCH, ALLOWED, BEGAN, cut, e.DONE, RECORDED])
    assert played.refused is not None
    assert played.refused.code == "upstream_failed"
