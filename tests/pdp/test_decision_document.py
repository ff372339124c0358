"""The decision parser's closed world: more ways to be refused than to be accepted."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.decision_document import (
    DECISION_MAX_BYTES,
    DURATION_MAX_SECONDS,
    REASONS_MAX_COUNT,
    TEXT_MAX_CHARACTERS,
    comparable,
)
from pdp.documents import ApprovalObligation, Decision, Effect, Reason, parse_decision
from pdp.errors import DecisionRefused
from tests.pdp.parts import CHAINS

WHY = {"code": "prod_write", "rule": "policies.servicenow.require_hitl", "message": "two people must look"}
STEP_UP = {"acr_values": ["phr"], "max_age_seconds": 300}
THROTTLE = [{"key": "k", "limit": 10, "window_seconds": 60}]
ROUTE = {"target": "eu", "fallback": ["us"]}
BUDGET = [{"key": "k", "amount": "0.40", "currency": "USD"}]


def decided(effect: object = "ALLOW", reasons: object = None, **obligations: object) -> bytes:
    """A decision document's bytes."""
    return orjson.dumps(
        {"effect": effect, "reasons": [WHY] if reasons is None else reasons, "obligations": obligations}
    )


def held(**changes: object) -> bytes:
    """A held decision, its approval changed."""
    return decided("REQUIRE_HITL", approval={"chains": ["one-approver"], **changes})


def refused_with(raw: bytes, chains: Any = None, **options: Any) -> str:
    """The reason code for which a document does not count."""
    with pytest.raises(DecisionRefused) as refused:
        parse_decision(raw, chains=CHAINS if chains is None else chains, **options)
    assert refused.value.code == refused.value.reason_code
    return refused.value.reason_code


@pytest.mark.parametrize("effect", [Effect.ALLOW, Effect.DENY])
def test_parse_decision_accepts_an_effect_when_the_document_is_exact(effect: Effect) -> None:
    assert parse_decision(decided(effect.value), chains={}) == Decision(effect, (Reason(**WHY),))


def test_parse_decision_accepts_a_hold_with_its_defaults_when_only_a_chain_is_named() -> None:
    assert parse_decision(held(), chains=CHAINS).approval == ApprovalObligation(("one-approver",), 86_400, 900, "grant")


def test_parse_decision_keeps_the_times_when_the_policy_sets_them() -> None:
    raw = held(decide_within_seconds=60, use_within_seconds=DURATION_MAX_SECONDS, on_approval="grant")
    assert parse_decision(raw, chains=CHAINS).approval == ApprovalObligation(
        ("one-approver",), 60, DURATION_MAX_SECONDS
    )


def test_parse_decision_sorts_reasons_when_a_set_came_out_in_any_order() -> None:
    reasons = [{"code": code, "rule": "r", "message": ""} for code in "cab"]
    assert [reason.code for reason in parse_decision(decided(reasons=reasons), chains={}).reasons] == ["a", "b", "c"]


def test_parse_decision_reads_spaced_and_escaped_text_when_it_is_strict_json() -> None:
    raw = b'{ "effect": "DENY", "reasons": [{"code":"\\u00e9","rule":"r","message":"m"}], "obligations": {} }'
    assert parse_decision(raw, chains={}).reasons[0].code == "é"


@pytest.mark.parametrize("name", ["throttle", "redact", "budget"])
def test_parse_decision_accepts_an_empty_list_when_it_asks_for_nothing(name: str) -> None:
    assert parse_decision(decided(**{name: []}), chains={}).effect is Effect.ALLOW


