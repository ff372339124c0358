"""Group commit: what is acknowledged, what is refused, and what stops the writer."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.errors import GateMisuse
from gateway.ledger.record import Appended, RecordMalformed
from gateway.ledger.recovery_client import recover_open_intents
from gateway.ledger.verify import LogHead, LogVerifier
from gateway.ledger.writer import GATHER_ENOUGH, GATHER_TURNS, LedgerUnavailable, LedgerWriter
from gateway.store.guard_driver import LOW_WATER_BYTES, DiskRoom
from gateway.store.offline_driver import OfflineLedger
from gateway.store.port import (
    ANSWER_MAX_BYTES,
    BATCH_MAX_RECORDS,
    BatchItem,
    BatchListener,
    BatchResult,
    ClaimKey,
    ClearSwitch,
    SaveAnswer,
    StoreConflict,
    StoredAnswer,
    StoreUnavailable,
)
from tests.gateway.store.build import LOG, OTHER_LOG, START, draft, linked, open_store


class SimulatedDisk:
    """The writing port over a list; fails as told, and can hold a batch back."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.failures: list[Exception] = []
        self.opening: Exception | None = None
        self.tidying: Exception | None = None
        self.tidied = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.closed = 0
        self._seq = 0

    def open_writer(self) -> None:
        if self.opening is not None:
            raise self.opening

    def append_batch(self, items: Sequence[BatchItem]) -> list[BatchResult]:
        self.gate.wait(10)
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(len(items))
        results: list[BatchResult] = []
        for item in items:
            results.append(Appended(item.record.log, self._seq, f"{self._seq:064x}"))
            self._seq += 1
        return results

    def tidy(self) -> None:
        self.tidied.set()
        if self.tidying is not None:
            raise self.tidying

    def close_writer(self) -> None:
        self.closed += 1


async def started(disk: SimulatedDisk, *, idle_seconds: float = 1.0, **bounds: float) -> tuple[LedgerWriter, list[str]]:
    fatal: list[str] = []
    writer = LedgerWriter(linked(disk, idle_seconds), node="n1", on_fatal=fatal.append, **bounds)  # type: ignore[arg-type]
    await writer.start()
    return writer, fatal


async def test_writer_commits_one_batch_when_records_wait_for_the_store() -> None:
    disk = SimulatedDisk()
    writer, _ = await started(disk)
    disk.gate.clear()
    first = asyncio.create_task(writer.append(draft()), name="first")
    await asyncio.sleep(0)
    rest = [asyncio.create_task(writer.append(draft()), name=str(number)) for number in range(BATCH_MAX_RECORDS + 3)]
    await asyncio.sleep(0)
    assert writer.unflushed == BATCH_MAX_RECORDS + 4
    disk.gate.set()
    results = await asyncio.gather(first, *rest)
    assert [result.seq for result in results] == list(range(BATCH_MAX_RECORDS + 4))
    assert max(disk.batches) <= BATCH_MAX_RECORDS
    assert len(disk.batches) <= 3
    assert writer.unflushed == 0
    await writer.close()
    assert disk.closed == 1


async def test_writer_commits_one_batch_when_records_come_in_one_turn_of_the_loop() -> None:
    disk = SimulatedDisk()
    writer, _ = await started(disk)
    await asyncio.gather(*(writer.append(draft()) for _ in range(9)))
    await asyncio.gather(writer.append(draft()), writer.append(draft()))
    assert disk.batches == [9, 2]
    await writer.close()


@pytest.mark.parametrize(("before", "batches"), [(1, [1, 1, 1]), (2, [2, 2])], ids=["calls are few", "calls are many"])
async def test_writer_gathers_for_a_few_turns_only_when_the_batch_before_had_company(
    before: int, batches: list[int]
) -> None:
    disk = SimulatedDisk()
    writer, _ = await started(disk)
    await asyncio.gather(*(writer.append(draft()) for _ in range(before)))
    one = asyncio.create_task(writer.append(draft()), name="one")
    for _ in range(GATHER_TURNS):
        await asyncio.sleep(0)
    await asyncio.gather(one, writer.append(draft()))
    assert disk.batches == batches
    await writer.close()


