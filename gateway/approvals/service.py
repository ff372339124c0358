"""The approval service: where held calls wait for people.

Guarantees: every change is a pure reduction committed by compare-and-set together with its ledger record; of two racing
changes one is recomputed or refused; waiting is bounded in number and time; another tenant's approval is the same
`not_found` as an absent one. Leaves to policy who may call an operation at all, and to the flow the decision at use.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.approvals.digest import attach_key
from gateway.approvals.model import (
    OPEN_STATES,
    Approval,
    ApprovalPage,
    ApprovalRefused,
    ApprovalState,
    Ballot,
    HeldCall,
    Person,
)
from gateway.approvals.records import approval_record, attached_record, vote_record
from gateway.approvals.reduce import as_of, cancel, cast_vote, open_approval, withdraw
from gateway.ledger.record import LogId, RecordDraft
from gateway.ledger.writer import LedgerWriter
from gateway.store.port import ChangeApproval, ClaimKey, ConsumeApproval, OpenApproval, Store, StoreConflict, WallClock

CHANGE_ATTEMPTS_MAX: Final = 8
ID_BYTES: Final = 16
SALT_BYTES: Final = 16
DUE_PER_ROUND: Final = 100
POLL_SECONDS: Final = 5.0
WANTED_SECONDS: Final = 1.0
POLL_MIN_SECONDS: Final = 0.05
"""How often a waiter looks by itself: a change made by another process gives no wake-up here."""


@dataclass(frozen=True, slots=True)
class ApprovalLimits:
    """Bounds of the service; the configuration gives those without a default (`hold_max_seconds`, `holds_per_subject_max`)."""

    wait_max_seconds: int
    open_per_subject_max: int
    waiters_max: int = 4096
    list_max_items: int = 100


class ApprovalService:
    """Open, vote, withdraw, list, wait, consume."""

    def __init__(
        self,
        store: Store,
        writer: LedgerWriter,
        *,
        clock: WallClock,
        random_bytes: Callable[[int], bytes],
        tenant_key: Callable[[str], bytes],
        limits: ApprovalLimits,
    ) -> None:
        """`limits` may be replaced at any time; a wait that has begun keeps its own end."""
        self._store = store
        self._writer = writer
        self._clock = clock
        self._random_bytes = random_bytes
        self._tenant_key = tenant_key
        self.limits = limits
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._waiting = 0
        self._waiting_of: Counter[tuple[LogId, str]] = Counter()
        self._stopped = False

    async def open_or_attach(self, held: HeldCall) -> Approval:
        """Open an approval for a held call, or the one that is already open (pending or approved) for the same call.

        Errors: `ApprovalRefused` `not_supported` (chain or obligation), `throttled` (too many of this subject);
        `LedgerUnavailable`.
        """
        log = (held.fields.tenant, held.fields.workspace)
        key = attach_key(held.fields, self._tenant_key(held.fields.tenant))
        for _ in range(CHANGE_ATTEMPTS_MAX):
            now = self._clock()
            found = await self._store.open_approval(log, key, now)
            if found is not None:
                return found
            approval = self._new(held, key, now)
            effect = OpenApproval(approval, self.limits.open_per_subject_max)
            try:
                await self._writer.append(approval_record(approval), effects=(effect,))
            except StoreConflict as conflict:
                if conflict.code != "already_open":
                    raise ApprovalRefused(conflict.code, conflict.detail) from conflict
                continue
            return approval
        raise ApprovalRefused("stale_state", "the approval changes faster than it can be read")

    async def open_or_attach_once(self, held: HeldCall, claims: Callable[[str], tuple[ClaimKey, ...]]) -> Approval:
        """As `open_or_attach`, and whoever presents the same claims again gets the same approval, ended or not.

        `claims` gives by the approval's id what is claimed in the transaction that opens it or attaches to it. Errors:
        those of `open_or_attach`; `idempotency_mismatch` for a key that was claimed for something else.
        """
        log = (held.fields.tenant, held.fields.workspace)
        key = attach_key(held.fields, self._tenant_key(held.fields.tenant))
        for _ in range(CHANGE_ATTEMPTS_MAX):
            now = self._clock()
            approval = await self._store.open_approval(log, key, now)
            effects: tuple[OpenApproval | ClaimKey, ...] = ()
            if approval is None:
                approval = self._new(held, key, now)
                effects = (OpenApproval(approval, self.limits.open_per_subject_max),)
                record = approval_record(approval)
            else:
                record = attached_record(approval, held)
            try:
                await self._writer.append(record, effects=(*effects, *claims(approval.id)))
            except StoreConflict as conflict:
                if conflict.code == "still_running":
                    return await self.get(log, conflict.call)
                if conflict.code != "already_open":
                    raise ApprovalRefused(conflict.code, conflict.detail) from conflict
                continue
            return await self.get(log, approval.id)
        raise ApprovalRefused("stale_state", "the approval changes faster than it can be read")

    async def find(self, held: HeldCall) -> Approval | None:
        """The open approval of exactly this call, without opening one."""
        key = attach_key(held.fields, self._tenant_key(held.fields.tenant))
        return await self._store.open_approval((held.fields.tenant, held.fields.workspace), key, self._clock())

    async def vote(self, log: LogId, approval_id: str, ballot: Ballot, voter: Person) -> Approval:
        """Cast a vote. Errors: `ApprovalRefused` (see `reduce.cast_vote`), `LedgerUnavailable`."""

        def change(approval: Approval, now: int) -> Approval:
            return cast_vote(approval, ballot, voter, now)

        def record(approval: Approval) -> RecordDraft:
            return vote_record(approval, voter, ballot, self._tenant_key(log[0]))

        return await self._change(log, approval_id, change, record)

    async def withdraw(self, log: LogId, approval_id: str, who: Person) -> Approval:
        """Withdraw an open approval; only its requester may. Errors: `ApprovalRefused`, `LedgerUnavailable`."""

        def change(approval: Approval, now: int) -> Approval:
            return withdraw(approval, who, now)

        return await self._change(log, approval_id, change, lambda approval: approval_record(approval, actor=who.id))

    async def cancel(self, log: LogId, approval_id: str, who: Person) -> Approval:
        """Take a pending access request back; only whoever opened it. Errors: `ApprovalRefused`, `LedgerUnavailable`."""

        def change(approval: Approval, now: int) -> Approval:
            return cancel(approval, who, now)

        return await self._change(log, approval_id, change, lambda approval: approval_record(approval, actor=who.id))

    async def get(self, log: LogId, approval_id: str) -> Approval:
        """One approval as it stands now. Errors: `ApprovalRefused` `not_found`."""
        return as_of(await self._stored(log, approval_id), self._clock())

    async def used_by(self, log: LogId, call_id: str) -> Approval | None:
        """The approval that a call used up; None for a call that needed none."""
        row = await self._store.call(log, call_id)
        approval = await self._store.approval(log, row.approval) if row is not None and row.approval else None
        return approval if approval is not None and approval.used_by == call_id else None

    async def list(self, log: LogId, state: ApprovalState | None, cursor: str | None, limit: int) -> ApprovalPage:
        """A page of approvals, newest first. Errors: `ApprovalRefused` `malformed_request` for a strange cursor."""
        now = self._clock()
        count = max(1, min(limit, self.limits.list_max_items))
        try:
            items, following = await self._store.approvals(log, state, cursor, count, now)
        except StoreConflict as conflict:
            raise ApprovalRefused(conflict.code, conflict.detail) from conflict
        return ApprovalPage(items=tuple(as_of(item, now) for item in items), next=following)

    async def wait(
        self, log: LogId, approval_id: str, seconds: float, still_wanted: Callable[[], bool] = lambda: True
    ) -> Approval:
        """Wait until the approval is no longer pending, `seconds` have passed or nobody wants it; it as it then stands.

        With as many waiters as are allowed, and once the gate stops, nobody waits: the answer is the approval as it stands.
        `still_wanted` is asked each `WANTED_SECONDS`. Errors: `ApprovalRefused` `not_found`; `throttled` for a requester
        who waits as often as one may have approvals open.

        **Security**: security rule 26; the same call sent again attaches to one approval, but each waits in its own place.
        """
        approval = await self.get(log, approval_id)
        limit = min(max(0.0, seconds), float(self.limits.wait_max_seconds))
        nobody_waits = self._stopped or self._waiting >= self.limits.waiters_max
        if approval.state is not ApprovalState.PENDING or limit == 0.0 or nobody_waits:
            return approval
        who = (log, approval.requester)
        if self._waiting_of[who] >= self.limits.open_per_subject_max:
            raise ApprovalRefused("throttled", "this subject waits for as many approvals as it may")
        loop = asyncio.get_running_loop()
        end, look = loop.time() + limit, 0.0
        changed = asyncio.Event()
        self._waiters.setdefault(approval_id, set()).add(changed)
        self._waiting += 1
        self._waiting_of[who] += 1
        try:
            while (left := end - loop.time()) > 0 and still_wanted():
                expiry = max(POLL_MIN_SECONDS, (approval.deadline - self._clock()) / 1000)
                look = look or loop.time() + min(left, POLL_SECONDS, expiry)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(look - loop.time(), WANTED_SECONDS)):
                        await changed.wait()
                if not changed.is_set() and loop.time() < look:
                    continue
                look = 0.0
                changed.clear()
                approval = await self.get(log, approval_id)
                if approval.state is not ApprovalState.PENDING or self._stopped:
                    break
        finally:
            self._waiting -= 1
            self._waiting_of[who] -= 1
            if not self._waiting_of[who]:
                del self._waiting_of[who]
            events = self._waiters[approval_id]
            events.discard(changed)
            if not events:
                del self._waiters[approval_id]
        return approval

    def consumption(self, approval: Approval, action_digest: str, call: str = "") -> ConsumeApproval:
        """The effect by which `call` uses the approval up, for the intent's transaction."""
        return ConsumeApproval(log=approval.log, approval=approval.id, action_digest=action_digest, call=call)

    def notify(self, approval_id: str) -> None:
        """Wake whoever waits for this approval (also after it was consumed by an intent)."""
        for event in self._waiters.get(approval_id, ()):
            event.set()

    def stop_waiting(self) -> None:
        """The gate stops: whoever waits, now or later, gets the approval as it stands."""
        self._stopped = True
        for approval_id in self._waiters:
            self.notify(approval_id)

    async def expire_due(self) -> int:
        """Record the expiry of approvals whose clock has run out; how many. Call it now and then; what people and
        callers see does not depend on it."""
        count = 0
        now = self._clock()
        for approval in await self._store.due_approvals(now, DUE_PER_ROUND):
            expired = as_of(approval, now)
            if expired.state in OPEN_STATES:
                continue
            effect = ChangeApproval(expired, approval.version)
            try:
                await self._writer.append(approval_record(expired, actor="gate:clock"), effects=(effect,))
            except StoreConflict as conflict:
                if conflict.code != "stale_state":
                    raise
                continue
            self.notify(approval.id)
            count += 1
        return count

    def _new(self, held: HeldCall, key: str, now: int) -> Approval:
        return open_approval(
            held,
            approval_id=self._random_bytes(ID_BYTES).hex(),
            salt=self._random_bytes(SALT_BYTES).hex(),
            attach_key=key,
            now=now,
        )

    async def _change(
        self,
        log: LogId,
        approval_id: str,
        change: Callable[[Approval, int], Approval],
        record: Callable[[Approval], RecordDraft],
    ) -> Approval:
        for _ in range(CHANGE_ATTEMPTS_MAX):
            stored = await self._stored(log, approval_id)
            changed = change(stored, self._clock())
            effect = ChangeApproval(changed, stored.version, not_after=stored.deadline)
            try:
                await self._writer.append(record(changed), effects=(effect,))
            except StoreConflict as conflict:
                if conflict.code != "stale_state":
                    raise
                continue
            self.notify(approval_id)
            return changed
        raise ApprovalRefused("stale_state", "the approval changes faster than it can be read")

    async def _stored(self, log: LogId, approval_id: str) -> Approval:
        approval = await self._store.approval(log, approval_id)
        if approval is None:
            raise ApprovalRefused("not_found", "no such approval")
        return approval
