"""Recorded decisions beside new ones: what counts as looser, and how a replay is told."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.decided import Decided
from pdp.documents import ApprovalObligation, Decision, Effect, Reason, encode_input
from pdp.replay import (
    RULES_MAX_COUNT,
    SHOWN_MAX_COUNT,
    Kind,
    Recorded,
    RecordedMalformed,
    Report,
    about_decision,
    difference_document,
    kind_of,
    read_recorded,
)
from pdp.simulate import decision_document
from tests.pdp.parts import QUESTION

STRICTEST_FIRST = ["DENY", "REQUIRE_STEP_UP", "REQUIRE_HITL", "THROTTLE", "ROUTE", "ALLOW"]
DOCUMENT: dict[str, Any] = orjson.loads(encode_input(QUESTION))


def decision(effect: str, *codes: str, chains: tuple[str, ...] = (), **approval: Any) -> dict[str, Any]:
    obligations = {"approval": {"chains": list(chains), **approval}} if chains else {}
    reasons = [{"code": code, "rule": f"policies.shop.{code}", "message": code} for code in codes]
    return {"effect": effect, "reasons": reasons, "obligations": obligations}


@pytest.mark.parametrize("before", STRICTEST_FIRST)
@pytest.mark.parametrize("after", STRICTEST_FIRST)
def test_kind_follows_the_strength_of_effects(before: str, after: str) -> None:
    expected = Kind.SAME
    if before != after:
        looser = STRICTEST_FIRST.index(after) > STRICTEST_FIRST.index(before)
        expected = Kind.LOOSENING if looser else Kind.TIGHTENING
    assert kind_of(decision(before), decision(after)) is expected


def test_every_effect_has_its_place() -> None:
    assert [effect.value for effect in Effect] == STRICTEST_FIRST


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        pytest.param(("a", "b"), ("a",), Kind.LOOSENING, id="one chain fewer"),
        pytest.param(("a",), ("a", "b"), Kind.TIGHTENING, id="one chain more"),
        pytest.param(("a",), ("b",), Kind.CHANGED, id="another chain"),
        pytest.param(("a", "b"), ("b", "c"), Kind.CHANGED, id="one for another"),
        pytest.param(("a",), ("a",), Kind.SAME, id="the same chains"),
    ],
)
def test_kind_of_a_hold_follows_its_chains(before: tuple[str, ...], after: tuple[str, ...], kind: Kind) -> None:
    assert kind_of(decision("REQUIRE_HITL", chains=before), decision("REQUIRE_HITL", chains=after)) is kind


@pytest.mark.parametrize("chains", [("a",), ("a", "b"), ("b",)])
def test_kind_is_changed_when_something_else_of_the_hold_changes_too(chains: tuple[str, ...]) -> None:
    before = decision("REQUIRE_HITL", chains=("a",), use_within_seconds=900)
    assert kind_of(before, decision("REQUIRE_HITL", chains=chains, use_within_seconds=901)) is Kind.CHANGED


def test_kind_is_changed_when_an_obligation_comes_or_goes() -> None:
    more = {**decision("ALLOW"), "obligations": {"cache_seconds": 5}}
    assert kind_of(decision("ALLOW"), more) is Kind.CHANGED
    assert kind_of(more, decision("ALLOW")) is Kind.CHANGED


def test_kind_is_reasons_when_only_they_differ() -> None:
    assert kind_of(decision("DENY", "a"), decision("DENY", "b")) is Kind.REASONS
    assert kind_of(decision("DENY", "a", "b"), decision("DENY", "b", "a")) is Kind.SAME


def test_kind_is_same_when_only_messages_differ() -> None:
    other = decision("DENY", "a")
    other["reasons"][0]["message"] = "in other words"
    assert kind_of(decision("DENY", "a"), other) is Kind.SAME


_CHAINS = st.lists(st.sampled_from("abc"), unique=True).map(tuple)
_DECISIONS = st.builds(
    lambda effect, chains: decision(effect, chains=chains), st.sampled_from(STRICTEST_FIRST), _CHAINS
)
_MIRRORED = {Kind.LOOSENING: Kind.TIGHTENING, Kind.TIGHTENING: Kind.LOOSENING}


@given(_DECISIONS, _DECISIONS)
def test_kind_is_mirrored_when_the_decisions_change_places(one: dict[str, Any], other: dict[str, Any]) -> None:
    kind = kind_of(one, other)
    assert kind_of(other, one) is _MIRRORED.get(kind, kind)


DECIDED = Decided(
    Decision(Effect.REQUIRE_HITL, (Reason("prod", "policies.shop.require_hitl", "m"),), ApprovalObligation(("a",))),
    "r1", "sha256:00", 4, "wasm", "d1", "sha256:ff", 0.1,
)  # fmt: skip


def test_recorded_comes_out_as_it_was_decided() -> None:
    recorded = read_recorded(about_decision(DECIDED), encode_input(QUESTION))
    assert recorded.decision == decision_document(DECIDED.decision)
    assert recorded.document == DOCUMENT
    assert recorded.bundle["digest"] == "sha256:00" and recorded.input_digest == "sha256:ff"


@pytest.mark.parametrize(
    ("about", "document"),
    [
        pytest.param(b"", b"{}", id="nothing"),
        pytest.param(b"[]", b"{}", id="a list"),
        pytest.param(b"{}", b"{}", id="no members"),
        pytest.param(about_decision(DECIDED).replace(b"REQUIRE_HITL", b"MAYBE"), b"{}", id="an unknown effect"),
        pytest.param(about_decision(DECIDED).replace(b'"engine"', b'"motor"'), b"{}", id="another member"),
        pytest.param(about_decision(DECIDED), b"[]", id="a question that is a list"),
        pytest.param(about_decision(DECIDED), b"{", id="a question that is no JSON"),
    ],
)
def test_recorded_is_refused_when_it_is(about: bytes, document: bytes) -> None:
    with pytest.raises(RecordedMalformed, match="recorded_malformed"):
        read_recorded(about, document)


def test_difference_names_the_call_and_holds_no_arguments() -> None:
    told = difference_document(DOCUMENT, decision("DENY", "a"), decision("ALLOW", "b"))
    assert (told["kind"], told["action"], told["instance"]) == ("loosening", "servicenow.incident.update", "servicenow")
    assert (told["subject"], told["environment"]) == ("triage-1", "dev")
    assert told["before"] == {
        "effect": "DENY",
        "reasons": [{"rule": "policies.shop.a", "code": "a"}],
        "obligations": {},
    }
    assert b"printer" not in orjson.dumps(told)


@pytest.mark.parametrize("document", [{}, {"subject": [], "action": 1, "resource": {"properties": 2}}])
def test_difference_is_told_when_the_question_is_not_whole(document: dict[str, Any]) -> None:
    assert difference_document(document, decision("DENY"), decision("ALLOW"))["action"] == ""


def recorded(effect: str, *codes: str) -> Recorded:
    return Recorded(DOCUMENT, decision(effect, *codes), {}, "")


def test_report_lists_looser_calls_apart_from_stricter_ones() -> None:
    report = Report()
    report.add("c1", "t", recorded("DENY", "no_deletes"), decision("ALLOW", "writer"))
    report.add("c2", "t", recorded("ALLOW", "writer"), decision("DENY", "frozen"))
    report.add("c3", "t", recorded("ALLOW", "writer"), decision("ALLOW", "writer"))
    report.add("c4", "t", recorded("DENY", "a"), decision("DENY", "b"))
    report.add_unreadable()
    told: dict[str, Any] = report.document()
    assert [item["call"] for item in told["loosening"]] == ["c1"]
    assert [item["call"] for item in told["tightening"]] == ["c2"]
    assert [item["call"] for item in told["reasons"]] == ["c4"]
    assert (told["compared"], told["unreadable"], told["changed"], report.loosened) == (4, 1, [], 1)
    assert told["counts"] == {"changed": 0, "loosening": 1, "reasons": 1, "same": 1, "tightening": 1}
    assert {"kind": "loosening", "before": "DENY", "after": "ALLOW", "calls": 1} in told["by_effect"]
    assert {"rule": "policies.shop.writer", "holds_now": 1, "held_before": 1} in told["by_rule"]


def test_report_is_the_same_in_whatever_order_calls_come() -> None:
    changes = [(recorded("DENY", "a"), decision("ALLOW", "b")), (recorded("ALLOW", "b"), decision("DENY", "c"))] * 3
    told = []
    for seed in range(3):
        random.Random(seed).shuffle(changes)
        report = Report()
        for before, after in changes:
            report.add("c", "t", before, after)
        told.append(orjson.dumps(report.document()))
    assert len(set(told)) == 1


def test_report_lists_a_bounded_number_and_counts_all() -> None:
    report = Report()
    for number in range(SHOWN_MAX_COUNT + 1):
        report.add("c", "t", recorded("DENY", f"r{number}"), decision("ALLOW"))
    told: dict[str, Any] = report.document()
    assert (len(told["loosening"]), len(told["by_rule"])) == (SHOWN_MAX_COUNT, RULES_MAX_COUNT)
    assert told["counts"]["loosening"] == report.loosened == SHOWN_MAX_COUNT + 1
