"""Where one action takes its caller's token, other than its connector; and uploads by ticket."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gateway.edge.problem import refusal
from gateway.flow import commands as c
from gateway.flow.call import proxy_flow
from gateway.flow.values import InstancePlan, Trace
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

LIST, SEND = 0, 4
SENT: list[Answer] = [BEGAN, READ, REWRITTEN, RECORDED]


def _plan(number: int, **changes: Any) -> InstancePlan:
    """The playbook's instance with one action changed."""
    actions = [dict(entry) for entry in MANIFEST["actions"]]
    actions[number].update(changes)
    places = ["bearer", "header:x-key", "query:key", "form:key", "ticket"]
    on = plan({"actions": actions, "credential_places": places})
    return replace(on, has_token_overrides=True, wants_form=True)


def _played(on: InstancePlan, line: tuple[str, str], answers: list[Answer], **more: Any) -> Played:
    """A request without an `Authorization` header."""
    asked = request(*line, on=on, **more)
    head = asked.head._replace(headers=tuple(pair for pair in asked.head.headers if pair[0] != "authorization"))
    trace = Trace("call-1", "desk", "desk")
    return play(proxy_flow(asked._replace(head=head), trace, context()), trace, answers)


def _code(played: Played) -> str:
    assert played.refused is not None
    return played.refused.code


def test_token_is_taken_from_where_the_action_says() -> None:
    on = _plan(LIST, caller_token=["header:x-key"])
    played = _played(on, ("GET", "/api/items"), [IDENTIFIED, NO_SWITCH, ALLOWED, *SENT], headers=(("x-key", "t1"),))
    assert played.all_of(c.VerifyToken) == [c.VerifyToken("t1")]
    assert all(name != "x-key" for name, _ in played.all_of(c.Dispatch)[0].outbound.headers)


def test_token_is_missing_when_it_stands_where_the_connector_would_take_it_and_the_action_does_not() -> None:
    on = _plan(LIST, caller_token=["header:x-key"])
    trace = Trace("call-1", "desk", "desk")
    played = play(proxy_flow(request("GET", "/api/items", on=on), trace, context()), trace, [])
    assert _code(played) == "malformed_request"


def test_token_is_missing_when_another_action_takes_it_there() -> None:
    on = _plan(LIST, caller_token=["header:x-key"])
    assert _code(_played(on, ("GET", "/api/watch"), [], headers=(("x-key", "t1"),))) == "malformed_request"


def test_token_is_looked_for_at_the_connectors_places_when_no_action_is_meant() -> None:
    on = _plan(LIST, caller_token=["header:x-key"])
    assert _code(_played(on, ("GET", "/api/nowhere"), [], headers=(("x-key", "t1"),))) == "malformed_request"


def test_token_is_taken_out_of_the_query_when_the_action_takes_it_there() -> None:
    on = _plan(LIST, caller_token=["query:key"])
    played = _played(on, ("GET", "/api/items?key=t1"), [IDENTIFIED, NO_SWITCH, ALLOWED, *SENT])
    assert played.all_of(c.VerifyToken) == [c.VerifyToken("t1")]
    assert played.all_of(c.Dispatch)[0].outbound.raw_query == ""


def test_ticket_is_used_up_for_the_action_and_path_that_are_asked_for() -> None:
    on = _plan(SEND, caller_token=["ticket"])
    sent: list[Answer] = [IDENTIFIED, NO_SWITCH, ALLOWED, RECORDED, NO_SWITCH, *SENT]
    played = _played(on, ("POST", "/api/files?tidegate_ticket=abc"), sent)
    assert played.all_of(c.RedeemTicket) == [c.RedeemTicket("abc", "desk", "desk.file.send", "/api/files")]
    assert played.all_of(c.VerifyToken) == []
    assert played.all_of(c.Dispatch)[0].outbound.raw_query == ""


def test_call_is_unauthenticated_and_unrecorded_when_the_ticket_is_not_good() -> None:
    on = _plan(SEND, caller_token=["ticket"])
    bad = refusal("identity_invalid", "the upload ticket is not good for this call")
    played = _played(on, ("POST", "/api/files?tidegate_ticket=abc"), [bad])
    assert (_code(played), played.names) == ("identity_invalid", ["RedeemTicket"])


def test_ticket_is_refused_when_the_action_takes_none() -> None:
    on = _plan(SEND, caller_token=["ticket"])
    assert _code(_played(on, ("GET", "/api/items?tidegate_ticket=abc"), [])) == "malformed_request"
