"""The ledger writer: many waiters, one thread, one flush per batch.

Guarantees: `append` returns only after the record and its effects are on disk; a failure is `LedgerUnavailable` and
nothing of a failed batch is acknowledged; a flush or I/O error, a corrupt file or a bug stops the writer for good and
calls `on_fatal` once on the loop (the process is to exit non-zero; nothing is tried again). What one turn of the loop
appends is handed over together when it ends; a batch is all that was handed over when the thread is free, at most
`BATCH_MAX_RECORDS`, so no record waits for company. Its waiters go on after a single wake-up of the loop. Leaves to the
store driver what a transaction is, and to the caller what to refuse when it fails.

Cancelling a waiter does not take its record back: shield the append of an outcome.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Final

from gateway.errors import GateMisuse, GateUnavailable
from gateway.ledger.record import Appended, RecordDraft, freeze
from gateway.store.port import (
    ANSWER_MAX_BYTES,
    BATCH_MAX_RECORDS,
    BatchAppender,
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
IDLE_SECONDS: Final = 1.0


class LedgerUnavailable(GateUnavailable):
    """The record is not durable; nothing that depends on it may happen. Caller sees 503 `ledger_unavailable`."""

    code = "ledger_unavailable"

    def __init__(self, detail: str) -> None:
        super().__init__(f"ledger_unavailable: {detail}")
        self.detail = detail


class _Waiting:
    __slots__ = ("future", "item")

    def __init__(self, item: BatchItem, future: asyncio.Future[Appended]) -> None:
        self.item = item
        self.future = future


class LedgerWriter:
    """Group commit over a store's writing side. One loop, the one that called `start`, may append."""

    def __init__(
        self,
        store: BatchAppender,
        *,
        node: str,
        on_fatal: Callable[[str], None],
        waiting_max: int = WAITING_MAX,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._store = store
        self._node = node
        self._on_fatal = on_fatal
        self._waiting_max = waiting_max
        self._idle_seconds = idle_seconds
        self._queue: queue.SimpleQueue[list[_Waiting] | None] = queue.SimpleQueue()
        self._gathered: list[_Waiting] = []
        self._unwritten: list[_Waiting] = []
        """The thread's until it has ended."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None
        self._outstanding = 0
        self._failure: str | None = None
        self._refusing: str | None = "the writer has not started"

    async def start(self) -> None:
        """Open the store for writing. Errors: `LedgerUnavailable` (also when a log's tail does not verify)."""
        if self._thread is not None:
            raise GateMisuse("the writer was started already")
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="ledger-writer", daemon=True)
        await asyncio.to_thread(self._thread.start)
        await opened
        self._refusing = None

    async def append(self, record: RecordDraft, *, effects: tuple[StoreEffect, ...] = ()) -> Appended:
        """Make a record and its effects durable, both or neither. Errors: those of `submit` and of its future."""
        return await self.submit(record, effects=effects)

    def submit(self, record: RecordDraft, *, effects: tuple[StoreEffect, ...] = ()) -> asyncio.Future[Appended]:
        """Hand a record and its effects over; the future says when both are durable, or why neither is.

        Errors: `LedgerUnavailable`; `StoreConflict` for an effect that does not fit; `RecordMalformed`; `GateMisuse`
        for an effect of another log or an answer above its bound.
        """
        if self._refusing is not None or self._loop is None:
            raise LedgerUnavailable(self._refusing or "the writer has not started")
        if self._outstanding >= self._waiting_max:
            raise LedgerUnavailable(f"{self._outstanding} records are waiting already")
        for effect in effects:
            _check_effect(record, effect)
        item = BatchItem(freeze(record, node=self._node), effects)
        future: asyncio.Future[Appended] = self._loop.create_future()
        self._outstanding += 1
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(_Waiting(item, future))
        return future

    def _hand_over(self) -> None:
        """Give the thread what was gathered: it is woken once for all of it."""
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._queue.put(gathered)

    @property
    def healthy(self) -> bool:
        """Whether an append may succeed now (readiness): started, and the last batch or check went well."""
        return self._refusing is None and self._failure is None

    @property
    def failure(self) -> str | None:
        """Why it is not healthy."""
        return self._refusing or self._failure

    @property
    def unflushed(self) -> int:
        """How many records wait to be durable."""
        return self._outstanding

    async def close(self) -> None:
        """Write what waits, then stop; appends after this call are refused."""
        if self._thread is None or self._ended is None:
            return
        if self._refusing is None:
            self._refusing = "the writer is closed"
        self._hand_over()
        self._queue.put(None)
        await self._ended
        await asyncio.to_thread(self._thread.join)
        self._thread = None

    def _run(self, opened: asyncio.Future[None]) -> None:
        try:
            self._store.open_writer()
        except Exception as error:  # boundary: whatever stops the start is told to who started
            self._store.close_writer()
            self._wake(self._start_failed, opened, LedgerUnavailable(str(error)))
            return
        self._wake(_set_none, opened)
        cause = "the writer is closed"
        try:
            self._serve()
        except Exception as error:  # boundary of the thread: nothing may be acknowledged after an unknown failure
            cause = f"{type(error).__name__}: {error}" if not isinstance(error, StoreUnavailable) else str(error)
            self._wake(self._die, cause)
        finally:
            self._store.close_writer()
            self._wake(self._finish, cause)

    def _serve(self) -> None:
        while True:
            try:
                first = self._queue.get(timeout=self._idle_seconds)
            except queue.Empty:
                self._tidy()
                continue
            following = first
            while following is not None:
                self._unwritten += following
                if len(self._unwritten) >= BATCH_MAX_RECORDS or self._queue.empty():
                    break
                following = self._queue.get()
            while self._unwritten:
                batch = self._unwritten[:BATCH_MAX_RECORDS]
                del self._unwritten[:BATCH_MAX_RECORDS]
                self._commit(batch)
            if following is None:
                return

    def _commit(self, batch: list[_Waiting]) -> None:
        try:
            results: list[BatchResult] = self._store.append_batch([waiting.item for waiting in batch])
        except StoreUnavailable as error:
            self._wake(self._fail, batch, error)
            if error.fatal:
                raise
            return
        except Exception as error:
            self._wake(self._fail, batch, StoreUnavailable("store_failed", type(error).__name__, fatal=True))
            raise
        self._wake(self._deliver, batch, results)

    def _tidy(self) -> None:
        try:
            self._store.tidy()
        except StoreUnavailable as error:
            if error.fatal:
                raise
            self._wake(self._note, str(error))
            return
        self._wake(self._note, None)

    def _wake(self, callback: Callable[..., None], *arguments: object) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        loop.call_soon_threadsafe(callback, *arguments)

    # On the loop.

    def _deliver(self, batch: list[_Waiting], results: list[BatchResult]) -> None:
        self._outstanding -= len(batch)
        self._failure = None
        for waiting, result in zip(batch, results, strict=True):
            if isinstance(result, StoreUnavailable):
                self._failure = str(result)
            if waiting.future.done():
                continue
            if isinstance(result, Appended):
                waiting.future.set_result(result)
            elif isinstance(result, StoreConflict):
                waiting.future.set_exception(result)
            else:
                waiting.future.set_exception(LedgerUnavailable(str(result)))

    def _fail(self, batch: list[_Waiting], error: StoreUnavailable) -> None:
        self._outstanding -= len(batch)
        self._failure = str(error)
        if error.fatal:
            self._refusing = str(error)
        for waiting in batch:
            if not waiting.future.done():
                waiting.future.set_exception(LedgerUnavailable(str(error)))

    def _note(self, failure: str | None) -> None:
        self._failure = failure

    def _die(self, cause: str) -> None:
        self._refusing = cause
        self._on_fatal(cause)

    def _start_failed(self, opened: asyncio.Future[None], error: LedgerUnavailable) -> None:
        self._refusing = error.detail
        if not opened.done():
            opened.set_exception(error)
        _set_none(self._ended)

    def _finish(self, cause: str) -> None:
        self._hand_over()
        left = self._unwritten
        while not self._queue.empty():
            left += self._queue.get_nowait() or ()
        if left:
            self._fail(left, StoreUnavailable("store_closed", cause))
        _set_none(self._ended)


def _set_none(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


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
