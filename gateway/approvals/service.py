"""The approval service: where held calls wait for people.

Guarantees: every change is a pure reduction committed by compare-and-set together with its ledger record; waiting is
bounded in number and time; another tenant's approval is the same `not_found` as an absent one. Leaves to policy who may
call an operation at all, and to the flow the decision at use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.approvals.model import Approval, ApprovalPage, ApprovalState, Ballot, HeldCall, Person
from gateway.ledger.record import LogId
from gateway.ledger.writer import LedgerWriter
from gateway.store.port import ConsumeApproval, Store, WallClock


@dataclass(frozen=True, slots=True)
class ApprovalLimits:
    """Bounds of the service."""

    waiters_max: int = 4096
    wait_max_seconds: int = 600
    open_per_subject_max: int = 100
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
        limits: ApprovalLimits = ApprovalLimits(),
    ) -> None:
        raise NotImplementedError

    async def open_or_attach(self, held: HeldCall) -> Approval:
        """Open an approval for a held call, or the one that is already open (pending or approved) for the same call."""
        raise NotImplementedError

    async def find(self, held: HeldCall) -> Approval | None:
        """The open approval of exactly this call, without opening one."""
        raise NotImplementedError

    async def vote(self, log: LogId, approval_id: str, ballot: Ballot, voter: Person) -> Approval:
        """Cast a vote. Errors: `ApprovalRefused`, `LedgerUnavailable`."""
        raise NotImplementedError

    async def withdraw(self, log: LogId, approval_id: str, who: Person) -> Approval:
        """Withdraw an open approval; only its requester may."""
        raise NotImplementedError

    async def get(self, log: LogId, approval_id: str) -> Approval:
        """One approval as it stands now. Errors: `ApprovalRefused` `not_found`."""
        raise NotImplementedError

    async def list(self, log: LogId, state: ApprovalState | None, cursor: str | None, limit: int) -> ApprovalPage:
        """A page of approvals, newest first."""
        raise NotImplementedError

    async def wait(self, log: LogId, approval_id: str, seconds: float) -> Approval:
        """Wait until the approval is no longer pending or `seconds` have passed; the approval as it then stands."""
        raise NotImplementedError

    def consumption(self, approval: Approval, action_digest: str) -> ConsumeApproval:
        """The effect that uses the approval up, for the intent's transaction."""
        raise NotImplementedError
