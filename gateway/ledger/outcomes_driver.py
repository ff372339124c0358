"""Outcomes of what has already happened: none is given up while the process lives.

Guarantees: an outcome is handed to the writer whether or not its caller is still there; one that could not be made durable
waits in memory, in order, and is tried again until it is, or until the process ends (then recovery marks its intent
unknown); an effect that no longer fits never keeps the record out, nor an idempotency key that is another call's by now
what is known of this one. What waits is bounded in number and in bytes of
answers. Leaves telling the caller (503 `ledger_unavailable`, never 2xx) to the flow.

A disk journal beside the store is not kept: after a crash an outcome that waited is unknown, which is the truth of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from gateway.errors import GateMisuse
from gateway.ledger.record import Appended, RecordDraft
from gateway.ledger.writer import LedgerUnavailable, Orphaned
from gateway.store.port import SaveAnswer, SettleKey, StoreConflict, StoreEffect

WAITING_MAX: Final = 8192
WAITING_ANSWERS_MAX_BYTES: Final = 64 << 20
PAUSE_SECONDS: Final = 0.25
PAUSE_MAX_SECONDS: Final = 5.0


class Submitter(Protocol):
    """The writer as outcomes need it."""

    def submit(
        self, record: RecordDraft, *, effects: tuple[StoreEffect, ...] = (), orphaned: Orphaned | None = None
    ) -> asyncio.Future[Appended]:
        """Hand a record over; see `LedgerWriter.submit`."""


class Told(NamedTuple):
    """What the keeper has to say: `what` is a constant, `waiting` how many outcomes wait now."""

    what: str
    waiting: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Waiting:
    draft: RecordDraft
    effects: tuple[StoreEffect, ...]
    answer_bytes: int


class _Orphan:
    """An append as the writer tells of it when its caller has been cancelled."""

    __slots__ = ("_keeper", "draft", "effects", "ended", "told")

    def __init__(self, keeper: OutcomeKeeper, draft: RecordDraft, effects: tuple[StoreEffect, ...]) -> None:
        self._keeper = keeper
        self.draft = draft
        self.effects = effects
        self.ended: asyncio.Future[None] | None = None
        self.told = False

    def __call__(self, error: LedgerUnavailable | StoreConflict | None) -> None:
        self.told = True
        self._keeper._orphan_ended(self, error)


def _quiet(_told: Told) -> None:
    """Nobody listens."""


class OutcomeKeeper:
    """Appends outcomes and keeps those that could not be. Belongs to one loop."""

    def __init__(
        self,
        writer: Submitter,
        *,
        tell: Callable[[Told], None] = _quiet,
        waiting_max: int = WAITING_MAX,
        answers_max_bytes: int = WAITING_ANSWERS_MAX_BYTES,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._writer = writer
        self._tell = tell
        self._waiting_max = waiting_max
        self._answers_max_bytes = answers_max_bytes
        self._pause_seconds = pause_seconds
        self._kept: deque[_Waiting] = deque()
        self._kept_bytes = 0
        self._open: set[asyncio.Future[Appended]] = set()
        self._orphans: set[asyncio.Future[None]] = set()
        self._retrying: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def waiting(self) -> int:
        """How many outcomes wait to be tried again."""
        return len(self._kept)

    async def append(self, draft: RecordDraft, *, effects: tuple[StoreEffect, ...] = ()) -> Appended:
        """Make an outcome durable; cancelling the caller does not take it back.

        Errors: `LedgerUnavailable` when it could not be made durable now (it is kept), `RecordMalformed`.
        """
        orphan = _Orphan(self, draft, effects)
        try:
            future = self._writer.submit(draft, effects=effects, orphaned=orphan)
        except LedgerUnavailable as failed:
            self._keep(draft, effects, failed)
            raise
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled():  # it ended in the turn in which its caller was cancelled
                self._watch(future, draft, effects)
            elif not orphan.told:
                orphan.ended = asyncio.get_running_loop().create_future()
                self._orphans.add(orphan.ended)
            raise
        except StoreConflict:
            if not effects:
                raise
            return await self.append(draft, effects=_reduced(effects))
        except LedgerUnavailable as failed:
            self._keep(draft, effects, failed)
            raise

    def record(self, draft: RecordDraft, effects: tuple[StoreEffect, ...] = ()) -> None:
        """Append an outcome for which nobody waits."""
        try:
            future = self._writer.submit(draft, effects=effects)
        except LedgerUnavailable as failed:
            self._keep(draft, effects, failed)
            return
        self._watch(future, draft, effects)

    async def close(self) -> int:
        """Try once more what waits; what then still waits is told and left to the next start. How many those are."""
        self._closing = True
        if self._retrying is not None:
            self._retrying.cancel()
            await asyncio.gather(self._retrying, return_exceptions=True)
        while under_way := self._under_way():
            await asyncio.wait(under_way)
            await asyncio.sleep(0)  # lets their callbacks keep what failed
        while self._kept and await self._retried():
            pass
        if self._kept:
            self._tell(Told("outcomes_lost", len(self._kept), "their intents will be unknown after the next start"))
        return len(self._kept)

    def _under_way(self) -> set[asyncio.Future[Any]]:
        """The appends for which nobody waits and that have not ended."""
        return {*self._open, *self._orphans}

    def _watch(self, future: asyncio.Future[Appended], draft: RecordDraft, effects: tuple[StoreEffect, ...]) -> None:
        """Keep an outcome if the append that nobody waits for fails."""

        def ended(done: asyncio.Future[Appended]) -> None:
            self._open.discard(done)
            self._ended(draft, effects, None if done.cancelled() else done.exception())

        self._open.add(future)
        future.add_done_callback(ended)

    def _ended(self, draft: RecordDraft, effects: tuple[StoreEffect, ...], error: BaseException | None) -> None:
        if isinstance(error, LedgerUnavailable):
            self._keep(draft, effects, error)
        elif isinstance(error, StoreConflict) and effects:
            self.record(draft, _reduced(effects))

    def _orphan_ended(self, orphan: _Orphan, error: LedgerUnavailable | StoreConflict | None) -> None:
        self._ended(orphan.draft, orphan.effects, error)
        if orphan.ended is not None:
            self._orphans.discard(orphan.ended)
            orphan.ended.set_result(None)

    def _keep(self, draft: RecordDraft, effects: tuple[StoreEffect, ...], failed: LedgerUnavailable) -> None:
        if len(self._kept) >= self._waiting_max:
            self._tell(Told("outcome_lost", len(self._kept), f"{self._waiting_max} outcomes wait already"))
            return
        size = _answer_bytes(effects)
        if self._kept_bytes + size > self._answers_max_bytes:
            effects = tuple(effect for effect in effects if not isinstance(effect, SaveAnswer))
            size = 0
        self._kept.append(_Waiting(draft, effects, size))
        self._kept_bytes += size
        self._tell(Told("outcome_kept", len(self._kept), failed.detail))
        if self._retrying is None and not self._closing:
            self._retrying = asyncio.get_running_loop().create_task(self._retry(), name="ledger-outcomes")

    async def _retry(self) -> None:
        pause = self._pause_seconds
        try:
            while self._kept:
                await asyncio.sleep(pause)
                pause = self._pause_seconds if await self._retried() else min(pause * 2, PAUSE_MAX_SECONDS)
        finally:
            self._retrying = None

    async def _retried(self) -> bool:
        """Try everything that waits, oldest first, until one fails; whether none did."""
        while self._kept:
            first = self._kept[0]
            try:
                await self._writer.submit(first.draft, effects=first.effects)
            except StoreConflict:
                effects = _reduced(first.effects)
                self._kept[0] = _Waiting(first.draft, effects, _answer_bytes(effects))
                self._kept_bytes += self._kept[0].answer_bytes - first.answer_bytes
                continue
            except LedgerUnavailable:
                return False
            except GateMisuse as refused:  # it was never to be written: trying again cannot help
                self._tell(Told("outcome_lost", len(self._kept) - 1, str(refused)))
            self._kept.popleft()
            self._kept_bytes -= first.answer_bytes
            self._tell(Told("outcome_durable", len(self._kept)))
        return True


def _reduced(effects: tuple[StoreEffect, ...]) -> tuple[StoreEffect, ...]:
    """What may still fit of effects that do not: all but the key's end, then none."""
    without = tuple(effect for effect in effects if not isinstance(effect, SettleKey))
    return without if len(without) < len(effects) else ()


def _answer_bytes(effects: tuple[StoreEffect, ...]) -> int:
    return sum(len(effect.answer.body) for effect in effects if isinstance(effect, SaveAnswer))