def test_parse_decision_accepts_no_caching_when_it_is_said() -> None:
    assert parse_decision(decided(cache_seconds=0, response={}), chains={}).cache_seconds == 0


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'"ALLOW"', id="only the effect's name"),
        pytest.param(b"true", id="true"),
        pytest.param(b'{"allow":true}', id="another shape of yes"),
        pytest.param(b'{"effect":"ALLOW","reasons":[]}', id="obligations missing"),
        pytest.param(b'{"effect":"ALLOW","obligations":{}}', id="reasons missing"),
        pytest.param(b'{"reasons":[],"obligations":{}}', id="effect missing"),
        pytest.param(b'{"effect":"ALLOW","reasons":[],"obligations":{},"extra":1}', id="a member too many"),
        pytest.param(b'{"effect":"ALLOW","reasons":[],"obligations":{}', id="cut short"),
        pytest.param(b'{"effect":"ALLOW","reasons":[],"obligations":{}}{}', id="two documents"),
        pytest.param(b'{"effect":"DENY","effect":"ALLOW","reasons":[],"obligations":{}}', id="the effect twice"),
        pytest.param(b'{"effect":"DENY","\\u0065ffect":"ALLOW","reasons":[],"obligations":{}}', id="escaped twice"),
        pytest.param(
            b'{"effect":"ALLOW","reasons":[],"obligations":{"approval":{},"approval":{}}}', id="an obligation twice"
        ),
        pytest.param(b'\xef\xbb\xbf{"effect":"ALLOW","reasons":[],"obligations":{}}', id="a byte order mark"),
        pytest.param(b'{"effect":"ALLOW\xff","reasons":[],"obligations":{}}', id="not UTF-8"),
        pytest.param(b'{"effect":NaN,"reasons":[],"obligations":{}}', id="not a number"),
        pytest.param(b'{"effect":"ALLOW","reasons":[],"obligations":' + b"[" * 5_000 + b"]" * 5_000 + b"}", id="deep"),
    ],
)
def test_parse_decision_is_malformed_when_the_text_is_no_decision(raw: bytes) -> None:
    assert refused_with(raw) == "decision_malformed"


@pytest.mark.parametrize(
    "effect",
    ["allow", "Allow", "ALLOW ", "", "PERMIT", "ALLOW\u0000", None, True, 1, ["ALLOW"], {"ALLOW": 1}],
    ids=repr,
)
def test_parse_decision_is_malformed_when_the_effect_is_unknown(effect: object) -> None:
    assert refused_with(decided(effect)) == "decision_malformed"


@pytest.mark.parametrize(
    "reasons",
    [
        pytest.param({}, id="an object"),
        pytest.param("because", id="text"),
        pytest.param([None], id="null inside"),
        pytest.param(["because"], id="text inside"),
        pytest.param([{}], id="an empty reason"),
        pytest.param([{"code": "a", "rule": "r"}], id="no message"),
        pytest.param([{**WHY, "more": 1}], id="a member too many"),
        pytest.param([{**WHY, "code": ""}], id="an empty code"),
        pytest.param([{**WHY, "code": 1}], id="a code that is a number"),
        pytest.param([{**WHY, "rule": ""}], id="an empty rule"),
        pytest.param([{**WHY, "message": None}], id="no message but null"),
        pytest.param([{**WHY, "message": "x" * (TEXT_MAX_CHARACTERS + 1)}], id="a message one past the limit"),
        pytest.param([WHY] * (REASONS_MAX_COUNT + 1), id="one reason past the limit"),
    ],
)
def test_parse_decision_is_malformed_when_reasons_are_not_of_the_form(reasons: object) -> None:
    assert refused_with(decided(reasons=reasons)) == "decision_malformed"


def test_parse_decision_accepts_reasons_when_they_are_at_the_limits() -> None:
    reasons = [{**WHY, "message": "x" * TEXT_MAX_CHARACTERS}, *[WHY] * (REASONS_MAX_COUNT - 1)]
    raw = decided(reasons=reasons)
    assert len(parse_decision(raw, chains={}).reasons) == REASONS_MAX_COUNT
    assert len(raw) < DECISION_MAX_BYTES


def test_parse_decision_is_malformed_when_it_is_one_byte_too_long() -> None:
    raw = decided()
    assert refused_with(raw + b" " * (DECISION_MAX_BYTES - len(raw) + 1)) == "decision_malformed"
    assert parse_decision(raw + b" " * (DECISION_MAX_BYTES - len(raw)), chains={}).effect is Effect.ALLOW


