"""Actions that only their body tells apart, and heads that are refused before anybody is asked who calls."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.flow.call import proxy_flow
from gateway.flow.values import Trace
from tests.gateway.flow.playbook import IDENTIFIED, NO_SWITCH, RECORDED, Answer, Played, context, plan, play, request
from tests.gateway.flow.test_call import ALLOWED, SENT


def _turned(name: str, state: str, risk: str) -> dict[str, Any]:
    return {
        "name": name,
        "match": {"method": "POST", "path": "/states", "body": {"/state": state}},
        "mode": "write",
        "risk": risk,
        "arguments": {"body": "json", "schema": {"type": "object", "properties": {"note": {"type": "string"}}}},
    }


ON = plan({"actions": [_turned("item.close", "closed", "high"), _turned("item.open", "open", "low")]})


def _played(body: bytes, answers: list[Answer], *headers: tuple[str, str]) -> Played:
    trace = Trace("call-1", "desk", "desk")
    asked = request("POST", "/api/states", headers=headers, has_body=True, on=ON)
    return play(proxy_flow(asked, trace, context()), trace, [IDENTIFIED, e.BodyRead(body), *answers])


@pytest.mark.parametrize("state", ["closed", "open"])
def test_action_is_the_one_that_the_body_names(state: str) -> None:
    answers: list[Answer] = [NO_SWITCH, ALLOWED, RECORDED, NO_SWITCH, *SENT]
    played = _played(b'{"state":"%b"}' % state.encode(), answers)
    asked = played.all_of(c.AskPolicy)[0].policy_input.action
    assert (asked.name, asked.risk) == (("desk.item.close", "high") if state == "closed" else ("desk.item.open", "low"))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(b"{", "malformed_request", id="is no JSON"),
        pytest.param(b'{"state":"closed","state":"open"}', "malformed_request", id="names two"),
        pytest.param(b'{"state":"other"}', "unclassified", id="names none of them"),
        pytest.param(b"{}", "unclassified", id="names none at all"),
    ],
)
def test_refusal_names_no_action_when_the_body(body: bytes, code: str) -> None:
    played = _played(body, [RECORDED])
    assert played.refused is not None
    assert (played.refused.code, played.trace.action, played.trace.settled) == (code, "", True)


@pytest.mark.parametrize(
    "header",
    [
        ("x-http-method-override", "DELETE"),
        ("x-original-url", "/api/items/8"),
        ("content-encoding", "gzip"),
        ("upgrade", "websocket"),
        ("content-type", "application/json"),
    ],
    ids=["overrides the method", "overrides the target", "codes the body", "upgrades", "stands twice"],
)
def test_call_is_refused_before_its_caller_is_known_when_a_header(header: tuple[str, str]) -> None:
    trace = Trace("call-1", "desk", "desk")
    asked = request("POST", "/api/states", headers=(header,), has_body=True, on=ON)
    played = play(proxy_flow(asked, trace, context()), trace, [])
    assert played.refused is not None
    assert (played.refused.code, played.names) == ("malformed_request", [])
