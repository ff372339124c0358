"""Held calls in a real store: attach, race, wait, list, consume once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from gateway.approvals.model import Approval, ApprovalRefused, ApprovalState, Ballot
from gateway.approvals.service import CHANGE_ATTEMPTS_MAX, ApprovalLimits, ApprovalService
from gateway.ledger.record import LogId
from gateway.store.port import Store, StoreConflict
from gateway.store.sqlite_reads_driver import SqliteReads
from tests.gateway.store.build import (
    HELD,
    KEYS,
    LOG,
    OTHER_LOG,
    CountingBytes,
    OpenStore,
    Voter,
    draft,
    held,
    open_store,
)


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[OpenStore]:
    async with open_store(tmp_path) as store:
        yield store


LIMITS = ApprovalLimits(wait_max_seconds=600, open_per_subject_max=100)


def service_of(opened: OpenStore, limits: ApprovalLimits = LIMITS) -> ApprovalService:
    return ApprovalService(
        opened.store,
        opened.writer,
        clock=opened.clock,
        random_bytes=CountingBytes(),
        tenant_key=KEYS.attach_key,
        limits=limits,
    )


class LateReads:
    """A store whose reads lag behind what the writer has committed, as those of a second reader may."""

    def __init__(self, behind: SqliteReads) -> None:
        self._store = behind
        self.reads = 0
        self.late = True

    async def open_approval(self, log: LogId, key: str, now: int) -> Approval | None:
        self.reads += 1
        return None if self.late else await self._store.open_approval(log, key, now)

    async def approval(self, log: LogId, approval_id: str) -> Approval | None:
        self.reads += 1
        found = await self._store.approval(log, approval_id)
        return replace(found, version=found.version - 1) if found is not None and self.late else found

    async def due_approvals(self, now: int, limit: int) -> Sequence[Approval]:
        self.reads += 1
        due = await self._store.due_approvals(now, limit)
        return [replace(each, version=each.version - 1) for each in due] if self.late else due


class EagerReads(LateReads):
    """A store that calls approvals due which still have a moment."""

    async def due_approvals(self, now: int, limit: int) -> Sequence[Approval]:
        return await self._store.due_approvals(now + 1, limit)


def late_service_of(opened: OpenStore, reads: LateReads) -> ApprovalService:
    """The service over reads that lag; the writer is the real one."""
    behind = cast("Store", reads)
    return ApprovalService(
        behind,
        opened.writer,
        clock=opened.clock,
        random_bytes=CountingBytes(),
        tenant_key=KEYS.attach_key,
        limits=LIMITS,
    )


def yes(approval: Approval) -> Ballot:
    return Ballot("approve", "fine", approval.action_digest)


async def kinds(opened: OpenStore) -> list[str]:
    return [row.data.split(b'"kind":"')[1].split(b'"')[0].decode() for row in await opened.store.records(LOG, 0, 200)]


async def test_call_attaches_when_it_is_sent_again(opened: OpenStore) -> None:
    service = service_of(opened)
    first = await service.open_or_attach(HELD)
    assert (await service.open_or_attach(HELD)).id == first.id
    await service.vote(LOG, first.id, yes(first), Voter())
    again = await service.open_or_attach(HELD)
    assert (again.id, again.state) == (first.id, ApprovalState.APPROVED)
    assert await service.find(HELD) == again
    assert await service.find(held(path="/other")) is None
    assert await kinds(opened) == ["approval", "vote"]


async def test_one_approval_opens_when_the_same_call_races(opened: OpenStore) -> None:
    service = service_of(opened)
    approvals = await asyncio.gather(*(service.open_or_attach(HELD) for _ in range(20)))
    assert len({approval.id for approval in approvals}) == 1
    assert await kinds(opened) == ["approval"]


async def test_new_approval_opens_when_the_old_one_has_expired(opened: OpenStore) -> None:
    service = service_of(opened)
    first = await service.open_or_attach(HELD)
    opened.clock.advance(HELD.decide_within_seconds)
    second = await service.open_or_attach(HELD)
    assert second.id != first.id
    assert second.action_digest != first.action_digest
    assert (await service.get(LOG, first.id)).state is ApprovalState.EXPIRED


async def test_subject_is_throttled_when_too_many_calls_are_held(opened: OpenStore) -> None:
    service = service_of(opened, replace(LIMITS, open_per_subject_max=2))
    for number in range(2):
        await service.open_or_attach(held(path=f"/{number}"))
    with pytest.raises(ApprovalRefused) as caught:
        await service.open_or_attach(held(path="/2"))
    assert caught.value.code == "throttled"
    assert (await service.open_or_attach(held(path="/2", subject="bob"))).state is ApprovalState.PENDING


async def test_approval_is_used_once_when_intents_race(opened: OpenStore) -> None:
    service = service_of(opened)
    approval = await service.open_or_attach(HELD)
    await service.vote(LOG, approval.id, yes(approval), Voter())
    uses = [service.consumption(approval, approval.action_digest, f"call-{number}") for number in range(20)]
    results = await asyncio.gather(
        *(opened.writer.append(draft(), effects=(use,)) for use in uses), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert {result.code for result in results if isinstance(result, StoreConflict)} == {"stale_state"}
    used = await service.get(LOG, approval.id)
    assert used.state is ApprovalState.CONSUMED
    first = next(number for number, result in enumerate(results) if not isinstance(result, BaseException))
    assert used.used_by == f"call-{first}"
    assert (await kinds(opened)).count("intent") == 1


@pytest.mark.parametrize("seconds", [59.999, 60.0], ids=["at the last moment", "exactly too late"])
async def test_approval_is_usable_only_within_its_time_when_approved(opened: OpenStore, seconds: float) -> None:
    service = service_of(opened)
    approval = await service.open_or_attach(HELD)
    opened.clock.advance(HELD.decide_within_seconds - 1)
    await service.vote(LOG, approval.id, yes(approval), Voter())
    opened.clock.advance(seconds)
    use = service.consumption(approval, approval.action_digest)
    if seconds < HELD.use_within_seconds:
        await opened.writer.append(draft(), effects=(use,))
        return
    with pytest.raises(StoreConflict) as caught:
        await opened.writer.append(draft(), effects=(use,))
    assert caught.value.code == "stale_state"
    assert "intent" not in await kinds(opened)


async def test_consumption_is_refused_when_approval_is_pending_absent_or_for_another_call(opened: OpenStore) -> None:
    service = service_of(opened)
    approval = await service.open_or_attach(HELD)
    with pytest.raises(StoreConflict):
        await opened.writer.append(draft(), effects=(service.consumption(approval, approval.action_digest),))
    await service.vote(LOG, approval.id, yes(approval), Voter())
    with pytest.raises(StoreConflict):
        await opened.writer.append(draft(), effects=(service.consumption(approval, "sha256:" + "0" * 64),))


async def test_racing_votes_count_once_each_when_cast_together(opened: OpenStore) -> None:
    service = service_of(opened)
    approval = await service.open_or_attach(HELD)
    results = await asyncio.gather(
        *(service.vote(LOG, approval.id, yes(approval), Voter(id=f"v{number}")) for number in range(10)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Approval) for result in results) == 1
    assert {result.code for result in results if isinstance(result, ApprovalRefused)} == {"stale_state"}
    assert len((await service.get(LOG, approval.id)).steps[0].votes) == 1


@pytest.mark.parametrize("log", [OTHER_LOG, ("acme", "dev")], ids=["another tenant", "another workspace"])
async def test_approval_is_not_found_when_it_is_another_tenants(opened: OpenStore, log: LogId) -> None:
    service = service_of(opened)
    approval = await service.open_or_attach(HELD)
    stranger = Voter(tenant=log[0], workspace=log[1])
    for attempt in (
        service.get(log, approval.id),
        service.vote(log, approval.id, yes(approval), stranger),
        service.withdraw(log, approval.id, stranger),
        service.wait(log, approval.id, 0),
    ):
        with pytest.raises(ApprovalRefused) as caught:
            await attempt
        assert caught.value.code == "not_found"
    assert (await service.list(log, None, None, 10)).items == ()


async def test_waiter_goes_on_when_the_vote_comes(opened: OpenStore) -> None:
    service = service_of(opened)
    approval = await service.open_or_attach(HELD)
    waiting = asyncio.create_task(service.wait(LOG, approval.id, 60), name="waiter")
    while service._waiting == 0:
        await asyncio.sleep(0)
    await service.vote(LOG, approval.id, yes(approval), Voter())
    async with asyncio.timeout(10):
        assert (await waiting).state is ApprovalState.APPROVED
    assert service._waiters == {}


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.02], ids=["no time", "less than none", "a short time"])
async def test_waiter_gets_it_pending_when_time_is_over(opened: OpenStore, seconds: float) -> None:
    service = service_of(opened)
    approval = await service.open_or_attach(HELD)
    assert (await service.wait(LOG, approval.id, seconds)).state is ApprovalState.PENDING
    assert service._waiters == {}


async def test_waiter_does_not_wait_when_too_many_do(opened: OpenStore) -> None:
    service = service_of(opened, replace(LIMITS, waiters_max=0))
    approval = await service.open_or_attach(HELD)
    async with asyncio.timeout(10):
        assert (await service.wait(LOG, approval.id, 600)).state is ApprovalState.PENDING


async def test_waiter_waits_no_longer_than_the_limit_when_it_asks_for_more(opened: OpenStore) -> None:
    service = service_of(opened, replace(LIMITS, wait_max_seconds=0))
    approval = await service.open_or_attach(HELD)
    async with asyncio.timeout(10):
        assert (await service.wait(LOG, approval.id, 3600)).state is ApprovalState.PENDING
    assert service._waiters == {}


async def test_approval_is_throttled_by_the_new_limit_when_it_was_replaced(opened: OpenStore) -> None:
    service = service_of(opened)
    await service.open_or_attach(HELD)
    service.limits = replace(LIMITS, open_per_subject_max=1)
    with pytest.raises(ApprovalRefused) as refused:
        await service.open_or_attach(held(path="/other"))
    assert refused.value.code == "throttled"
    service.limits = LIMITS
    assert (await service.open_or_attach(held(path="/other"))).state is ApprovalState.PENDING


async def test_withdrawn_approval_ends_when_its_requester_asks(opened: OpenStore) -> None:
    service = service_of(opened)
    approval = await service.open_or_attach(HELD)
    with pytest.raises(ApprovalRefused):
        await service.withdraw(LOG, approval.id, Voter())
    assert (await service.withdraw(LOG, approval.id, Voter(id="alice"))).state is ApprovalState.WITHDRAWN
    with pytest.raises(ApprovalRefused) as caught:
        await service.vote(LOG, approval.id, yes(approval), Voter())
    assert caught.value.code == "stale_state"


async def test_list_pages_newest_first_when_there_are_many(opened: OpenStore) -> None:
    service = service_of(opened)
    opened_ids = []
    for number in range(7):
        opened_ids.append((await service.open_or_attach(held(path=f"/{number}"))).id)
        opened.clock.advance(0 if number == 3 else 1)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await service.list(LOG, ApprovalState.PENDING, cursor, 3)
        assert len(page.items) <= 3
        seen += [item.id for item in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert sorted(seen) == sorted(opened_ids)
    assert seen[0] == opened_ids[-1]


async def test_list_tells_states_apart_when_clocks_run_out(opened: OpenStore) -> None:
    service = service_of(opened)
    first = await service.open_or_attach(held(path="/1"))
    second = await service.open_or_attach(held(path="/2"))
    await service.vote(LOG, second.id, yes(second), Voter())

    async def listed(state: ApprovalState) -> list[str]:
        return [item.id for item in (await service.list(LOG, state, None, 10)).items]

    assert await listed(ApprovalState.PENDING) == [first.id]
    assert await listed(ApprovalState.APPROVED) == [second.id]
    assert await opened.store.approvals_pending(opened.clock()) == 1
    opened.clock.advance(HELD.decide_within_seconds)
    assert await listed(ApprovalState.PENDING) == await listed(ApprovalState.APPROVED) == []
    assert sorted(await listed(ApprovalState.EXPIRED)) == sorted([first.id, second.id])
    assert await service.expire_due() == 2
    assert await service.expire_due() == 0
    assert sorted(await listed(ApprovalState.EXPIRED)) == sorted([first.id, second.id])
    assert (await kinds(opened)).count("approval") == 4


@pytest.mark.parametrize("cursor", ["", "x", "!!", "MTpu=", "LTE6YQ", "YTph", "ä", "MTo"])
async def test_list_is_refused_when_the_cursor_is_none_of_its(opened: OpenStore, cursor: str) -> None:
    service = service_of(opened)
    if cursor == "MTpu=":
        cursor = "MTpu" * 50
    with pytest.raises(ApprovalRefused) as caught:
        await service.list(LOG, None, cursor, 10)
    assert caught.value.code == "malformed_request"


async def test_arguments_are_unreadable_at_rest_when_a_call_is_held(opened: OpenStore) -> None:
    service = service_of(opened)
    approval = await service.open_or_attach(held(args_json='{"note":"of-alice-only"}'))
    await service.vote(LOG, approval.id, Ballot("approve", "of-carol-only", approval.action_digest), Voter())
    for file in opened.path.parent.iterdir():
        data = file.read_bytes()
        assert b"of-alice-only" not in data
        assert b"of-carol-only" not in data


async def test_chain_is_refused_when_it_has_more_than_one_step(opened: OpenStore) -> None:
    many = replace(HELD, chain_json='{"steps":[{"id":"a","role":"x"},{"id":"b","role":"y"}]}')
    with pytest.raises(ApprovalRefused) as caught:
        await service_of(opened).open_or_attach(many)
    assert caught.value.code == "not_supported"
    assert await kinds(opened) == []


async def test_waiter_sees_it_expired_when_the_clock_runs_out_meanwhile(opened: OpenStore) -> None:
    service = service_of(opened)
    approval = await service.open_or_attach(HELD)
    waiting = asyncio.create_task(service.wait(LOG, approval.id, 60), name="waiter")
    while service._waiting == 0:
        await asyncio.sleep(0)
    opened.clock.advance(HELD.decide_within_seconds)
    assert await service.expire_due() == 1
    async with asyncio.timeout(10):
        assert (await waiting).state is ApprovalState.EXPIRED


async def test_waiters_all_go_on_when_one_of_them_is_cancelled(opened: OpenStore) -> None:
    service = service_of(opened)
    approval = await service.open_or_attach(HELD)
    waiters = [asyncio.create_task(service.wait(LOG, approval.id, 60), name=str(number)) for number in range(3)]
    while service._waiting < 3:
        await asyncio.sleep(0)
    waiters[0].cancel()
    await service.vote(LOG, approval.id, Ballot("deny", "no", approval.action_digest), Voter())
    async with asyncio.timeout(10):
        results = await asyncio.gather(*waiters, return_exceptions=True)
    assert [getattr(result, "state", None) for result in results] == [None, ApprovalState.DENIED, ApprovalState.DENIED]
    assert (service._waiting, service._waiters) == (0, {})


async def test_waiter_sees_it_expired_when_nobody_wakes_it(opened: OpenStore) -> None:
    service = service_of(opened)
    approval = await service.open_or_attach(replace(HELD, decide_within_seconds=1))
    opened.clock.advance(0.99)
    waiting = asyncio.create_task(service.wait(LOG, approval.id, 60), name="waiter")
    while service._waiting == 0:
        await asyncio.sleep(0)
    opened.clock.advance(0.01)
    async with asyncio.timeout(4):
        assert (await waiting).state is ApprovalState.EXPIRED


async def test_open_is_refused_when_reads_never_catch_up(opened: OpenStore) -> None:
    first = await service_of(opened).open_or_attach(HELD)
    reads = LateReads(opened.store)
    with pytest.raises(ApprovalRefused) as caught:
        await late_service_of(opened, reads).open_or_attach(HELD)
    assert (caught.value.code, reads.reads) == ("stale_state", CHANGE_ATTEMPTS_MAX)
    assert [item.id for item in (await service_of(opened).list(LOG, None, None, 10)).items] == [first.id]


async def test_vote_is_refused_and_counts_nothing_when_reads_never_catch_up(opened: OpenStore) -> None:
    approval = await service_of(opened).open_or_attach(HELD)
    reads = LateReads(opened.store)
    service = late_service_of(opened, reads)
    with pytest.raises(ApprovalRefused) as caught:
        await service.vote(LOG, approval.id, yes(approval), Voter())
    assert (caught.value.code, reads.reads) == ("stale_state", CHANGE_ATTEMPTS_MAX)
    assert (await service_of(opened).get(LOG, approval.id)).state is ApprovalState.PENDING
    assert await kinds(opened) == ["approval"]
    reads.late = False
    assert (await service.vote(LOG, approval.id, yes(approval), Voter())).state is ApprovalState.APPROVED


async def test_expiry_leaves_an_approval_alone_when_it_changed_since_it_was_read(opened: OpenStore) -> None:
    await service_of(opened).open_or_attach(HELD)
    opened.clock.advance(HELD.decide_within_seconds)
    reads = LateReads(opened.store)
    service = late_service_of(opened, reads)
    assert await service.expire_due() == 0
    assert await kinds(opened) == ["approval"]
    reads.late = False
    assert await service.expire_due() == 1


async def test_expiry_leaves_an_approval_alone_when_it_still_has_a_moment(opened: OpenStore) -> None:
    approval = await service_of(opened).open_or_attach(HELD)
    opened.clock.now = approval.deadline - 1
    assert await late_service_of(opened, EagerReads(opened.store)).expire_due() == 0
    assert await kinds(opened) == ["approval"]
    opened.clock.now = approval.deadline
    assert await service_of(opened).expire_due() == 1


async def test_waiter_is_throttled_when_its_requester_waits_as_often_as_it_may(opened: OpenStore) -> None:
    service = service_of(opened, replace(LIMITS, open_per_subject_max=2))
    approval = await service.open_or_attach(HELD)
    waiters = [asyncio.create_task(service.wait(LOG, approval.id, 60), name=str(number)) for number in range(2)]
    while service._waiting < 2:
        await asyncio.sleep(0)
    with pytest.raises(ApprovalRefused) as refused:
        await service.wait(LOG, approval.id, 60)
    assert refused.value.code == "throttled"
    assert (await service.wait(LOG, approval.id, 0)).state is ApprovalState.PENDING
    await service.vote(LOG, approval.id, yes(approval), Voter())
    async with asyncio.timeout(10):
        assert [(await waiter).state for waiter in waiters] == [ApprovalState.APPROVED] * 2
    assert (service._waiting, service._waiting_of) == (0, {})


async def test_waiter_goes_on_when_nobody_wants_the_approval_any_more(opened: OpenStore) -> None:
    service = service_of(opened)
    approval = await service.open_or_attach(HELD)
    wanted = [True, True, False]
    async with asyncio.timeout(10):
        assert (await service.wait(LOG, approval.id, 60, lambda: wanted.pop(0))).state is ApprovalState.PENDING
    assert (wanted, service._waiters, service._waiting_of) == ([], {}, {})