@pytest.mark.parametrize("obligations", [[], None, "approval", 1, True], ids=repr)
def test_parse_decision_is_malformed_when_obligations_are_no_object(obligations: object) -> None:
    raw = orjson.dumps({"effect": "ALLOW", "reasons": [], "obligations": obligations})
    assert refused_with(raw) == "decision_malformed"


@pytest.mark.parametrize("name", ["Approval", "approvals", "log", "", "mask", "cache"])
def test_parse_decision_is_malformed_when_an_obligation_is_unknown(name: str) -> None:
    assert refused_with(decided("DENY", **{name: {}})) == "decision_malformed"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"chains": []}, id="no chain"),
        pytest.param({"chains": "one-approver"}, id="a chain that is no list"),
        pytest.param({"chains": [""]}, id="an empty name"),
        pytest.param({"chains": [1]}, id="a number for a name"),
        pytest.param({"chains": ["one-approver", "one-approver"]}, id="a chain twice"),
        pytest.param({"chains": ["nobody"]}, id="a chain the bundle lacks"),
        pytest.param({"chains": ["one-approver", "nobody"]}, id="one of two chains lacking"),
        pytest.param({"decide_within_seconds": 0}, id="no time to decide"),
        pytest.param({"decide_within_seconds": -1}, id="negative time"),
        pytest.param({"decide_within_seconds": True}, id="true for a number"),
        pytest.param({"decide_within_seconds": "60"}, id="text for a number"),
        pytest.param({"decide_within_seconds": 60.5}, id="a fraction of a second"),
        pytest.param({"decide_within_seconds": None}, id="null for a number"),
        pytest.param({"use_within_seconds": DURATION_MAX_SECONDS + 1}, id="one second past the longest"),
        pytest.param({"on_approval": "run"}, id="an unknown way to go on"),
        pytest.param({"on_approval": True}, id="true for a way"),
        pytest.param({"on_approval": ["grant"]}, id="a list for a way"),
        pytest.param({"note": "x"}, id="a member too many"),
    ],
)
def test_parse_decision_is_malformed_when_the_approval_is_not_of_the_form(changes: dict[str, object]) -> None:
    assert refused_with(held(**changes)) == "decision_malformed"


@pytest.mark.parametrize("approval", [None, [], "one-approver", True, {}], ids=repr)
def test_parse_decision_is_malformed_when_the_approval_is_no_object(approval: object) -> None:
    assert refused_with(decided("REQUIRE_HITL", approval=approval)) == "decision_malformed"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("step_up", {"acr_values": [], "max_age_seconds": 1}, id="step-up to nothing"),
        pytest.param("step_up", {"acr_values": ["a"]}, id="step-up without an age"),
        pytest.param("step_up", {"acr_values": ["a"], "max_age_seconds": -1}, id="step-up with a negative age"),
        pytest.param("throttle", {"key": "k"}, id="throttle that is no list"),
        pytest.param("throttle", [{"key": "k", "limit": 1}], id="throttle without a window"),
        pytest.param(
            "throttle", [{"key": "k", "limit": "1", "window_seconds": 1}], id="throttle with text for a limit"
        ),
        pytest.param("throttle", [{"key": "k", "limit": 1, "window_seconds": 0}], id="throttle with no window"),
        pytest.param("route", {"fallback": []}, id="route to nowhere"),
        pytest.param("route", {"target": "a", "fallback": "b"}, id="route with text for a list"),
        pytest.param("route", "eu", id="route that is text"),
        pytest.param("budget", [{"key": "k", "amount": 0.4, "currency": "USD"}], id="budget with a float"),
        pytest.param("budget", [{"key": "k", "amount": "-1", "currency": "USD"}], id="budget below nothing"),
        pytest.param("budget", [{"key": "k", "amount": "1e3", "currency": "USD"}], id="budget with an exponent"),
        pytest.param("budget", [{"key": "k", "amount": "1\n", "currency": "USD"}], id="budget with a newline"),
        pytest.param("budget", [{"key": "k", "amount": "1", "currency": "usd"}], id="budget in an unknown currency"),
        pytest.param("redact", "/args/a", id="redact that is text"),
        pytest.param("redact", [1], id="redact with a number"),
        pytest.param("response", {"drop": []}, id="response with an unknown member"),
        pytest.param("response", {"max_bytes": "1"}, id="response with text for a size"),
        pytest.param("response", {"redact": [""]}, id="response with an empty path"),
        pytest.param("cache_seconds", -1, id="caching for negative time"),
        pytest.param("cache_seconds", True, id="caching for true seconds"),
        pytest.param("cache_seconds", 60, id="caching that the bundle may not ask for"),
    ],
)
@pytest.mark.parametrize("effect", ["ALLOW", "DENY"])
def test_parse_decision_is_malformed_when_an_obligation_is_not_of_its_form(
    name: str, value: object, effect: str
) -> None:
    assert refused_with(decided(effect, **{name: value})) == "decision_malformed"


