"""Our decision beside another engine's: equal only in everything, and what is no decision is a denial."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pdp.cross_check import CrossDifference, Rulebook, cross_difference
from pdp.decided import REFUSED_BY, Decided
from pdp.documents import ApprovalObligation, Decision, Effect, Reason
from pdp.replay import Kind
from tests.pdp.parts import CHAINS, QUESTION

RULEBOOK = Rulebook(CHAINS, cacheable=False)
ROLE = Reason("role", "policies.servicenow.allow", "as triage")
ALLOWED = Decision(Effect.ALLOW, (ROLE,))
DENIED = Decision(Effect.DENY, (Reason("no", "policies.servicenow.deny", "m"),))
HELD = Decision(Effect.REQUIRE_HITL, (ROLE,), ApprovalObligation(("one-approver",)))
MALFORMED = Decision(Effect.DENY, (Reason("decision_malformed", REFUSED_BY, "what one engine met first"),))


def written(effect: str = "ALLOW", **changes: Any) -> bytes:
    """A decision document."""
    reason = {"code": ROLE.code, "rule": ROLE.rule, "message": ROLE.message}
    return orjson.dumps({"effect": effect, "reasons": [reason], "obligations": {}, **changes})


def compared(ours: Decision, theirs: bytes | None) -> CrossDifference | None:
    decided = Decided(ours, "r0", "sha256:active", 1, "wasm", "d1", "sha256:ff", 0.0)
    return cross_difference(QUESTION, decided, theirs, RULEBOOK)


CHAIN = {"approval": {"chains": ["one-approver"]}}
BOTH = [{"code": "b", "rule": "r", "message": ""}, {"code": "a", "rule": "r", "message": ""}]
SAME: dict[str, tuple[Decision, bytes]] = {
    "they are equal": (ALLOWED, written()),
    "only the order of members differs": (ALLOWED, orjson.dumps(orjson.loads(written()), option=orjson.OPT_SORT_KEYS)),
    "only the order of reasons differs": (
        Decision(Effect.ALLOW, (Reason("a", "r", ""), Reason("b", "r", ""))),
        written(reasons=BOTH),
    ),
    "both hold under the same chain": (HELD, written("REQUIRE_HITL", obligations=CHAIN)),
    "neither is a decision, whatever was met first": (MALFORMED, b'{"effect": "MAYBE"}'),
}


@pytest.mark.parametrize(("ours", "theirs"), SAME.values(), ids=SAME.keys())
def test_nothing_differs_when(ours: Decision, theirs: bytes) -> None:
    assert compared(ours, theirs) is None


DIFFERENT: dict[str, tuple[Decision, bytes | None, Kind]] = {
    "ours lets out what theirs denies": (ALLOWED, written("DENY"), Kind.TIGHTENING),
    "ours denies what theirs lets out": (DENIED, written(), Kind.LOOSENING),
    "ours lets out what theirs holds": (ALLOWED, written("REQUIRE_HITL", obligations=CHAIN), Kind.TIGHTENING),
    "theirs gives people less time": (
        HELD,
        written("REQUIRE_HITL", obligations={"approval": {"chains": ["one-approver"], "decide_within_seconds": 5}}),
        Kind.CHANGED,
    ),
    "theirs lost a reason": (ALLOWED, written(reasons=[]), Kind.REASONS),
    "a reason has other words": (
        ALLOWED,
        written(reasons=[{**BOTH[0], **ROLE._asdict(), "message": "!"}]),
        Kind.REASONS,
    ),
    "theirs has no decision": (ALLOWED, None, Kind.TIGHTENING),
    "ours denies and theirs has no decision": (DENIED, None, Kind.REASONS),
    "theirs is no decision": (ALLOWED, b"true", Kind.TIGHTENING),
    "only theirs is no decision": (DENIED, b"{}", Kind.REASONS),
    "theirs may be kept, which the bundle does not allow": (
        ALLOWED,
        written(obligations={"cache_seconds": 5}),
        Kind.TIGHTENING,
    ),
}


@pytest.mark.parametrize(("ours", "theirs", "kind"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_decisions_differ_when(ours: Decision, theirs: bytes | None, kind: Kind) -> None:
    difference = compared(ours, theirs)
    assert difference is not None
    assert difference.kind is kind
    assert difference.ours != difference.theirs


def test_difference_names_call_bundle_and_digests_and_holds_no_argument() -> None:
    difference = compared(ALLOWED, written("DENY"))
    assert difference is not None
    assert difference[:4] == ("acme", "ops", "call-1", "sha256:active")
    assert difference.input_digest == "sha256:ff"
    told = orjson.loads(difference.data)
    assert told["digests"] == {"ours": difference.ours, "theirs": difference.theirs}
    assert (told["before"]["effect"], told["after"]["effect"], told["difference"]) == ("ALLOW", "DENY", "tightening")
    assert (told["decision"], told["bundle"], told["engine"]) == ("d1", "sha256:active", "wasm")
    assert b"printer" not in difference.data


def test_decision_has_one_digest_on_whichever_side_it_stands() -> None:
    one, other = compared(ALLOWED, written("DENY")), compared(Decision(Effect.DENY, (ROLE,)), written())
    assert one is not None and other is not None
    assert (one.ours, one.theirs) == (other.theirs, other.ours)
