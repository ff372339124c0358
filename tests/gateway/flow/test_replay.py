"""A repeat under a key that policy holds: the first answer only with the approval that the first call used up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.approvals.model import Approval, ApprovalState
from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.store.port import KeyClaim, StoreConflict, StoredAnswer
from pdp.documents import Effect
from tests.gateway.flow.playbook import NOW, RECORDED, Answer, Played, decided
from tests.gateway.flow.test_call import ALLOWED, HELD, KEYED, WRITE_HEAD, _digest, open_approval, write

STORED = e.AnswerLoaded(StoredAnswer(201, (), b"first"))
DENIED = e.PolicyAnswered(decided(Effect.DENY))
USED = replace(open_approval(ApprovalState.CONSUMED, KEYED).approval, used_by="call-0")
OTHER_CHAIN = e.PolicyAnswered(decided(Effect.REQUIRE_HITL, chains=("two",)))


def _repeat(*answers: Answer) -> Played:
    claim = e.ClaimRead(KeyClaim(_digest(), "call-0", "done", int(NOW * 1000) + 1000))
    return write([*WRITE_HEAD, claim, *answers], headers=KEYED)


def _used(approval: Approval | None = USED) -> e.UsedApprovalLoaded:
    return e.UsedApprovalLoaded(approval)


@pytest.mark.parametrize("again", [HELD, ALLOWED], ids=["policy holds it still", "policy takes the approval"])
def test_first_answer_is_given_again_when_people_had_approved_the_first_call(again: Answer) -> None:
    played = _repeat(HELD, _used(), again, STORED, RECORDED)
    assert played.finished is not None
    assert (played.finished.body, played.trace.approval_id) == (b"first", "app-1")
    asked = [question.policy_input.approval for question in played.all_of(c.AskPolicy)]
    assert asked[0] is None
    assert asked[1] is not None and (asked[1]["id"], asked[1]["state"]) == ("app-1", "approved")


REFUSED: dict[str, tuple[list[Answer], str]] = {
    "nobody had approved the first call": ([HELD, _used(None)], "denied"),
    "policy denies in spite of the approval": ([HELD, _used(), DENIED], "denied"),
    "policy asks for another chain": ([HELD, _used(), OTHER_CHAIN], "stale_state"),
    "the chain has changed since": ([HELD, _used(replace(USED, chain_digest="sha256:other")), HELD], "stale_state"),
}


@pytest.mark.parametrize(("answers", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_first_answer_is_not_given_again_when(answers: list[Answer], code: str) -> None:
    played = _repeat(*answers, RECORDED)
    assert played.refused is not None
    assert played.refused.code == code
    assert played.all_of(c.LoadAnswer) == []
    assert played.names[-1] == "AppendRecord:refusal"


def test_first_answer_is_not_given_again_when_the_key_was_lost_to_a_call_that_nobody_approved() -> None:
    lost = StoreConflict("replay", "the key was used", call="call-0")
    answers: list[Answer] = [*WRITE_HEAD, e.ClaimRead(None), ALLOWED, lost, HELD, _used(None), RECORDED]
    played = write(answers, headers=KEYED)
    assert played.refused is not None
    assert played.refused.code == "denied"
