"""The ledger writer: many waiters, one store, one flush per batch.

Guarantees: `append` returns only after the record and its effects are on disk; a failure is `LedgerUnavailable` and
nothing of a failed batch is acknowledged; a flush or I/O error, a corrupt file, a bug or the end of the store's process stops
the writer for good and calls `on_fatal` once on the loop (the process is to exit non-zero; nothing is tried again). One
batch is under way at a time: while it is, records gather, and go together as soon as it is answered, at most
`BATCH_MAX_RECORDS`. What one turn of the loop appends to an idle store goes together when the turn ends; where the batch
before had company, two turns later, which take microseconds on an idle loop and let a busy one gather. No record waits for
time to pass. Leaves to the store what a transaction is, and to the caller what to refuse when it fails.

Cancelling a waiter does not take its record back; `orphaned` hears how it ended then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from gateway.errors import GateMisuse, GateUnavailable
from gateway.ledger.record import Appended, RecordDraft, freeze
from gateway.store.port import (
    ANSWER_MAX_BYTES,
    BATCH_MAX_RECORDS,
    BatchChannel,
    BatchItem,
    BatchResult,
    ChangeApproval,
    ClearSwitch,
    OpenApproval,
    RaiseSequence,
    SaveAnswer,
    SaveCall,
    SetSwitch,
    StoreConflict,
    StoreEffect,
    StoreUnavailable,
)

WAITING_MAX: Final = 8192
GATHER_TURNS: Final = 2
GATHER_ENOUGH: Final = 16
"""For how many turns of the loop a batch gathers company while calls are many, and how much company is enough."""
STALL_SECONDS: Final = 10.0
"""A store that is silent for so long has stalled (a disk that hangs): nothing more is handed to it until it answers."""


class LedgerUnavailable(GateUnavailable):
    """The record is not durable; nothing that depends on it may happen. Caller sees 503 `ledger_unavailable`."""

    code = "ledger_unavailable"

    def __init__(self, detail: str) -> None:
        super().__init__(f"ledger_unavailable: {detail}")
        self.detail = detail


Orphaned = Callable[[LedgerUnavailable | StoreConflict | None], None]
"""Told how the record of a future that was cancelled has ended: durable, or why not."""


class _Waiting:
    __slots__ = ("future", "item", "orphaned")

    def __init__(self, item: BatchItem, future: asyncio.Future[Appended], orphaned: Orphaned | None) -> None:
        self.item = item
        self.future = future
        self.orphaned = orphaned


class LedgerWriter:
    """Group commit over the way to a store. One loop, the one that called `start`, may append."""

    def __init__(
        self,
        store: BatchChannel,
        *,
        node: str,
        on_fatal: Callable[[str], None],
        waiting_max: int = WAITING_MAX,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._store = store
        self._node = node
        self._on_fatal = on_fatal
        self._waiting_max = waiting_max
        self._stall_seconds = stall_seconds
        self._gathered: list[_Waiting] = []
        self._sent: list[_Waiting] = []
        self._sent_at = 0.0
        self._last_size = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: asyncio.Future[None] | None = None
        self._failure: str | None = None
        self._refusing: str | None = "the writer has not started"
        self._ended = False
        self._deadline: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Open the store for writing. Errors: `LedgerUnavailable` (also when a log's tail does not verify)."""
        if self._loop is not None:
            raise GateMisuse("the writer was started already")
        self._loop = asyncio.get_running_loop()
        try:
            await self._store.open(self)
        except StoreUnavailable as error:
            self._refusing, self._ended = str(error), True
            raise LedgerUnavailable(str(error)) from error
        if not self._ended:
            self._refusing = None

    async def append(self, record: RecordDraft, *, effects: tuple[StoreEffect, ...] = ()) -> Appended:
        """Make a record and its effects durable, both or neither. Errors: those of `submit` and of its future."""
        return await self.submit(record, effects=effects)

    def submit(
        self, record: RecordDraft, *, effects: tuple[StoreEffect, ...] = (), orphaned: Orphaned | None = None
    ) -> asyncio.Future[Appended]:
        """Hand a record and its effects over; the future says when both are durable, or why neither is. Once the future has
        been cancelled, `orphaned` is told so in a turn of the loop of its own.

        Errors: `LedgerUnavailable`; `StoreConflict` for an effect that does not fit; `RecordMalformed`; `GateMisuse`
        for an effect of another log or an answer above its bound.
        """
        if self._refusing is not None or self._loop is None:
            raise LedgerUnavailable(self._refusing or "the writer has not started")
        if self._sent and self._is_stalled():
            raise LedgerUnavailable(f"the store has not answered for {self._stall_seconds:g} seconds")
        if self.unflushed >= self._waiting_max:
            raise LedgerUnavailable(f"{self.unflushed} records are waiting already")
        for effect in effects:
            _check_effect(record, effect)
        item = BatchItem(freeze(record, node=self._node), effects)
        future: asyncio.Future[Appended] = self._loop.create_future()
        if not self._gathered and not self._sent:
            self._gather_for(GATHER_TURNS if self._last_size > 1 else 0)
        self._gathered.append(_Waiting(item, future, orphaned))
        return future

    @property
    def healthy(self) -> bool:
        """Whether an append may succeed now (readiness): started, and the last batch or check went well."""
        return self.failure is None

    @property
    def failure(self) -> str | None:
        """Why it is not healthy."""
        if self._sent and self._is_stalled():
            return "the store does not answer"
        return self._refusing or self._failure

    def _is_stalled(self) -> bool:
        return self._loop is not None and self._loop.time() - self._sent_at > self._stall_seconds

    @property
    def unflushed(self) -> int:
        """How many records wait to be durable."""
        return len(self._gathered) + len(self._sent)

    def end_within(self, seconds: float) -> None:
        """The gate stops: what the store has not taken by then is given up, which is fatal; call `close` before."""
        if self._loop is not None and self._deadline is None:
            self._deadline = self._loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        if self.unflushed:
            self.failed(StoreUnavailable("store_stalled", "it did not answer before the gate ended", fatal=True))

    async def close(self) -> None:
        """Write what waits, then stop; appends after this call are refused."""
        if self._loop is None:
            return
        if self._refusing is None:
            self._refusing = "the writer is closed"
        if self.unflushed and self._idle is None:
            self._idle = self._loop.create_future()
        if self._idle is not None:
            await self._idle
        if self._deadline is not None:
            self._deadline.cancel()
        self._ended = True
        await self._store.close()

    def _gather_for(self, turns: int) -> None:
        """Hand over when the loop has turned so many times more, or when there is enough."""
        if self._loop is not None:
            self._loop.call_soon(self._gathered_for, turns)

    def _gathered_for(self, turns: int) -> None:
        if turns and len(self._gathered) < GATHER_ENOUGH:
            self._gather_for(turns - 1)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        """Send what was gathered, unless a batch is under way: its answer sends the next."""
        if self._sent:
            return
        if not self._gathered:
            if self._idle is not None and not self._idle.done():
                self._idle.set_result(None)
            return
        self._sent, self._gathered = self._gathered[:BATCH_MAX_RECORDS], self._gathered[BATCH_MAX_RECORDS:]
        self._last_size = len(self._sent)
        self._sent_at = self._loop.time() if self._loop is not None else 0.0
        try:
            self._store.send([waiting.item for waiting in self._sent])
        except Exception as error:  # boundary: an effect that cannot be sent is a bug, and nobody may wait for it
            self.failed(StoreUnavailable("store_failed", f"{type(error).__name__}: {error}", fatal=True))

    # -- what the store says -------------------------------------------------------------------------------------------

    def answered(self, results: Sequence[BatchResult]) -> None:
        """The batch that was sent is durable, but for the items whose results say otherwise."""
        if self._ended:  # too late: nobody waits any more
            return
        batch, self._sent = self._sent, []
        self._failure = None
        self._hand_over()
        for waiting, result in zip(batch, results, strict=True):
            if isinstance(result, StoreUnavailable):
                self._failure = str(result)
            error = LedgerUnavailable(str(result)) if isinstance(result, StoreUnavailable) else result
            if waiting.future.done():
                self._tell_orphaned(waiting, None if isinstance(error, Appended) else error)
            elif isinstance(error, Appended):
                waiting.future.set_result(error)
            else:
                waiting.future.set_exception(error)

    def failed(self, error: StoreUnavailable) -> None:
        """Nothing of the batch that was sent may be relied on; after a fatal error nothing is written any more."""
        if self._ended:
            return
        batch, self._sent = self._sent, []
        self._failure = str(error)
        if error.fatal:
            self._ended, self._refusing = True, str(error)
            batch, self._gathered = batch + self._gathered, []
        for waiting in batch:
            if waiting.future.done():
                self._tell_orphaned(waiting, LedgerUnavailable(str(error)))
            else:
                waiting.future.set_exception(LedgerUnavailable(str(error)))
        if error.fatal:
            self._on_fatal(str(error))
        self._hand_over()

    def _tell_orphaned(self, waiting: _Waiting, error: LedgerUnavailable | StoreConflict | None) -> None:
        if waiting.orphaned is not None and self._loop is not None:
            self._loop.call_soon(waiting.orphaned, error)

    def noted(self, failure: str | None) -> None:
        """What the store found while nothing waited."""
        self._failure = failure


def _check_effect(record: RecordDraft, effect: StoreEffect) -> None:
    tenant, workspace = record.log
    match effect:
        case RaiseSequence():
            return
        case SetSwitch():
            fits = effect.row.tenant == tenant
        case ClearSwitch():
            fits = effect.tenant == tenant
        case SaveCall():
            fits = effect.row.log == (tenant, workspace)
        case OpenApproval() | ChangeApproval():
            fits = effect.approval.log == (tenant, workspace)
        case SaveAnswer():
            fits = effect.log == (tenant, workspace)
            if len(effect.answer.body) > ANSWER_MAX_BYTES:
                raise GateMisuse("a stored answer is larger than its bound; use save_answer_effects")
        case _:
            fits = effect.log == (tenant, workspace)
    if not fits:
        raise GateMisuse("an effect belongs to another log than its record")
