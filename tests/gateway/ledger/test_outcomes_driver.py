"""Outcomes of what has happened: kept while they cannot be written, written in order once they can."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.ledger.outcomes_driver import OutcomeKeeper, Told
from gateway.ledger.record import Appended, RecordDraft, RecordMalformed
from gateway.ledger.writer import LedgerUnavailable, Orphaned
from gateway.store.port import SaveAnswer, SettleKey, StoreConflict, StoredAnswer, StoreEffect

LOG = ("acme", "ops")
SETTLE = SettleKey(LOG, "scope", "c", "done")
WAIT_SECONDS = 5.0


def _draft(name: str) -> RecordDraft:
    return RecordDraft(LOG, "outcome", {"call": name}, {}, {}, None, {}, {}, "gateway")


def _answer(size: int) -> SaveAnswer:
    return SaveAnswer(LOG, "c", StoredAnswer(200, (), b"x" * size))


class ScriptedWriter:
    """A writer that fails as it is told to, else writes; it can hold appends open."""

    def __init__(self) -> None:
        self.written: list[tuple[str, tuple[StoreEffect, ...]]] = []
        self.tried = 0
        self.down = False
        self.refuses = False
        self.conflicts: set[type[object]] = set()
        self.held: list[Callable[[], None]] | None = None

    def submit(
        self, record: RecordDraft, *, effects: tuple[StoreEffect, ...] = (), orphaned: Orphaned | None = None
    ) -> asyncio.Future[Appended]:
        self.tried += 1
        if self.refuses:
            raise LedgerUnavailable("closed")
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()

        def end() -> None:
            error: LedgerUnavailable | StoreConflict | None = None
            if self.down:
                error = LedgerUnavailable("disk_full")
            elif self.conflicts & {type(effect) for effect in effects}:
                error = StoreConflict("stale_state", "no such key")
            else:
                self.written.append((str(record.ids["call"]), effects))
            if future.cancelled():
                if orphaned is not None:
                    asyncio.get_running_loop().call_soon(orphaned, error)
            elif error is not None:
                future.set_exception(error)
            else:
                future.set_result(Appended(LOG, len(self.written), "h"))

        if self.held is None:
            end()
        else:
            self.held.append(end)
        return future

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.written]


def _keeper(writer: ScriptedWriter, told: list[Told] | None = None, **bounds: int) -> OutcomeKeeper:
    tell = told.append if told is not None else (lambda _said: None)
    return OutcomeKeeper(writer, tell=tell, pause_seconds=0.001, **bounds)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not holds():
            await asyncio.sleep(0.001)


async def test_outcome_is_written_at_once_when_the_ledger_takes_it() -> None:
    writer, told = ScriptedWriter(), list[Told]()
    await _keeper(writer, told).append(_draft("a"), effects=(SETTLE,))
    assert writer.written == [("a", (SETTLE,))]
    assert told == []


@pytest.mark.parametrize("how", ["down", "refuses"])
async def test_outcome_is_written_later_with_its_effects_when_the_ledger_failed(how: str) -> None:
    writer, told = ScriptedWriter(), list[Told]()
    keeper = _keeper(writer, told)
    setattr(writer, how, True)
    for name in ("a", "b"):
        with pytest.raises(LedgerUnavailable):
            await keeper.append(_draft(name), effects=(SETTLE,))
    assert keeper.waiting == 2
    await _until(lambda: writer.tried > 4)
    setattr(writer, how, False)
    await _until(lambda: keeper.waiting == 0)
    assert writer.written == [("a", (SETTLE,)), ("b", (SETTLE,))]
    assert [(said.what, said.waiting) for said in told] == [
        ("outcome_kept", 1),
        ("outcome_kept", 2),
        ("outcome_durable", 1),
        ("outcome_durable", 0),
    ]
    await keeper.close()


async def test_outcome_is_kept_again_when_the_ledger_fails_a_second_time() -> None:
    writer = ScriptedWriter()
    keeper = _keeper(writer)
    for name in ("a", "b"):
        writer.down = True
        with pytest.raises(LedgerUnavailable):
            await keeper.append(_draft(name))
        writer.down = False
        await _until(lambda: keeper.waiting == 0)
    assert writer.names == ["a", "b"]
    await keeper.close()


async def test_outcome_is_written_without_its_effects_when_they_no_longer_fit() -> None:
    writer = ScriptedWriter()
    writer.conflicts = {SettleKey}
    await _keeper(writer).append(_draft("a"), effects=(SETTLE,))
    assert writer.written == [("a", ())]


async def test_kept_outcome_is_written_without_its_effects_when_they_no_longer_fit() -> None:
    writer = ScriptedWriter()
    keeper = _keeper(writer)
    writer.down = True
    with pytest.raises(LedgerUnavailable):
        await keeper.append(_draft("a"), effects=(SETTLE,))
    writer.conflicts, writer.down = {SettleKey}, False
    await _until(lambda: keeper.waiting == 0)
    assert writer.written == [("a", ())]
    await keeper.close()


@pytest.mark.parametrize("way", ["append", "record", "retry"])
async def test_outcome_keeps_its_answer_when_only_its_key_is_another_calls(way: str) -> None:
    writer, answer = ScriptedWriter(), _answer(3)
    keeper = _keeper(writer)
    writer.conflicts = {SettleKey}
    if way == "append":
        await keeper.append(_draft("a"), effects=(SETTLE, answer))
    elif way == "record":
        keeper.record(_draft("a"), (SETTLE, answer))
    else:
        writer.down = True
        with pytest.raises(LedgerUnavailable):
            await keeper.append(_draft("a"), effects=(SETTLE, answer))
        writer.down = False
    await _until(lambda: bool(writer.written))
    await keeper.close()
    assert writer.written == [("a", (answer,))]
    assert keeper._kept_bytes == 0


@pytest.mark.parametrize("kept", [False, True], ids=["at once", "later"])
async def test_outcome_is_written_without_effects_when_others_than_its_key_do_not_fit(kept: bool) -> None:
    writer = ScriptedWriter()
    keeper = _keeper(writer)
    writer.conflicts, writer.down = {SettleKey, SaveAnswer}, kept
    if kept:
        with pytest.raises(LedgerUnavailable):
            await keeper.append(_draft("a"), effects=(SETTLE, _answer(3)))
        writer.down = False
        await _until(lambda: keeper.waiting == 0)
    else:
        await keeper.append(_draft("a"), effects=(SETTLE, _answer(3)))
    await keeper.close()
    assert writer.written == [("a", ())]
    assert keeper._kept_bytes == 0


async def _cancelled_in(writer: ScriptedWriter, keeper: OutcomeKeeper) -> Callable[[], None]:
    """Cancel a caller whose append is open; what ends the append."""
    writer.held = []
    task = asyncio.create_task(keeper.append(_draft("a"), effects=(SETTLE,)), name="caller")
    await _until(lambda: bool(writer.held))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    end = writer.held[0]
    writer.held = None
    return end


async def test_outcome_is_written_when_its_caller_was_cancelled() -> None:
    writer = ScriptedWriter()
    keeper = _keeper(writer)
    (await _cancelled_in(writer, keeper))()
    await keeper.close()
    assert writer.written == [("a", (SETTLE,))]
    assert keeper.waiting == 0


async def test_outcome_is_kept_when_its_caller_was_cancelled_and_the_ledger_failed() -> None:
    writer = ScriptedWriter()
    keeper = _keeper(writer)
    end = await _cancelled_in(writer, keeper)
    writer.down = True
    end()
    await _until(lambda: keeper.waiting == 1)
    writer.down = False
    await _until(lambda: keeper.waiting == 0)
    assert writer.names == ["a"]
    await keeper.close()


@pytest.mark.parametrize("fails", ["nothing", "down", "conflicts"])
async def test_keeper_closes_only_when_the_outcome_of_a_cancelled_caller_has_ended(fails: str) -> None:
    writer = ScriptedWriter()
    keeper = _keeper(writer)
    end = await _cancelled_in(writer, keeper)
    if fails == "conflicts":
        writer.conflicts = {SettleKey}
    closing = asyncio.create_task(keeper.close(), name="closing")
    for _ in range(5):
        await asyncio.sleep(0)
    assert not closing.done()
    writer.down = fails == "down"
    end()
    writer.down = False
    await asyncio.wait_for(closing, WAIT_SECONDS)
    assert writer.written == [("a", () if fails == "conflicts" else (SETTLE,))]
    assert keeper.waiting == 0


@pytest.mark.parametrize("first", ["end", "cancel"])
@pytest.mark.parametrize("fails", [False, True], ids=["durable", "failed"])
async def test_outcome_is_not_lost_when_it_ends_in_the_turn_in_which_its_caller_is_cancelled(
    first: str, fails: bool
) -> None:
    writer = ScriptedWriter()
    keeper = _keeper(writer)
    writer.held = []
    task = asyncio.create_task(keeper.append(_draft("a"), effects=(SETTLE,)), name="caller")
    await _until(lambda: bool(writer.held))
    end, writer.held, writer.down = writer.held[0], None, fails
    for act in (end, task.cancel) if first == "end" else (task.cancel, end):
        act()
    writer.down = False
    with pytest.raises(asyncio.CancelledError):
        await task
    await _until(lambda: bool(writer.written))
    await keeper.close()
    assert writer.written == [("a", (SETTLE,))]


@pytest.mark.parametrize("fails", ["nothing", "down", "refuses", "conflicts"])
async def test_outcome_for_which_nobody_waits_is_written_whatever_fails_first(fails: str) -> None:
    writer = ScriptedWriter()
    keeper = _keeper(writer)
    if fails == "conflicts":
        writer.conflicts = {SettleKey}
    elif fails != "nothing":
        setattr(writer, fails, True)
    keeper.record(_draft("a"), (SETTLE,))
    await _until(lambda: keeper.waiting == (1 if fails in {"down", "refuses"} else 0))
    writer.down = writer.refuses = False
    await _until(lambda: keeper.waiting == 0 and bool(writer.written))
    await keeper.close()
    assert writer.written == [("a", () if fails == "conflicts" else (SETTLE,))]


async def test_outcomes_waiting_are_bounded_and_the_loss_is_told() -> None:
    writer, told = ScriptedWriter(), list[Told]()
    keeper = _keeper(writer, told, waiting_max=1)
    writer.down = True
    for name in ("a", "b"):
        with pytest.raises(LedgerUnavailable):
            await keeper.append(_draft(name))
    assert (keeper.waiting, told[-1].what) == (1, "outcome_lost")
    await keeper.close()
    assert told[-1].what == "outcomes_lost"


@pytest.mark.parametrize(("size", "kept"), [(10, True), (11, False)], ids=["at the bound", "one past it"])
async def test_answers_waiting_are_bounded_and_the_record_is_not(size: int, kept: bool) -> None:
    writer = ScriptedWriter()
    keeper = _keeper(writer, answers_max_bytes=10)
    writer.down = True
    with pytest.raises(LedgerUnavailable):
        await keeper.append(_draft("a"), effects=(SETTLE, _answer(size)))
    writer.down = False
    await keeper.close()
    assert writer.written == [("a", (SETTLE, _answer(size)) if kept else (SETTLE,))]


async def test_outcome_is_not_kept_when_it_can_never_be_written() -> None:
    class Malformed(ScriptedWriter):
        def submit(
            self, record: RecordDraft, *, effects: tuple[StoreEffect, ...] = (), orphaned: Orphaned | None = None
        ) -> asyncio.Future[Appended]:
            raise RecordMalformed("record_size", "too large")

    keeper = _keeper(Malformed())
    with pytest.raises(RecordMalformed):
        await keeper.append(_draft("a"))
    assert keeper.waiting == 0