@pytest.mark.parametrize(
    ("effect", "obligations"),
    [
        pytest.param("REQUIRE_HITL", {}, id="a hold without a chain"),
        pytest.param("REQUIRE_STEP_UP", {}, id="a step-up without values"),
        pytest.param("THROTTLE", {"throttle": []}, id="a throttle without a limit"),
        pytest.param("ROUTE", {}, id="a route without a target"),
        pytest.param("ALLOW", {"approval": {"chains": ["one-approver"]}}, id="allowed though a person must approve"),
        pytest.param("ALLOW", {"step_up": STEP_UP}, id="allowed though a step-up is due"),
        pytest.param("ALLOW", {"throttle": THROTTLE}, id="allowed though a limit holds"),
        pytest.param("ALLOW", {"route": ROUTE}, id="allowed though it must go elsewhere"),
        pytest.param("ROUTE", {"route": ROUTE, "throttle": THROTTLE}, id="routed though a limit holds"),
        pytest.param(
            "REQUIRE_HITL",
            {"approval": {"chains": ["one-approver"]}, "step_up": STEP_UP},
            id="held though a step-up is due",
        ),
    ],
)
def test_parse_decision_is_malformed_when_effect_and_obligations_contradict(
    effect: str, obligations: dict[str, object]
) -> None:
    assert refused_with(decided(effect, **obligations)) == "decision_malformed"


@pytest.mark.parametrize(
    ("effect", "obligations"),
    [
        pytest.param("REQUIRE_STEP_UP", {"step_up": STEP_UP}, id="step-up"),
        pytest.param("THROTTLE", {"throttle": THROTTLE}, id="throttle"),
        pytest.param("ROUTE", {"route": ROUTE}, id="route"),
        pytest.param("ALLOW", {"budget": BUDGET}, id="a budget"),
        pytest.param("ALLOW", {"redact": ["/args/note"]}, id="a redacted argument"),
        pytest.param("ALLOW", {"response": {"redact": ["$.result"]}}, id="a redacted answer"),
        pytest.param("ALLOW", {"response": {"max_bytes": 0}}, id="a bounded answer"),
        pytest.param(
            "REQUIRE_HITL", {"approval": {"chains": ["one-approver"]}, "throttle": THROTTLE}, id="a hold with a limit"
        ),
        pytest.param("REQUIRE_HITL", {"approval": {"chains": ["two-person"]}}, id="a chain of two steps"),
        pytest.param("REQUIRE_HITL", {"approval": {"chains": ["one-approver", "two-person"]}}, id="two chains"),
        pytest.param(
            "REQUIRE_HITL",
            {"approval": {"chains": ["one-approver"], "on_approval": "dispatch"}},
            id="dispatch by the gate",
        ),
    ],
)
def test_parse_decision_is_not_supported_when_this_version_cannot_enforce_it(
    effect: str, obligations: dict[str, object]
) -> None:
    assert refused_with(decided(effect, **obligations)) == "not_supported"


def test_caching_is_accepted_when_the_bundle_may_ask_for_it() -> None:
    assert parse_decision(decided(cache_seconds=60), chains=CHAINS, cacheable=True).cache_seconds == 60


