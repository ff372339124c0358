"""Access requests among held calls: opened once a claim, ended once, and good for no call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.approvals.codec import decode_approval, encode_approval
from gateway.approvals.model import Approval, ApprovalRefused, ApprovalState, Ballot
from gateway.approvals.reduce import cancel, cast_vote, consume, open_approval
from gateway.approvals.render import approval_document, approval_facts
from gateway.store.port import ClaimKey
from tests.gateway.approvals.test_service import LateReads, late_service_of, service_of
from tests.gateway.store.build import FIELDS, HELD, LOG, START, OpenStore, Voter, open_store

ASKED = replace(
    HELD, kind="access_request", fields=replace(FIELDS, method="", path="", target="tidegate:access-request")
)
REQUESTER = Voter(id="alice", roles=())
PENDING = open_approval(ASKED, approval_id="a", salt="00" * 16, attach_key="k", now=START)
APPROVED = cast_vote(PENDING, Ballot("approve", "fine", PENDING.action_digest), Voter(), START + 1)


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[OpenStore]:
    async with open_store(tmp_path) as store:
        yield store


def claims(scope: str, digest: str = "d", expires: int = START + 10**7) -> Any:
    """What a denial of this name claims for its request."""
    return lambda approval: (ClaimKey(LOG, scope, digest, approval, expires),)


def test_access_request_releases_no_call_when_it_is_approved() -> None:
    with pytest.raises(ApprovalRefused) as refused:
        consume(APPROVED, APPROVED.action_digest, START + 2, "call")
    assert (refused.value.code, refused.value.detail) == ("stale_state", "an access request releases no call")


def test_access_request_is_withdrawn_when_its_requester_cancels_it() -> None:
    assert cancel(PENDING, REQUESTER, START + 1).state is ApprovalState.WITHDRAWN


STRANGERS = {
    "another tenant": replace(REQUESTER, tenant="rival"),
    "another issuer": replace(REQUESTER, issuer="urn:else"),
    "another subject": Voter(id="carol"),
}


@pytest.mark.parametrize("who", STRANGERS.values(), ids=STRANGERS.keys())
def test_access_request_is_not_found_when_cancelled_by(who: Voter) -> None:
    with pytest.raises(ApprovalRefused) as refused:
        cancel(PENDING, who, START + 1)
    assert refused.value.code == "not_found"


def test_held_call_is_not_found_when_it_is_cancelled() -> None:
    held = open_approval(HELD, approval_id="a", salt="00" * 16, attach_key="k", now=START)
    with pytest.raises(ApprovalRefused) as refused:
        cancel(held, REQUESTER, START + 1)
    assert refused.value.code == "not_found"


@pytest.mark.parametrize(("approval", "now"), [(APPROVED, START + 2), (PENDING, PENDING.decide_by)])
def test_access_request_is_not_cancelled_when_it_has_ended(approval: Approval, now: int) -> None:
    with pytest.raises(ApprovalRefused) as refused:
        cancel(approval, REQUESTER, now)
    assert refused.value.code == "stale_state"


def test_approval_is_a_calls_when_an_earlier_version_stored_it() -> None:
    members = orjson.loads(encode_approval(PENDING))
    assert decode_approval(encode_approval(PENDING)) == PENDING
    del members["held"]["kind"]
    assert decode_approval(orjson.dumps(members)).held.kind == "call"


def test_document_names_the_kind_when_it_is_no_call() -> None:
    assert approval_document(PENDING, START)["kind"] == "access_request"


def test_policy_is_told_who_voted_for_what() -> None:
    assert approval_facts(APPROVED) == {
        "id": "a",
        "state": "approved",
        "chains": ["one-approver"],
        "action_digest": APPROVED.action_digest,
        "votes": [{"voter": "carol", "decision": "approve", "step": "one"}],
    }


async def test_claim_gives_its_request_again_when_that_has_ended(opened: OpenStore) -> None:
    service = service_of(opened)
    first = await service.open_or_attach_once(ASKED, claims("denial-1"))
    await service.cancel(LOG, first.id, REQUESTER)
    again = await service.open_or_attach_once(ASKED, claims("denial-1"))
    assert (again.id, again.state) == (first.id, ApprovalState.WITHDRAWN)
    other = await service.open_or_attach_once(ASKED, claims("denial-2"))
    assert other.id != first.id
    assert (await service.open_or_attach_once(ASKED, claims("denial-1"))).id == first.id, "also beside an open one"


async def test_claim_of_another_denial_attaches_while_the_request_is_open(opened: OpenStore) -> None:
    service = service_of(opened)
    first = await service.open_or_attach_once(ASKED, claims("denial-1"))
    second = await service.open_or_attach_once(replace(ASKED, call="c2", decision_id="d2"), claims("denial-2"))
    assert second == first
    opening, attaching = [orjson.loads(row.data) for row in await opened.store.records(LOG, 0, 10)]
    assert ("attached" in opening["action"], attaching["action"]["attached"]) == (False, True)
    assert (attaching["ids"], attaching["decision"]["id"]) == ({"call": "c2", "approval": first.id}, "d2")
    await service.cancel(LOG, first.id, REQUESTER)
    assert (await service.open_or_attach_once(ASKED, claims("denial-2"))).id == first.id


async def test_one_request_opens_when_claims_race(opened: OpenStore) -> None:
    service = service_of(opened)
    wanted = [claims(f"denial-{number % 3}") for number in range(12)]
    found = await asyncio.gather(*(service.open_or_attach_once(ASKED, each) for each in wanted))
    assert len({approval.id for approval in found}) == 1
    records = [orjson.loads(row.data) for row in await opened.store.records(LOG, 0, 20)]
    assert sorted("attached" in record["action"] for record in records) == [False, True, True]


async def test_claim_is_refused_when_its_key_was_used_for_something_else(opened: OpenStore) -> None:
    service = service_of(opened)
    await service.open_or_attach_once(ASKED, claims("key", "one body"))
    with pytest.raises(ApprovalRefused) as refused:
        await service.open_or_attach_once(ASKED, claims("key", "another body"))
    assert refused.value.code == "idempotency_mismatch"


async def test_claim_is_free_again_when_it_has_expired(opened: OpenStore) -> None:
    service = service_of(opened)
    first = await service.open_or_attach_once(ASKED, claims("denial-1", expires=START + 1000))
    await service.cancel(LOG, first.id, REQUESTER)
    opened.clock.advance(1)
    assert (await service.open_or_attach_once(ASKED, claims("denial-1"))).id != first.id


async def test_opening_is_refused_when_reads_stay_behind(opened: OpenStore) -> None:
    await service_of(opened).open_or_attach_once(ASKED, claims("denial-1"))
    behind = late_service_of(opened, LateReads(opened.store))
    with pytest.raises(ApprovalRefused) as refused:
        await behind.open_or_attach_once(ASKED, claims("denial-2"))
    assert refused.value.code == "stale_state"


async def test_held_call_and_request_of_one_subject_do_not_meet(opened: OpenStore) -> None:
    service = service_of(opened)
    asked = await service.open_or_attach_once(ASKED, claims("denial-1"))
    held = await service.open_or_attach(HELD)
    assert held.id != asked.id
    assert (await service.open_or_attach(HELD)).id == held.id