class SimulatedChannel:
    """The way to a store, which answers when it is told to."""

    def __init__(self) -> None:
        self.sent: list[Sequence[BatchItem]] = []

    async def open(self, listener: BatchListener) -> None:
        self.listener = listener

    def send(self, items: Sequence[BatchItem]) -> None:
        self.sent.append(items)

    def answer(self) -> None:
        self.listener.answered([Appended(item.record.log, 0, "") for item in self.sent[-1]])

    async def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(
    ("company", "turns"), [(1, GATHER_TURNS + 1), (GATHER_ENOUGH, 1)], ids=["little company", "enough company"]
)
async def test_writer_gathers_as_long_as_there_is_not_enough(company: int, turns: int) -> None:
    channel = SimulatedChannel()
    writer = LedgerWriter(channel, node="n1", on_fatal=list[str]().append)
    await writer.start()
    first = [writer.submit(draft()), writer.submit(draft())]
    await asyncio.sleep(0)
    channel.answer()
    await asyncio.gather(*first)
    for _ in range(company):
        writer.submit(draft())
    for _ in range(turns):
        assert len(channel.sent) == 1
        await asyncio.sleep(0)
    assert [len(items) for items in channel.sent] == [2, company]


async def test_writer_hands_over_what_gathered_in_the_moment_the_batch_before_is_answered() -> None:
    channel = SimulatedChannel()
    writer = LedgerWriter(channel, node="n1", on_fatal=list[str]().append)
    await writer.start()
    writer.submit(draft())
    await asyncio.sleep(0)
    for _ in range(3):
        writer.submit(draft())
    await asyncio.sleep(0)
    assert [len(items) for items in channel.sent] == [1]
    channel.answer()
    assert [len(items) for items in channel.sent] == [1, 3]


async def test_writer_writes_what_was_gathered_when_it_is_closed_in_the_same_turn() -> None:
    disk = SimulatedDisk()
    writer, _ = await started(disk)
    waiting = [asyncio.create_task(writer.append(draft()), name=str(number)) for number in range(3)]
    closing = asyncio.create_task(writer.close(), name="close")
    results = await asyncio.gather(*waiting)
    await closing
    assert [result.seq for result in results] == [0, 1, 2]
    assert disk.batches == [3]


async def test_writer_refuses_what_was_gathered_when_it_has_died_meanwhile() -> None:
    disk = SimulatedDisk()
    disk.failures = [StoreUnavailable("store_io_error", "flush failed", fatal=True)]
    writer, fatal = await started(disk)
    disk.gate.clear()
    first = asyncio.create_task(writer.append(draft()), name="first")
    for _ in range(3):
        await asyncio.sleep(0)
    late = asyncio.create_task(writer.append(draft()), name="late")
    disk.gate.set()
    results = await asyncio.gather(first, late, return_exceptions=True)
    assert [type(result) for result in results] == [LedgerUnavailable, LedgerUnavailable]
    await writer.close()
    assert (len(fatal), writer.unflushed) == (1, 0)


async def test_writer_refuses_and_goes_on_when_a_batch_fails_for_now() -> None:
    disk = SimulatedDisk()
    disk.failures = [StoreUnavailable("disk_full", "no room")]
    writer, fatal = await started(disk)
    with pytest.raises(LedgerUnavailable, match="disk_full"):
        await writer.append(draft())
    assert not writer.healthy
    assert (await writer.append(draft())).seq == 0
    assert writer.healthy
    assert writer.failure is None
    assert fatal == []
    await writer.close()


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(StoreUnavailable("store_io_error", "flush failed", fatal=True), id="a flush error"),
        pytest.param(RuntimeError("a bug"), id="an unforeseen error"),
    ],
)
async def test_writer_stops_for_good_when_what_is_on_disk_is_unknown(failure: Exception) -> None:
    disk = SimulatedDisk()
    disk.failures = [failure]
    writer, fatal = await started(disk)
    with pytest.raises(LedgerUnavailable):
        await writer.append(draft())
    with pytest.raises(LedgerUnavailable):
        await writer.append(draft())
    await writer.close()
    assert len(fatal) == 1
    assert disk.batches == []
    assert not writer.healthy


async def test_writer_refuses_waiting_records_when_it_dies_before_their_batch() -> None:
    disk = SimulatedDisk()
    disk.failures = [StoreUnavailable("store_io_error", "flush failed", fatal=True)]
    writer, _ = await started(disk)
    disk.gate.clear()
    waiting = [asyncio.create_task(writer.append(draft()), name=str(number)) for number in range(600)]
    await asyncio.sleep(0)
    disk.gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, LedgerUnavailable) for result in results)
    assert writer.unflushed == 0
    await writer.close()


