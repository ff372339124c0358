"""A request to an instance that there is not: only an identified caller learns that."""

from __future__ import annotations

import pytest

from gateway.edge.headers import HeaderPairs, RequestHead
from gateway.edge.problem import refusal
from gateway.edge.url import canonical_path
from gateway.flow.call import absent_flow
from gateway.flow.values import Trace
from tests.gateway.flow.playbook import IDENTIFIED, RECORDED, Answer, Played, play


def _asked(headers: HeaderPairs, answers: list[Answer]) -> Played:
    trace = Trace("call-1", "", "nosuch")
    head = RequestHead("GET", canonical_path("/c/nosuch/items"), headers)
    return play(absent_flow(head, trace), trace, answers)


def _code(played: Played) -> str:
    return played.refused.code if played.refused is not None else ""


def test_absent_instance_is_identity_missing_and_unrecorded_when_there_is_no_token() -> None:
    played = _asked((), [])
    assert (_code(played), played.names) == ("identity_missing", [])


def test_absent_instance_is_identity_invalid_and_unrecorded_when_the_token_is_bad() -> None:
    played = _asked((("authorization", "Bearer t"),), [refusal("identity_invalid")])
    assert (_code(played), played.names) == ("identity_invalid", ["VerifyToken"])


def test_absent_instance_is_malformed_when_the_head_is_one_that_no_instance_takes() -> None:
    played = _asked((("authorization", "Bearer t"), ("x-http-method-override", "GET")), [])
    assert (_code(played), played.names) == ("malformed_request", [])


PLACES = [
    pytest.param(("authorization", "Bearer t"), id="bearer"),
    pytest.param(("authorization", "token t"), id="token"),
    pytest.param(("authorization", "Basic eDp0"), id="basic"),
    pytest.param(("x-api-key", "t"), id="x-api-key"),
    pytest.param(("api-key", "t"), id="api-key"),
]


@pytest.mark.parametrize("header", PLACES)
def test_absent_instance_is_not_found_and_recorded_when_the_caller_is_known(header: tuple[str, str]) -> None:
    played = _asked((header,), [IDENTIFIED, RECORDED])
    assert (_code(played), played.names) == ("not_found", ["VerifyToken", "AppendRecord:refusal"])
    assert played.commands[0].token == "t"  # type: ignore[union-attr]


def test_absent_instance_stays_not_found_when_the_refusal_cannot_be_recorded() -> None:
    played = _asked((("authorization", "Bearer t"),), [IDENTIFIED, refusal("ledger_unavailable")])
    assert _code(played) == "not_found"