def test_a_denial_keeps_its_reasons_when_it_carries_what_is_not_enforced_yet() -> None:
    raw = decided(
        "DENY", step_up=STEP_UP, throttle=THROTTLE, route=ROUTE, budget=BUDGET, approval={"chains": ["two-person"]}
    )
    assert parse_decision(raw, chains=CHAINS) == Decision(Effect.DENY, (Reason(**WHY),))


@pytest.mark.parametrize(
    ("chain", "code"),
    [
        pytest.param(None, "decision_malformed", id="no object"),
        pytest.param({}, "decision_malformed", id="no steps"),
        pytest.param({"steps": []}, "decision_malformed", id="an empty list of steps"),
        pytest.param({"steps": ["a"]}, "decision_malformed", id="a step that is text"),
        pytest.param({"steps": [{"id": "a"}]}, "decision_malformed", id="a step without a role"),
        pytest.param({"steps": [{"id": "a", "role": ""}]}, "decision_malformed", id="an empty role"),
        pytest.param({"steps": [{"id": "a", "role": "r", "quorum": 0}]}, "decision_malformed", id="a quorum of nobody"),
        pytest.param(
            {"steps": [{"id": "a", "role": "r", "quorum": True}]}, "decision_malformed", id="a quorum of true"
        ),
        pytest.param({"steps": [{"id": "a", "role": "r", "quorum": 2}]}, "not_supported", id="a quorum of two"),
        pytest.param({"steps": [{"id": "a", "parallel": [{"role": "r"}]}]}, "not_supported", id="a parallel step"),
        pytest.param({"steps": [{"id": "a", "role": "r", "when": "x"}]}, "not_supported", id="a conditional step"),
    ],
)
def test_parse_decision_refuses_when_the_chain_cannot_be_walked(chain: object, code: str) -> None:
    assert refused_with(held(), chains={"one-approver": chain}) == code


FULL = orjson.loads(
    decided(
        "REQUIRE_HITL",
        approval={
            "chains": ["one-approver"],
            "decide_within_seconds": 60,
            "use_within_seconds": 60,
            "on_approval": "grant",
        },
        cache_seconds=0,
    )
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found.extend(places(item, (*path, key)))
    return found


@pytest.mark.parametrize("place", places(FULL)[1:], ids=lambda place: "/".join(map(str, place)))
@pytest.mark.parametrize("other", [None, True, 1.5, "", [], {}, [[]], {"x": 1}], ids=repr)
def test_parse_decision_never_allows_more_when_any_one_value_is_of_another_type(
    place: tuple[Any, ...], other: Any
) -> None:
    document = copy.deepcopy(FULL)
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    if inner[place[-1]] == other and type(inner[place[-1]]) is type(other):
        return
    inner[place[-1]] = other
    try:
        decision = parse_decision(orjson.dumps(document), chains=CHAINS)
    except DecisionRefused:
        return
    assert decision.effect is Effect.REQUIRE_HITL
    assert decision.approval is not None


@given(
    st.binary(max_size=200)
    | st.from_regex(rb'\{"effect":"(ALLOW|DENY)","reasons":.{0,40},"obligations":.{0,20}\}', fullmatch=True)
)
def test_parse_decision_decides_or_refuses_when_bytes_are_arbitrary(raw: bytes) -> None:
    try:
        decision = parse_decision(raw, chains=CHAINS)
    except DecisionRefused:
        return
    assert orjson.loads(raw)["effect"] == decision.effect


def test_comparable_is_equal_when_only_the_order_of_sets_differs() -> None:
    one = {"reasons": [{"code": "a"}, {"code": "b"}], "effect": "DENY"}
    other = {"effect": "DENY", "reasons": [{"code": "b"}, {"code": "a"}]}
    assert comparable(one) == comparable(other)  # type: ignore[arg-type]


def test_comparable_differs_when_a_fallback_is_in_another_order() -> None:
    assert comparable({"fallback": ["a", "b"]}) != comparable({"fallback": ["b", "a"]})
