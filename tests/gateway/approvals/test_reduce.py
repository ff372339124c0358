"""Who may vote, on what, when: mostly refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.approvals.codec import CodecError, decode_approval, encode_approval
from gateway.approvals.digest import action_digest, attach_key
from gateway.approvals.model import (
    OPEN_STATES,
    REASON_MAX_CHARACTERS,
    Approval,
    ApprovalRefused,
    ApprovalState,
    Ballot,
    Step,
    StepState,
)
from gateway.approvals.reduce import as_of, cast_vote, consume, open_approval, withdraw
from gateway.approvals.render import approval_document
from tests.gateway.store.build import FIELDS, HELD, START, Voter

SALT = "5a" * 16
KEY = attach_key(FIELDS, b"k" * 32)
PENDING = open_approval(HELD, approval_id="a1", salt=SALT, attach_key=KEY, now=START)
YES = Ballot("approve", "fine", PENDING.action_digest)
NO = replace(YES, decision="deny")
CAROL = Voter()
LATER = START + 5_000
APPROVED = cast_vote(PENDING, YES, CAROL, LATER)


def test_vote_approves_when_the_quorum_is_reached() -> None:
    assert APPROVED.state is ApprovalState.APPROVED
    assert APPROVED.use_by == LATER + HELD.use_within_seconds * 1000
    assert APPROVED.version == 2
    assert [vote.voter for vote in APPROVED.steps[0].votes] == ["carol"]


@pytest.mark.parametrize(
    ("voter", "said"),
    [
        pytest.param(Voter(people=False, on_behalf_of="dora", actors=("bot",)), "on behalf of another", id="delegated"),
        pytest.param(Voter(people=False), "this issuer's subjects are not people", id="no people's issuer"),
    ],
)
def test_vote_is_refused_with_its_own_cause_when_the_token_is(voter: Voter, said: str) -> None:
    with pytest.raises(ApprovalRefused, match=said):
        cast_vote(PENDING, YES, voter, LATER)


def test_vote_ends_it_when_it_denies() -> None:
    denied = cast_vote(PENDING, NO, CAROL, LATER)
    assert (denied.state, denied.steps[0].state, denied.use_by) == (ApprovalState.DENIED, StepState.DENIED, None)


@pytest.mark.parametrize(
    ("voter", "code"),
    [
        pytest.param(Voter(tenant="rival"), "not_found", id="another tenant"),
        pytest.param(Voter(workspace="dev"), "not_found", id="another workspace"),
        pytest.param(Voter(tenant="rival", people=False), "not_found", id="another tenant's workload"),
        pytest.param(Voter(people=False), "denied", id="no person"),
        pytest.param(Voter(id="alice"), "denied", id="the requester"),
        pytest.param(Voter(id="alice", issuer="urn:second"), "denied", id="the requester's name at another issuer"),
        pytest.param(Voter(id="boss"), "denied", id="whom the requester acts for"),
        pytest.param(Voter(id="bot"), "denied", id="an actor of the requester"),
        pytest.param(Voter(actors=("script",)), "denied", id="a person through an actor"),
        pytest.param(Voter(on_behalf_of="dora"), "denied", id="a vote for somebody else"),
        pytest.param(Voter(roles=()), "vote_refused", id="no role"),
        pytest.param(Voter(roles=("approver2", "operator")), "vote_refused", id="other roles"),
    ],
)
def test_vote_is_refused_when_the_voter_may_not(voter: Voter, code: str) -> None:
    approval = replace(PENDING, held=replace(HELD, fields=replace(FIELDS, on_behalf_of="boss")))
    with pytest.raises(ApprovalRefused) as caught:
        cast_vote(approval, YES, voter, LATER)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("ballot", "now", "code"),
    [
        pytest.param(replace(YES, action_digest="sha256:" + "0" * 64), LATER, "stale_state", id="another digest"),
        pytest.param(replace(YES, action_digest=""), LATER, "stale_state", id="no digest"),
        pytest.param(replace(YES, action_digest="ä\ud800"), LATER, "stale_state", id="a digest of other text"),
        pytest.param(YES, PENDING.decide_by, "stale_state", id="exactly at the deadline"),
        pytest.param(replace(YES, decision="yes"), LATER, "malformed_request", id="an unknown decision"),  # type: ignore[arg-type]
        pytest.param(replace(YES, reason="x" * (REASON_MAX_CHARACTERS + 1)), LATER, "malformed_request", id="too long"),
    ],
)
def test_vote_is_refused_when_ballot_or_time_do_not_fit(ballot: Ballot, now: int, code: str) -> None:
    with pytest.raises(ApprovalRefused) as caught:
        cast_vote(PENDING, ballot, CAROL, now)
    assert caught.value.code == code


def test_vote_counts_when_it_comes_at_the_last_moment() -> None:
    ballot = replace(YES, reason="x" * REASON_MAX_CHARACTERS)
    assert cast_vote(PENDING, ballot, CAROL, PENDING.decide_by - 1).state is ApprovalState.APPROVED


ENDED = {
    ApprovalState.DENIED: cast_vote(PENDING, NO, CAROL, LATER),
    ApprovalState.EXPIRED: as_of(PENDING, PENDING.decide_by),
    ApprovalState.CONSUMED: consume(APPROVED, APPROVED.action_digest, LATER),
    ApprovalState.WITHDRAWN: withdraw(PENDING, Voter(id="alice"), LATER),
    ApprovalState.SUPERSEDED: replace(PENDING, state=ApprovalState.SUPERSEDED),
}


@pytest.mark.parametrize("state", sorted(ENDED))
def test_nothing_changes_when_the_approval_has_ended(state: ApprovalState) -> None:
    ended = ENDED[state]
    assert ended.state is state
    assert ended.state not in OPEN_STATES
    for attempt in (
        lambda: cast_vote(ended, YES, CAROL, LATER),
        lambda: consume(ended, ended.action_digest, LATER),
        lambda: withdraw(ended, Voter(id="alice"), LATER),
    ):
        with pytest.raises(ApprovalRefused) as caught:
            attempt()
        assert caught.value.code == "stale_state"


TWO_VOTES = replace(PENDING, steps=(replace(PENDING.steps[0], quorum=2),))
TWO_STEPS = replace(PENDING, steps=(*PENDING.steps, Step("two", StepState.WAITING, ("boss",), 1)))

CHANGES = {
    "a vote approves it": (PENDING, cast_vote(PENDING, YES, CAROL, LATER)),
    "a vote denies it": (PENDING, ENDED[ApprovalState.DENIED]),
    "its clock runs out": (PENDING, ENDED[ApprovalState.EXPIRED]),
    "its requester withdraws it": (PENDING, ENDED[ApprovalState.WITHDRAWN]),
    "it is used up": (APPROVED, ENDED[ApprovalState.CONSUMED]),
    "one of two votes comes": (TWO_VOTES, cast_vote(TWO_VOTES, YES, CAROL, LATER)),
    "one of two steps is approved": (TWO_STEPS, cast_vote(TWO_STEPS, YES, CAROL, LATER)),
}


@pytest.mark.parametrize(("before", "after"), CHANGES.values(), ids=CHANGES.keys())
def test_version_rises_by_one_when(before: Approval, after: Approval) -> None:
    assert after.version == before.version + 1


@pytest.mark.parametrize("seconds", [1, 2], ids=["the shortest time", "more"])
def test_approval_opens_when_both_clocks_have_a_second(seconds: int) -> None:
    given_time = replace(HELD, decide_within_seconds=seconds, use_within_seconds=seconds)
    approval = open_approval(given_time, approval_id="a", salt=SALT, attach_key=KEY, now=START)
    assert approval.decide_by == START + seconds * 1000


def test_approval_opens_when_its_chain_says_what_it_is_for() -> None:
    chain = {"steps": [{"role": "x"}], "name": "one", "description": "one person decides"}
    described = replace(HELD, chain_json=json.dumps(chain))
    approval = open_approval(described, approval_id="a", salt=SALT, attach_key=KEY, now=START)
    assert approval.steps == (Step("approve", StepState.PENDING, ("x",), 1),)


def test_second_vote_is_refused_when_one_person_has_two_tokens() -> None:
    once = cast_vote(TWO_VOTES, YES, CAROL, LATER)
    assert once.state is ApprovalState.PENDING
    with pytest.raises(ApprovalRefused) as caught:
        cast_vote(once, YES, Voter(roles=("approver", "operator")), LATER)
    assert caught.value.code == "vote_refused"
    assert cast_vote(once, YES, Voter(id="dan"), LATER).state is ApprovalState.APPROVED


def test_next_step_is_pending_when_one_of_two_is_approved() -> None:
    once = cast_vote(TWO_STEPS, YES, CAROL, LATER)
    assert [step.state for step in once.steps] == [StepState.APPROVED, StepState.PENDING]
    with pytest.raises(ApprovalRefused, match="one vote"):
        cast_vote(once, YES, Voter(roles=("boss",)), LATER)
    assert cast_vote(once, YES, Voter(id="eve", roles=("boss",)), LATER).state is ApprovalState.APPROVED
    stuck = replace(once, steps=(once.steps[0],))
    with pytest.raises(ApprovalRefused, match="no step"):
        cast_vote(stuck, YES, Voter(id="eve"), LATER)


@pytest.mark.parametrize(
    ("approval", "digest", "now"),
    [
        pytest.param(PENDING, PENDING.action_digest, LATER, id="nobody has voted"),
        pytest.param(APPROVED, "sha256:" + "0" * 64, LATER, id="another call"),
        pytest.param(APPROVED, APPROVED.action_digest, APPROVED.use_by, id="exactly when its time is over"),
    ],
)
def test_consumption_is_refused_when_it_does_not_fit(approval: Approval, digest: str, now: int) -> None:
    with pytest.raises(ApprovalRefused) as caught:
        consume(approval, digest, now)
    assert caught.value.code == "stale_state"


@pytest.mark.parametrize(
    ("who", "code"),
    [
        pytest.param(CAROL, "denied", id="an approver"),
        pytest.param(Voter(id="alice", issuer="urn:second"), "denied", id="the same name at another issuer"),
        pytest.param(Voter(id="alice", tenant="rival"), "not_found", id="another tenant"),
    ],
)
def test_withdrawal_is_refused_when_it_is_not_the_requester(who: Voter, code: str) -> None:
    with pytest.raises(ApprovalRefused) as caught:
        withdraw(PENDING, who, LATER)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "chain",
    [
        pytest.param({"steps": []}, id="no step"),
        pytest.param({"steps": [{"id": "a", "role": "x"}, {"id": "b", "role": "y"}]}, id="two steps"),
        pytest.param({"steps": [{"id": "a", "parallel": [{"role": "x"}]}]}, id="parallel"),
        pytest.param({"steps": [{"id": "a", "role": "x", "when": "environment == prod"}]}, id="conditional"),
        pytest.param({"steps": [{"id": "a", "role": "x", "quorum": 2}]}, id="a quorum of two"),
        pytest.param({"steps": [{"id": "a", "role": "x", "quorum": 0}]}, id="a quorum of none"),
        pytest.param({"steps": [{"id": "a", "role": "x", "quorum": True}]}, id="a quorum that is no number"),
        pytest.param({"steps": [{"id": "a", "role": ""}]}, id="an empty role"),
        pytest.param({"steps": [{"id": "", "role": "x"}]}, id="an empty id"),
        pytest.param({"steps": [{"id": "a"}]}, id="no role"),
        pytest.param({"steps": ["x"]}, id="a step that is a text"),
        pytest.param({"steps": [["id", "role"]]}, id="a step that is a list of members"),
        pytest.param({"steps": [{"id": "a", "role": ["x"]}]}, id="a role that is a list"),
        pytest.param({"steps": [{"id": 1, "role": "x"}]}, id="an id that is a number"),
        pytest.param({"steps": [{"id": None, "role": "x"}]}, id="an id that is null"),
        pytest.param({"steps": {"a": {"id": "a", "role": "x"}}}, id="steps that are an object"),
        pytest.param({"steps": [{"id": "a", "role": "x"}], "timeout": 3}, id="an unknown member"),
        pytest.param([], id="no object"),
    ],
)
def test_approval_is_not_opened_when_the_chain_is_not_supported(chain: Any) -> None:
    with pytest.raises(ApprovalRefused) as caught:
        open_approval(
            replace(HELD, chain_json=json.dumps(chain)), approval_id="a", salt=SALT, attach_key=KEY, now=START
        )
    assert caught.value.code == "not_supported"


@pytest.mark.parametrize(
    "changes",
    [{"on_approval": "dispatch"}, {"decide_within_seconds": 0}, {"use_within_seconds": 0}],
    ids=["dispatch by the gate", "no time to decide", "no time to use"],
)
def test_approval_is_not_opened_when_an_obligation_is_not_supported(changes: dict[str, Any]) -> None:
    with pytest.raises(ApprovalRefused) as caught:
        open_approval(replace(HELD, **changes), approval_id="a", salt=SALT, attach_key=KEY, now=START)
    assert caught.value.code == "not_supported"


MUTATED = {
    "tenant": "rival", "workspace": "dev", "environment": "test", "subject": "bob", "on_behalf_of": "boss",
    "instance": "other", "action": "servicenow.incident.delete", "resource_json": '{"id":"43","type":"incident"}',
    "args_json": '{"state":"open"}', "method": "PUT", "path": "/api/now/table/incident/43", "query": "a=1",
    "content_type": None, "headers_json": '[["x","y"]]', "body_sha256": "11" * 32, "target": "http://127.0.0.1:9502",
    "idempotency_key": "k", "issuer": "urn:second",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MUTATED))
def test_digest_differs_when_any_field_of_the_call_does(name: str) -> None:
    changed = replace(FIELDS, **{name: MUTATED[name]})  # type: ignore[arg-type]
    assert action_digest(changed, SALT) != PENDING.action_digest
    assert attach_key(changed, b"k" * 32) != KEY
    with pytest.raises(ApprovalRefused):
        consume(APPROVED, action_digest(changed, SALT), LATER)


def test_digest_covers_every_field_when_fields_are_counted() -> None:
    assert set(MUTATED) == set(FIELDS.__dataclass_fields__)


def test_digest_differs_when_salt_or_tenant_key_does() -> None:
    assert action_digest(FIELDS, "00" * 16) != action_digest(FIELDS, SALT)
    assert attach_key(FIELDS, b"1" * 32) != attach_key(FIELDS, b"2" * 32)


@given(st.lists(st.sampled_from(["yes", "no", "withdraw", "consume", "time"]), max_size=8))
def test_state_never_goes_back_when_events_come_in_any_order(events: list[str]) -> None:
    approval, now = PENDING, START
    rank = {ApprovalState.PENDING: 0, ApprovalState.APPROVED: 1}
    for number, event in enumerate(events):
        before = approval
        now += 300_000 if event == "time" else 1
        try:
            if event == "withdraw":
                approval = withdraw(approval, Voter(id="alice"), now)
            elif event == "consume":
                approval = consume(approval, approval.action_digest, now)
            elif event != "time":
                approval = cast_vote(approval, YES if event == "yes" else NO, Voter(id=f"v{number}"), now)
        except ApprovalRefused:
            approval = as_of(approval, now)
        assert rank.get(approval.state, 2) >= rank.get(before.state, 2)
        assert approval.state is before.state or before.state in OPEN_STATES
        assert decode_approval(encode_approval(approval)) == approval


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b"null", encode_approval(PENDING).replace(b'"pending"', b'"paused"'), b'{"held": 1}']
)
def test_stored_approval_is_refused_when_its_bytes_are_none(raw: bytes) -> None:
    with pytest.raises(CodecError):
        decode_approval(raw)


def test_document_has_exactly_the_promised_members_when_rendered() -> None:
    document: Any = approval_document(replace(APPROVED, held=replace(HELD, stated_reason="please")), LATER)
    assert set(document) == {
        *("id", "state", "action_digest", "call", "tenant", "workspace", "instance", "action", "resource", "arguments"),
        *("subject", "reasons", "created", "decide_by", "use_by", "on_approval", "chain"),
    }
    assert document["created"] == "2027-01-15T08:00:00.000Z"
    assert document["use_by"] == "2027-01-15T08:01:05.000Z"
    assert document["arguments"] == {"state": "closed"}
    assert document["reasons"][-1] == {"code": "stated_reason_untrusted", "rule": "", "message": "please"}
    step = document["chain"]["steps"][0]
    assert (step["id"], step["state"], step["needs"]) == ("one", "approved", {"roles": ["approver"], "quorum": 1})
    assert step["votes"] == [
        {"voter": "carol", "decision": "approve", "reason": "fine", "at": "2027-01-15T08:00:05.000Z"}
    ]


def test_document_says_expired_when_nobody_swept_yet() -> None:
    assert approval_document(PENDING, PENDING.decide_by)["state"] == "expired"
    assert approval_document(PENDING, PENDING.decide_by - 1)["use_by"] is None