async def test_writer_refuses_when_too_many_records_wait() -> None:
    disk = SimulatedDisk()
    writer, _ = await started(disk, waiting_max=2)
    disk.gate.clear()
    waiting = [asyncio.create_task(writer.append(draft()), name=str(number)) for number in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(LedgerUnavailable, match="waiting"):
        await writer.append(draft())
    disk.gate.set()
    await asyncio.gather(*waiting)
    await writer.close()


async def test_writer_passes_over_what_the_store_says_when_it_was_given_up_before() -> None:
    channel = SimulatedChannel()
    fatal: list[str] = []
    writer = LedgerWriter(channel, node="n1", on_fatal=fatal.append)
    await writer.start()
    waiting = writer.submit(draft())
    while not channel.sent:
        await asyncio.sleep(0)
    writer.end_within(0)
    with pytest.raises(LedgerUnavailable):
        await waiting
    channel.answer()
    assert (writer.unflushed, len(fatal)) == (0, 1)


async def test_writer_refuses_at_once_while_the_store_is_silent_and_goes_on_when_it_answers() -> None:
    disk = SimulatedDisk()
    writer, fatal = await started(disk, stall_seconds=0.05)
    disk.gate.clear()
    waiting = asyncio.create_task(writer.append(draft()), name="waiting")
    async with asyncio.timeout(10):
        while writer.healthy:
            await asyncio.sleep(0.01)
    assert writer.failure == "the store does not answer"
    with pytest.raises(LedgerUnavailable, match="has not answered for"):
        await writer.append(draft())
    disk.gate.set()
    assert (await waiting).seq == 0
    assert (await writer.append(draft())).seq == 1
    assert (writer.healthy, fatal) == (True, [])
    await writer.close()


async def test_writer_does_not_start_when_the_store_does_not_open() -> None:
    disk = SimulatedDisk()
    disk.opening = StoreUnavailable("ledger_broken", "record 3", fatal=True)
    with pytest.raises(LedgerUnavailable, match="record 3"):
        await started(disk)


async def test_writer_refuses_when_it_has_not_started_or_is_closed() -> None:
    writer = LedgerWriter(linked(SimulatedDisk()), node="n1", on_fatal=print)
    with pytest.raises(LedgerUnavailable):
        await writer.append(draft())
    await writer.close()
    await writer.start()
    with pytest.raises(GateMisuse):
        await writer.start()
    await writer.close()
    with pytest.raises(LedgerUnavailable, match="closed"):
        await writer.append(draft())


async def test_writer_turns_unready_when_an_idle_check_fails() -> None:
    disk = SimulatedDisk()
    disk.tidying = StoreUnavailable("disk_low", "no room")
    writer, fatal = await started(disk, idle_seconds=0.01)
    async with asyncio.timeout(10):
        while writer.healthy:
            await asyncio.sleep(0.01)
    assert writer.failure is not None and "disk_low" in writer.failure
    disk.tidying = None
    async with asyncio.timeout(10):
        while not writer.healthy:
            await asyncio.sleep(0.01)
    disk.tidying = StoreUnavailable("store_io_error", "gone", fatal=True)
    async with asyncio.timeout(10):
        while not fatal:
            await asyncio.sleep(0.01)
    await writer.close()


async def test_writer_goes_on_when_a_waiter_was_cancelled() -> None:
    disk = SimulatedDisk()
    writer, _ = await started(disk)
    disk.gate.clear()
    gone = asyncio.create_task(writer.append(draft()), name="gone")
    await asyncio.sleep(0)
    gone.cancel()
    disk.gate.set()
    assert (await writer.append(draft())).seq == 1
    await writer.close()


class Conflicting(SimulatedDisk):
    """A disk on which nothing fits."""

    def append_batch(self, items: Sequence[BatchItem]) -> list[BatchResult]:
        self.gate.wait(10)
        return [StoreConflict("stale_state", "told") for _ in items]


@pytest.mark.parametrize(
    ("disk", "failure", "told"),
    [
        pytest.param(SimulatedDisk, None, "None", id="it is durable"),
        pytest.param(Conflicting, None, "StoreConflict('stale_state: told')", id="it does not fit"),
        pytest.param(
            SimulatedDisk,
            StoreUnavailable("disk_full", "no room"),
            "LedgerUnavailable('ledger_unavailable: disk_full: no room')",
            id="its batch failed",
        ),
        pytest.param(
            SimulatedDisk,
            StoreUnavailable("store_io_error", "gone", fatal=True),
            "LedgerUnavailable('ledger_unavailable: store_io_error: gone')",
            id="the store has failed",
        ),
    ],
)
async def test_writer_tells_how_the_record_of_a_cancelled_waiter_ended_when(
    disk: type[SimulatedDisk], failure: Exception | None, told: str
) -> None:
    made, heard = disk(), list[tuple[str, str]]()
    writer, _ = await started(made)
    made.gate.clear()
    if failure is not None:
        made.failures.append(failure)
    gone = writer.submit(draft(), orphaned=lambda error: heard.append(("gone", repr(error))))
    stayed = writer.submit(draft(), orphaned=lambda error: heard.append(("stayed", repr(error))))
    await asyncio.sleep(0)
    gone.cancel()
    made.gate.set()
    await asyncio.wait((stayed,))
    await asyncio.sleep(0)
    assert stayed.done()
    stayed.exception()
    assert heard == [("gone", told)]
    await writer.close()


@pytest.mark.parametrize(
    "effect",
    [
        pytest.param(ClaimKey(OTHER_LOG, "s", "d", "c1", START), id="a claim in another log"),
        pytest.param(ClearSwitch("rival", "tenant/rival"), id="another tenant's switch"),
        pytest.param(
            SaveAnswer(LOG, "c1", StoredAnswer(200, (), b"x" * (ANSWER_MAX_BYTES + 1))), id="too large an answer"
        ),
    ],
)
async def test_writer_refuses_when_an_effect_does_not_belong(effect: ClaimKey | ClearSwitch | SaveAnswer) -> None:
    disk = SimulatedDisk()
    writer, _ = await started(disk)
    with pytest.raises(GateMisuse):
        await writer.append(draft(), effects=(effect,))
    assert disk.batches == []
    await writer.close()


async def test_writer_refuses_one_record_when_it_is_malformed(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        with pytest.raises(RecordMalformed):
            await opened.writer.append(draft(amount=1.5))
        assert (await opened.writer.append(draft())).seq == 0


async def test_writer_chains_each_log_by_itself_when_two_are_written(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        appended = await asyncio.gather(
            *(
                opened.writer.append(draft(log=log, call=f"c{number}"))
                for number in range(40)
                for log in (LOG, OTHER_LOG)
            )
        )
    assert sorted(each.seq for each in appended if each.log == LOG) == list(range(40))
    assert await verified(opened.path) == {LOG: 40, OTHER_LOG: 40}


async def test_writer_goes_on_with_the_chain_when_it_is_opened_again(tmp_path: Path) -> None:
    for _ in range(3):
        async with open_store(tmp_path) as opened:
            opened.clock.now -= 3_600_000
            await opened.writer.append(draft())
    assert await verified(opened.path) == {LOG: 3}


async def test_two_writers_share_one_file_when_both_append(tmp_path: Path) -> None:
    async with open_store(tmp_path) as one, open_store(tmp_path) as two:
        await asyncio.gather(*(each.writer.append(draft(call=f"c{n}")) for n in range(50) for each in (one, two)))
    assert await verified(one.path) == {LOG: 100}


async def test_writer_refuses_when_the_file_was_replaced(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await opened.writer.append(draft())
        moved = opened.path.with_name("moved.db")
        os.rename(opened.path, moved)
        with pytest.raises(LedgerUnavailable, match="store_replaced"):
            await opened.writer.append(draft())
        opened.path.write_bytes(b"")
        with pytest.raises(LedgerUnavailable, match="store_replaced"):
            await opened.writer.append(draft())
        os.replace(moved, opened.path)
        assert (await opened.writer.append(draft())).seq == 1


async def test_writer_refuses_when_the_file_has_a_second_name(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        os.link(opened.path, opened.path.with_name("twin.db"))
        with pytest.raises(LedgerUnavailable, match="store_replaced"):
            await opened.writer.append(draft())


@pytest.mark.parametrize(
    ("room", "low"),
    [
        pytest.param(DiskRoom(LOW_WATER_BYTES, 2**40), False, id="exactly the mark is free"),
        pytest.param(DiskRoom(LOW_WATER_BYTES - 1, 2**40), True, id="one byte under the mark"),
        pytest.param(DiskRoom(50, 1000), False, id="exactly the share of a small volume"),
        pytest.param(DiskRoom(49, 1000), True, id="one byte under the share"),
        pytest.param(DiskRoom(0, 1000), True, id="nothing free"),
    ],
)
async def test_writer_takes_only_last_outcomes_when_the_disk_is_low(tmp_path: Path, room: DiskRoom, low: bool) -> None:
    async with open_store(tmp_path, room=room) as opened:
        if low:
            with pytest.raises(LedgerUnavailable, match="disk_low"):
                await opened.writer.append(draft("intent"))
            assert not opened.writer.healthy
        assert (await opened.writer.append(draft("outcome"))).seq == 0
        assert (await opened.writer.append(draft("response_began"))).seq == 1


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        pytest.param("UPDATE records SET data = x'7b7d' WHERE seq = 2", "record_members", id="a record changed"),
        pytest.param("DELETE FROM records WHERE seq = 4", "log_truncated", id="the last record deleted"),
        pytest.param("DELETE FROM records WHERE seq = 2", "record_missing", id="a record deleted"),
        pytest.param("UPDATE logs SET next_seq = 4", "log_head", id="the head rolled back"),
        pytest.param("UPDATE meta SET value = 9 WHERE name = 'schema_version'", "store_version", id="a newer schema"),
    ],
)
async def test_writer_refuses_to_start_when_the_store_was_changed(tmp_path: Path, damage: str, found: str) -> None:
    async with open_store(tmp_path) as opened:
        for number in range(5):
            await opened.writer.append(draft(call=f"c{number}"))
    damaged = sqlite3.connect(opened.path)
    damaged.execute(damage)
    damaged.commit()
    damaged.close()
    with pytest.raises(LedgerUnavailable, match=found):
        async with open_store(tmp_path):
            pass


async def test_writer_refuses_to_start_when_the_file_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "tidegate.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(LedgerUnavailable, match="store_corrupt"):
        async with open_store(tmp_path):
            pass


async def test_recovery_marks_intents_unknown_when_they_never_ended(tmp_path: Path) -> None:
    claim = ClaimKey(LOG, "scope", "digest", "c1", START + 60_000)
    async with open_store(tmp_path) as opened:
        await opened.writer.append(draft(call="c1"), effects=(claim,))
        await opened.writer.append(draft(call="c2"))
        await opened.writer.append(draft("outcome", call="c2", status=200))
    async with open_store(tmp_path) as again:
        assert await recover_open_intents(again.store, again.writer) == 1
        assert await recover_open_intents(again.store, again.writer) == 0
        row = await again.store.call(LOG, "c1")
        known = await again.store.claim(LOG, "scope")
        ended = await again.store.call(LOG, "c2")
    assert row is not None and (row.state, row.code) == ("unknown", "outcome_unknown")
    assert known is not None and known.state == "unknown"
    assert ended is not None and (ended.state, ended.status) == ("done", 200)
    assert await verified(again.path) == {LOG: 4}


async def verified(path: Path) -> dict[tuple[str, str], int]:
    """Records per log of a store that verifies."""
    return await asyncio.to_thread(_verified, path)


def _verified(path: Path) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    with OfflineLedger(path) as ledger:
        for head in ledger.heads():
            counts[head.log] = _verified_log(ledger, head)
    return counts


def _verified_log(ledger: OfflineLedger, head: LogHead) -> int:
    verifier = LogVerifier(head.log)
    for seq, data in ledger.records(head.log):
        verifier.feed(data, seq)
    verifier.finish(head)
    return verifier.next_seq


async def test_writer_resumes_by_itself_when_a_full_disk_has_room_again(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await opened.writer.append(draft())
        connection = opened.appender._connection
        assert connection is not None
        pages = (await asyncio.to_thread(connection.execute, "PRAGMA page_count")).fetchone()[0]
        await asyncio.to_thread(connection.execute, f"PRAGMA max_page_count={pages}")
        refused = 0
        for number in range(200):
            try:
                await opened.writer.append(draft(call=f"c{number}", pad="x" * 4000))
            except LedgerUnavailable as error:
                assert "disk_full" in str(error)
                refused += 1
        assert refused > 0
        assert not opened.writer.healthy
        assert opened.fatal == []
        await asyncio.to_thread(connection.execute, "PRAGMA max_page_count=1000000")
        appended = await opened.writer.append(draft())
    assert await verified(opened.path) == {LOG: appended.seq + 1}


async def test_writer_finishes_the_checkpoint_when_it_is_asked(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        checkpointer = opened.appender._checkpointer
        assert checkpointer is not None
        for number in range(20):
            await opened.writer.append(draft(call=f"c{number}", pad="x" * 4000))
        before = (await asyncio.to_thread(opened.path.stat)).st_size
        checkpointer.finish_due = True
        await opened.writer.append(draft())
        assert not checkpointer.finish_due
        assert (await asyncio.to_thread(opened.path.stat)).st_size > before
        checkpointer.failure = StoreUnavailable("store_io_error", "checkpoint", fatal=True)
        with pytest.raises(LedgerUnavailable, match="checkpoint"):
            await opened.writer.append(draft())
    assert len(opened.fatal) == 1
