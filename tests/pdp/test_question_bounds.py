"""Questions as large as they may be and a byte more, questions without context, and traces that say a thing twice."""

from __future__ import annotations

import orjson
import pytest

from pdp.decision_cache import question_key
from pdp.documents import encode_input
from pdp.errors import InputRefused
from pdp.input_document import INPUT_MAX_BYTES
from tests.pdp.parts import asked
from tests.pdp.test_decision_cache import INPUT
from tests.pdp.test_trace import ALLOW, REGO, enter, leave, step, traced_rules

EMPTY_BYTES = len(encode_input(asked(args={"text": ""})))


def test_encode_input_takes_a_question_when_it_is_just_small_enough() -> None:
    assert len(encode_input(asked(args={"text": "x" * (INPUT_MAX_BYTES - EMPTY_BYTES)}))) == INPUT_MAX_BYTES


@pytest.mark.parametrize("deep", [False, True], ids=["as it stands", "after a walk"])
def test_encode_input_refuses_a_question_when_it_is_a_byte_too_long(deep: bool) -> None:
    text = "x" * (INPUT_MAX_BYTES - EMPTY_BYTES + 1)
    with pytest.raises(InputRefused, match=f"{INPUT_MAX_BYTES} are allowed"):
        encode_input(asked(args={"text": [text] if deep else text}))


def test_question_key_is_the_same_when_the_context_holds_nothing_that_counts() -> None:
    bare = {name: value for name, value in INPUT.items() if name != "context"}
    timed = {**bare, "context": {"time": "2026-01-14T10:30:00.000Z", "clock": {"unix": 1}, "call": "c1"}}
    assert question_key(orjson.dumps(timed)) == question_key(orjson.dumps({**bare, "context": {}}))


@pytest.mark.parametrize("context", [None, "T1", 1, ["T1"]], ids=["null", "a text", "a number", "a list"])
def test_question_key_tells_contexts_apart_when_one_is_no_object(context: object) -> None:
    bare = {name: value for name, value in INPUT.items() if name != "context"}
    keys = {question_key(orjson.dumps(document)) for document in (bare, {**bare, "context": context}, INPUT)}
    assert len(keys) == 3 and None not in keys


def test_question_key_tells_nothing_of_what_was_left_out_when_there_is_no_context() -> None:
    bare = {name: value for name, value in INPUT.items() if name != "context"}
    other = {**bare, "args": {"n": 2}}
    assert question_key(orjson.dumps(bare)) != question_key(orjson.dumps(other))


def test_rule_is_shown_at_its_furthest_when_a_later_evaluation_came_less_far() -> None:
    far = [ALLOW, step("Eval", 1, 4, 0), step("Eval", 1, 5, 1), step("Fail", 1, 5, 1)]
    near = [enter(5, 0, "allow", 3, conditions=2), step("Eval", 5, 4, 0), step("Fail", 5, 4, 0)]
    (rule,) = traced_rules([*far, *near], REGO)
    assert (rule.held, rule.passed) == (False, 1)
    assert rule.failing is not None and rule.failing.line == 5


def test_rule_held_when_a_later_evaluation_did_not() -> None:
    again = [enter(5, 0, "allow", 3, conditions=2), step("Eval", 5, 4, 0), step("Fail", 5, 4, 0)]
    (rule,) = traced_rules([ALLOW, leave(1, "allow", 3), *again], REGO)
    assert (rule.held, rule.failing) == (True, None)


def test_query_stays_what_it_was_when_it_is_entered_once_more() -> None:
    once_more = enter(1, 0, "deny", 3)
    (rule,) = traced_rules([ALLOW, step("Eval", 1, 4, 0), once_more, leave(1, "allow", 3)], REGO)
    assert (rule.rule, rule.conditions, rule.held) == ("policies.shop.allow", 2, True)
