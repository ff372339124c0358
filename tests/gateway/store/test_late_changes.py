"""Changes that come a moment too late or for somebody else's row: approvals at their end, another tenant's switch."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from gateway.approvals.model import ApprovalRefused, ApprovalState, Ballot
from gateway.approvals.reduce import cast_vote
from gateway.approvals.service import ApprovalLimits, ApprovalService
from gateway.store.port import ChangeApproval, ClearSwitch, SetSwitch, StoreConflict, StoreUnavailable, SwitchRow
from tests.gateway.store.build import (
    HELD,
    KEYS,
    LOG,
    OTHER_LOG,
    START,
    CountingBytes,
    FakeClock,
    OpenStore,
    Voter,
    draft,
    open_store,
)

END = START + HELD.decide_within_seconds * 1000


def _service(opened: OpenStore, clock: FakeClock) -> ApprovalService:
    return ApprovalService(
        opened.store,
        opened.writer,
        clock=clock,
        random_bytes=CountingBytes(),
        tenant_key=KEYS.attach_key,
        limits=ApprovalLimits(wait_max_seconds=600, open_per_subject_max=32),
    )


@pytest.mark.parametrize(("now", "late"), [(END - 1, False), (END, True)], ids=["just in time", "at the end"])
async def test_vote_counts_by_the_clock_it_is_committed_at(tmp_path: Path, now: int, late: bool) -> None:
    async with open_store(tmp_path) as opened:
        voting = FakeClock()
        service = _service(opened, voting)
        approval = await service.open_or_attach(HELD)
        voting.now, opened.clock.now = END - 1, now
        ballot = Ballot("approve", "", approval.action_digest)
        if late:
            with pytest.raises(ApprovalRefused) as caught:
                await service.vote(LOG, approval.id, ballot, Voter())
            assert caught.value.code == "stale_state"
        else:
            await service.vote(LOG, approval.id, ballot, Voter())
        stored = await opened.store.approval(LOG, approval.id)
    assert stored is not None
    assert stored.state is (ApprovalState.PENDING if late else ApprovalState.APPROVED)


async def test_change_conflicts_when_its_end_has_come(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        approval = await _service(opened, opened.clock).open_or_attach(HELD)
        voted = cast_vote(approval, Ballot("deny", "no", approval.action_digest), Voter(), START + 1)
        effect = ChangeApproval(voted, approval.version, not_after=approval.deadline)
        opened.clock.now = approval.deadline
        with pytest.raises(StoreConflict, match="expired"):
            await opened.writer.append(draft("vote"), effects=(effect,))
        opened.clock.now = approval.deadline - 1
        await opened.writer.append(draft("vote"), effects=(effect,))


async def test_approvals_are_unavailable_when_one_of_them_does_not_open(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        approval = await _service(opened, opened.clock).open_or_attach(HELD)
        changed = sqlite3.connect(opened.path)
        changed.execute("UPDATE approvals SET sealed = zeroblob(60)")
        changed.commit()
        changed.close()
        for read in (
            opened.store.approval(LOG, approval.id),
            opened.store.approvals(LOG, None, None, 10, START),
            opened.store.open_approval(LOG, approval.attach_key, START),
            opened.store.due_approvals(END, 10),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                await read
            assert (caught.value.code, caught.value.fatal) == ("seal_broken", False)


async def test_switch_stays_when_another_tenant_clears_its_scope(tmp_path: Path) -> None:
    row = SwitchRow("acme", "tenant/acme", "incident", "carol", START)
    async with open_store(tmp_path) as opened:
        await opened.writer.append(draft("switch"), effects=(SetSwitch(row),))
        with pytest.raises(StoreConflict) as caught:
            await opened.writer.append(draft("switch", log=OTHER_LOG), effects=(ClearSwitch("rival", row.scope),))
        assert caught.value.code == "not_found"
        assert await opened.store.switches() == (row,)
