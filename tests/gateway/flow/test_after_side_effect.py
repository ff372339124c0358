"""Which records are never given up: those of what has begun, and no other."""

from __future__ import annotations

import pytest

from gateway.edge.problem import refusal
from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.flow.call import proxy_flow
from gateway.flow.values import Trace
from pdp.documents import Effect
from tests.gateway.flow.playbook import (
    BEGAN,
    IDENTIFIED,
    NO_SWITCH,
    READ,
    RECORDED,
    REWRITTEN,
    Answer,
    Played,
    context,
    decided,
    play,
    request,
)

ALLOWED = e.PolicyAnswered(decided())
FAILED = refusal("ledger_unavailable")
SENT = e.DispatchFailed("failed", "upstream_failed", "cut")
NOT_SENT = e.DispatchFailed("not_sent", "egress_forbidden", "no")
READING: list[Answer] = [IDENTIFIED, NO_SWITCH, ALLOWED]
WRITING: list[Answer] = [IDENTIFIED, e.BodyRead(b'{"note":"n"}'), NO_SWITCH, ALLOWED, RECORDED, NO_SWITCH]
STREAM = BEGAN._replace(media_type="text/event-stream", length=None)


def _play(method: str, target: str, answers: list[Answer]) -> Played:
    trace = Trace("call-1", "desk", "desk")
    return play(proxy_flow(request(method, target, has_body=method != "GET"), trace, context()), trace, answers)


KEPT = [
    pytest.param("GET", "/api/items", [*READING, BEGAN, READ, REWRITTEN, RECORDED], ["call"], id="a read"),
    pytest.param("GET", "/api/items", [*READING, NOT_SENT, RECORDED], [], id="a read that was not sent"),
    pytest.param("PATCH", "/api/items/7", [*WRITING, BEGAN, READ, REWRITTEN, RECORDED], ["outcome"], id="a write"),
    pytest.param("PATCH", "/api/items/7", [*WRITING, SENT, RECORDED], ["outcome"], id="a write without an answer"),
    pytest.param(
        "PATCH", "/api/items/7", [*WRITING, NOT_SENT, RECORDED], ["outcome"], id="an intent that was not sent"
    ),
    pytest.param(
        "GET",
        "/api/items",
        [IDENTIFIED, NO_SWITCH, e.PolicyAnswered(decided(Effect.DENY)), RECORDED],
        [],
        id="a refusal",
    ),
    pytest.param(
        "GET",
        "/api/watch",
        [*READING, STREAM, REWRITTEN, RECORDED, e.DONE, e.AnswerRelayed(1, "a", None), RECORDED, e.DONE],
        ["call"],
        id="a stream, but not its beginning",
    ),
]


@pytest.mark.parametrize(("method", "target", "answers", "kinds"), KEPT)
def test_record_is_kept_only_when_it_says_how_something_ended(
    method: str, target: str, answers: list[Answer], kinds: list[str]
) -> None:
    played = _play(method, target, answers)
    assert [one.draft.kind for one in played.all_of(c.AppendRecord) if one.after_side_effect] == kinds


def test_outcome_is_recorded_once_when_it_cannot_be_recorded_now() -> None:
    played = _play("PATCH", "/api/items/7", [*WRITING, BEGAN, READ, REWRITTEN, FAILED])
    assert played.names[-1] == "AppendRecord:outcome"
    assert played.refused is not None
    assert played.refused.code == "ledger_unavailable"


def test_failure_is_recorded_once_when_it_cannot_be_recorded_now() -> None:
    played = _play("PATCH", "/api/items/7", [*WRITING, SENT, FAILED])
    assert played.names.count("AppendRecord:outcome") == 1
    assert played.refused is not None
    assert played.refused.code == "ledger_unavailable"


def test_stream_that_could_not_begin_has_an_outcome_when_its_beginning_cannot_be_recorded() -> None:
    played = _play("GET", "/api/watch", [*READING, STREAM, REWRITTEN, FAILED, e.DONE, RECORDED])
    assert played.names[-3:] == ["AppendRecord:response_began", "DropAnswer", "AppendRecord:call"]
    assert played.refused is not None
    assert played.refused.code == "ledger_unavailable"


# -- a fetched credential that the service refuses -----------------------------------------------------------------------
REFUSED = BEGAN._replace(status=401, renewable=True)
AGAIN: list[Answer] = [REFUSED, e.DONE, e.DONE, NO_SWITCH, ALLOWED]
DELIVERED: list[Answer] = [READ, REWRITTEN, RECORDED]
RENEWED = [
    pytest.param("GET", "/api/items", [*READING, *AGAIN, BEGAN, *DELIVERED], 2, id="a read goes out once more"),
    pytest.param("GET", "/api/items", [*READING, *AGAIN, REFUSED, *DELIVERED], 2, id="and not a third time"),
    pytest.param("PUT", "/api/items/7", [*WRITING, *AGAIN, BEGAN, *DELIVERED], 2, id="so does an idempotent write"),
    pytest.param("PATCH", "/api/items/7", [*WRITING, REFUSED, *DELIVERED], 1, id="any other write does not"),
    pytest.param(
        "GET", "/api/items", [*READING, REFUSED._replace(renewable=False), *DELIVERED], 1, id="nor with a fixed one"
    ),
]


@pytest.mark.parametrize(("method", "target", "answers", "sent"), RENEWED)
def test_call_is_sent_again_only_when_it_may_be_and_another_credential_is_fetched(
    method: str, target: str, answers: list[Answer], sent: int
) -> None:
    assert len(_play(method, target, answers).all_of(c.Dispatch)) == sent
