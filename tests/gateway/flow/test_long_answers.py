"""Answers that are too long: for the gate to hold, for the manifest to allow, for the gate to rewrite."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.flow.call import proxy_flow
from gateway.flow.values import Trace
from tests.gateway.flow.playbook import (
    BEGAN,
    IDENTIFIED,
    MANIFEST,
    NO_SWITCH,
    READ,
    RECORDED,
    REWRITTEN,
    Answer,
    Played,
    context,
    plan,
    play,
    request,
)
from tests.gateway.flow.test_call import ALLOWED

HEAD: list[Answer] = [IDENTIFIED, NO_SWITCH, ALLOWED]
STREAMED: list[Answer] = [REWRITTEN, RECORDED, e.DONE, e.AnswerRelayed(9, "ab", None), RECORDED, e.DONE]
REFUSED: list[Answer] = [e.DONE, RECORDED]
HELD_MAX = 100
LIMITED = 50


def _played(answers: list[Answer], target: str = "/api/items", changes: dict[str, Any] | None = None) -> Played:
    trace = Trace("call-1", "desk", "desk")
    flow = proxy_flow(request("GET", target, on=plan(changes)), trace, context(response_buffer_max_bytes=HELD_MAX))
    return play(flow, trace, [*HEAD, *answers])


def _limit(max_bytes: int) -> dict[str, Any]:
    return {"actions": [{**MANIFEST["actions"][0], "response_max_bytes": max_bytes}]}


def _cut(body: bytes = b"first") -> e.AnswerRead:
    return e.AnswerRead(body, complete=False, leaked=False)


def _code(played: Played) -> str:
    assert played.refused is not None
    return played.refused.code


def test_answer_is_streamed_with_what_was_read_of_it_when_it_turns_out_too_long_to_hold() -> None:
    played = _played([BEGAN._replace(length=None), _cut(), *STREAMED])
    assert played.all_of(c.RelayAnswer) == [c.RelayAnswer(b"first", 0)]
    assert played.names.index("AppendRecord:response_began") < played.names.index("BeginStream")


def test_answer_is_streamed_unread_when_it_says_that_it_is_too_long_to_hold() -> None:
    played = _played([BEGAN._replace(length=HELD_MAX + 1), *STREAMED])
    assert played.all_of(c.ReadAnswer) == []
    assert played.all_of(c.RelayAnswer) == [c.RelayAnswer(b"", 0)]


def test_answer_is_read_when_it_says_that_it_can_just_be_held() -> None:
    played = _played([BEGAN._replace(length=HELD_MAX), READ, REWRITTEN, RECORDED])
    assert played.all_of(c.ReadAnswer) == [c.ReadAnswer(HELD_MAX)]
    assert played.all_of(c.BeginStream) == []


def test_answer_is_streamed_when_the_manifest_says_so_and_it_has_no_length() -> None:
    assert _played([BEGAN._replace(length=None), *STREAMED], "/api/watch").all_of(c.ReadAnswer) == []


@pytest.mark.parametrize(
    "rewrite",
    [{"hosts": ["files.example"]}, {"json": ["$.next"]}, {"tickets": ["$.upload"]}],
    ids=["hosts in it", "members of it", "tickets in it"],
)
def test_answer_is_refused_when_it_is_too_long_and_the_gate_rewrites(rewrite: dict[str, Any]) -> None:
    played = _played([BEGAN._replace(length=HELD_MAX + 1), _cut(), *REFUSED], changes={"rewrite": rewrite})
    assert _code(played) == "upstream_failed"
    assert played.all_of(c.BeginStream) == []


def test_answer_is_refused_unread_when_it_says_that_it_is_longer_than_the_action_allows() -> None:
    played = _played([BEGAN._replace(length=LIMITED + 1), *REFUSED], changes=_limit(LIMITED))
    assert _code(played) == "upstream_failed"
    assert played.names[-3:] == ["Dispatch", "DropAnswer", "AppendRecord:call"]


def test_answer_is_read_when_it_is_just_as_long_as_the_action_allows() -> None:
    played = _played([BEGAN._replace(length=LIMITED), READ, REWRITTEN, RECORDED], changes=_limit(LIMITED))
    assert played.all_of(c.ReadAnswer) == [c.ReadAnswer(LIMITED)]
    assert played.finished is not None


def test_answer_is_refused_when_it_turns_out_longer_than_the_action_allows() -> None:
    played = _played([BEGAN._replace(length=None), _cut(), *REFUSED], changes=_limit(LIMITED))
    assert _code(played) == "upstream_failed"
    assert played.names[-3:] == ["ReadAnswer", "DropAnswer", "AppendRecord:call"]


def test_answer_is_streamed_up_to_the_actions_limit_when_that_is_more_than_the_gate_holds() -> None:
    limit = HELD_MAX * 2
    played = _played([BEGAN._replace(length=None), _cut(), *STREAMED], changes=_limit(limit))
    assert played.all_of(c.ReadAnswer) == [c.ReadAnswer(HELD_MAX)]
    assert played.all_of(c.RelayAnswer) == [c.RelayAnswer(b"first", limit)]


@pytest.mark.parametrize(
    ("failed", "code"),
    [
        pytest.param(e.DispatchFailed("failed", "upstream_failed", "cut"), "upstream_failed", id="cut"),
        pytest.param(e.DispatchFailed("timeout", "upstream_timeout", "slow"), "upstream_timeout", id="too slow"),
    ],
)
def test_answer_is_refused_and_recorded_when_reading_it_fails_because_it_is(
    failed: e.DispatchFailed, code: str
) -> None:
    played = _played([BEGAN, failed, *REFUSED])
    assert _code(played) == code
    assert played.names[-2:] == ["DropAnswer", "AppendRecord:call"]
