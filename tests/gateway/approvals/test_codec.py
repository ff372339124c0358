"""An approval as bytes and back, also as an earlier version stored it."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from gateway.approvals.codec import CodecError, decode_approval, encode_approval
from gateway.approvals.model import Approval, ApprovalRefused, ApprovalState, Ballot
from gateway.approvals.reduce import as_of, cast_vote, consume, open_approval
from tests.gateway.store.build import HELD, Voter

APPROVAL = open_approval(HELD, approval_id="a", salt="00" * 16, attach_key="k", now=1)


def test_approval_is_the_same_when_it_was_stored() -> None:
    used = replace(APPROVAL, used_by="call-7")
    assert decode_approval(encode_approval(used)) == used


def test_approval_is_used_by_nobody_when_an_earlier_version_stored_it() -> None:
    members = orjson.loads(encode_approval(APPROVAL))
    del members["used_by"]
    assert decode_approval(orjson.dumps(members)) == APPROVAL


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"held": 1}', b"\xff"])
def test_approval_is_refused_when_the_bytes_are_none(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode_approval(data)


def _of_first_form(approval: Approval) -> bytes:
    """An approval as the version before stored it: its digest did not bind the issuer."""
    members = orjson.loads(encode_approval(approval))
    del members["digest_version"]
    members["held"]["issuer"] = members["held"]["fields"].pop("issuer")
    return orjson.dumps(members)


def test_approval_is_superseded_when_its_digest_has_the_first_form() -> None:
    stored = decode_approval(_of_first_form(APPROVAL))
    assert (stored.state, stored.held.issuer, stored.requester) == (
        ApprovalState.PENDING,
        HELD.issuer,
        APPROVAL.requester,
    )
    assert as_of(stored, 2).state is ApprovalState.SUPERSEDED
    with pytest.raises(ApprovalRefused) as caught:
        cast_vote(stored, Ballot("approve", "fine", stored.action_digest), Voter(), 2)
    assert (caught.value.code, caught.value.detail) == ("stale_state", "the approval is superseded")


def test_approved_call_is_not_released_when_its_digest_has_the_first_form() -> None:
    approved = cast_vote(APPROVAL, Ballot("approve", "fine", APPROVAL.action_digest), Voter(), 2)
    stored = decode_approval(_of_first_form(approved))
    with pytest.raises(ApprovalRefused) as caught:
        consume(stored, stored.action_digest, 3)
    assert caught.value.code == "stale_state"


def test_ended_approval_stays_as_it_ended_when_its_digest_has_the_first_form() -> None:
    denied = cast_vote(APPROVAL, Ballot("deny", "no", APPROVAL.action_digest), Voter(), 2)
    assert as_of(decode_approval(_of_first_form(denied)), 3).state is ApprovalState.DENIED
