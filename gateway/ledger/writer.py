"""The ledger writer: many waiters, one thread, one flush per batch.

Guarantees: `append` returns only after the record and its effects are on disk; a failure is `LedgerUnavailable` and
nothing of a failed batch is acknowledged; a flush or I/O error stops the writer for good and calls `on_fatal`.
Leaves to the store driver what a transaction is, and to the caller what to refuse when it fails.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.errors import GateUnavailable
from gateway.ledger.record import Appended, RecordDraft
from gateway.store.port import BatchAppender, StoreEffect


class LedgerUnavailable(GateUnavailable):
    """The record is not durable; nothing that depends on it may happen. Caller sees 503 `ledger_unavailable`."""

    code = "ledger_unavailable"

    def __init__(self, detail: str) -> None:
        super().__init__(f"ledger_unavailable: {detail}")
        self.detail = detail


class LedgerWriter:
    """Group commit over a store's writing side."""

    def __init__(self, store: BatchAppender, *, node: str, on_fatal: Callable[[str], None]) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        """Open the store for writing. Errors: `LedgerUnavailable`."""
        raise NotImplementedError

    async def append(self, record: RecordDraft, *, effects: tuple[StoreEffect, ...] = ()) -> Appended:
        """Make a record and its effects durable. Errors: `LedgerUnavailable`; `StoreConflict` for an effect that
        does not fit; `RecordMalformed`."""
        raise NotImplementedError

    @property
    def healthy(self) -> bool:
        """Whether an append may succeed now (readiness)."""
        raise NotImplementedError

    async def close(self) -> None:
        """Write what waits, then stop."""
        raise NotImplementedError
