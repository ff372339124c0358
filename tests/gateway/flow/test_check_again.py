"""Between a decision and its effect: switches, lease and bundle are looked at again, and what they forbid has no effect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.approvals.model import ApprovalState
from gateway.edge.problem import refusal
from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.ledger.record import freeze
from gateway.store.port import SaveCall, SettleKey, SwitchRow
from pdp.documents import Effect
from tests.gateway.flow.playbook import (
    IDENTIFIED,
    NO_SWITCH,
    RECORDED,
    Answer,
    Played,
    decided,
)
from tests.gateway.flow.test_call import (
    ALLOWED,
    HELD,
    KEYED,
    NOT_SENT,
    SENT,
    WRITE_HEAD,
    open_approval,
    read,
    write,
)

FALLEN = e.SwitchesRead((), stands=False)
KILLED_AND_FALLEN = e.SwitchesRead((SwitchRow("acme", "tenant/acme", "r", "op", 0),), stands=False)
STALE = refusal("policy_stale")
FREE = e.ClaimRead(None)
INTENDED: list[Answer] = [*WRITE_HEAD, ALLOWED, RECORDED]

REFUSING: dict[str, tuple[Answer, str]] = {
    "its lease has ended": (STALE, "policy_stale"),
    "no bundle is in force any more": (refusal("policy_unavailable"), "policy_unavailable"),
    "the engine gives no answer": (refusal("engine_failed"), "engine_failed"),
    "another bundle denies": (e.PolicyAnswered(decided(Effect.DENY)), "denied"),
    "another bundle wants a person": (HELD, "denied"),
}


def code_of(played: Played) -> str:
    assert played.refused is not None
    return played.refused.code


def outcome(played: Played) -> dict[str, Any]:
    """The kind and the action of the last record."""
    draft = played.commands[-1].draft  # type: ignore[union-attr]
    record = json.loads(freeze(draft, node="n").head + b"}")
    return {"kind": draft.kind, **record["action"]}


@pytest.mark.parametrize(("answer", "code"), REFUSING.values(), ids=REFUSING.keys())
def test_intended_call_has_no_effect_when_its_bundle_fell_and(answer: Answer, code: str) -> None:
    played = write([*INTENDED, FALLEN, answer, RECORDED])
    assert code_of(played) == code
    assert played.names[-3:] == ["ReadSwitches", "AskPolicy", "AppendRecord:outcome"]
    assert outcome(played)["code"] == code
    assert played.all_of(c.Dispatch) == []


def test_intended_call_goes_out_without_another_question_when_its_bundle_stands() -> None:
    played = write([*INTENDED, NO_SWITCH, *SENT])
    assert len(played.all_of(c.AskPolicy)) == 1
    first, second = played.all_of(c.ReadSwitches)
    assert (first.decided_by, second.decided_by) == ("", decided().bundle_digest)


def test_intended_call_goes_out_when_the_bundle_that_replaced_its_own_allows_it_too() -> None:
    newer = decided()._replace(bundle_digest="sha256:newer", decision_id="dec-2")
    played = write([*INTENDED, FALLEN, e.PolicyAnswered(newer), *SENT])
    assert played.finished is not None
    assert played.trace.decided == newer
    assert outcome(played)["kind"] == "outcome"


def test_intended_call_is_killed_before_policy_is_asked_when_both_forbid_it() -> None:
    played = write([*INTENDED, KILLED_AND_FALLEN, RECORDED])
    assert code_of(played) == "killed"
    assert len(played.all_of(c.AskPolicy)) == 1


def test_key_is_free_again_when_a_call_went_stale_after_its_intent() -> None:
    played = write([*WRITE_HEAD, FREE, ALLOWED, RECORDED, FALLEN, STALE, RECORDED], headers=KEYED)
    assert code_of(played) == "policy_stale"
    (settled,) = [each for each in played.all_of(c.AppendRecord)[-1].effects if isinstance(each, SettleKey)]
    assert settled.result == "released"


def test_approved_call_stays_unused_when_policy_is_stale_at_use() -> None:
    played = write([*WRITE_HEAD, HELD, open_approval(ApprovalState.APPROVED), STALE, RECORDED])
    assert code_of(played) == "policy_stale"
    assert played.all_of(c.AppendIntent) == []
    assert played.names[-1] == "AppendRecord:refusal"


def test_approved_call_goes_nowhere_when_its_bundle_fell_after_its_intent() -> None:
    opened = open_approval(ApprovalState.APPROVED)
    played = write([*WRITE_HEAD, HELD, opened, ALLOWED, RECORDED, FALLEN, STALE, RECORDED])
    assert code_of(played) == "policy_stale"
    saved = [each for each in played.all_of(c.AppendRecord)[-1].effects if isinstance(each, SaveCall)]
    assert [(each.row.state, each.row.code) for each in saved] == [("refused", "policy_stale")]


def test_approved_call_goes_out_when_the_bundle_that_replaced_its_own_holds_it_too() -> None:
    opened = open_approval(ApprovalState.APPROVED)
    played = write([*WRITE_HEAD, HELD, opened, ALLOWED, RECORDED, FALLEN, HELD, *SENT])
    assert played.finished is not None


@pytest.mark.parametrize(("answer", "code"), REFUSING.values(), ids=REFUSING.keys())
def test_retry_is_not_sent_when_its_bundle_fell_and(answer: Answer, code: str) -> None:
    played = read([IDENTIFIED, NO_SWITCH, ALLOWED, NOT_SENT, e.DONE, NO_SWITCH, answer, RECORDED])
    assert code_of(played) == code
    assert len(played.all_of(c.Dispatch)) == 1
    assert outcome(played)["code"] == code


def test_retried_write_ends_stale_and_settled_when_its_lease_ended_while_it_paused() -> None:
    played = write([*INTENDED, NO_SWITCH, NOT_SENT, e.DONE, NO_SWITCH, STALE, RECORDED])
    assert (code_of(played), played.names[-1]) == ("policy_stale", "AppendRecord:outcome")
    assert played.trace.settled and not played.trace.sent
