"""The link to the process that owns the store: what goes over it, and what happens when an end of it fails."""

from __future__ import annotations

import asyncio
import pickle
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.errors import GateMisuse
from gateway.ledger.record import Appended, freeze
from gateway.ledger.writer import LedgerUnavailable, LedgerWriter
from gateway.store.frames import (
    Answered,
    FrameReader,
    Noted,
    Opened,
    Opening,
    decode_batch,
    decode_opening,
    decode_reply,
    encode_batch,
    encode_opening,
    encode_reply,
    framed,
)
from gateway.store.port import (
    BatchItem,
    BatchResult,
    CallRow,
    ClaimKey,
    ClearSwitch,
    CloseAnswer,
    ConsumeApproval,
    KeepInput,
    MarkUnknown,
    RaiseSequence,
    SaveAnswer,
    SaveCall,
    SaveDifference,
    SetSwitch,
    SettleKey,
    StoreConflict,
    StoredAnswer,
    StoreEffect,
    StoreUnavailable,
    SwitchRow,
)
from gateway.store.process_client import Owner, StoreLink, store_link
from gateway.store.process_driver import EXIT_FAILED, StoreProcess
from tests.gateway.store.build import LOG, START, draft

EFFECTS: dict[str, StoreEffect] = {
    "claim": ClaimKey(LOG, "scope", "digest", "c1", START),
    "settle": SettleKey(LOG, "scope", "c1", "done"),
    "answer": SaveAnswer(LOG, "c1", StoredAnswer(200, (("a", "b"),), b"\x00\xff")),
    "call": SaveCall(CallRow(LOG, "c1", "alice", "urn:people", "servicenow", "x", "done", status=200)),
    "input": KeepInput(LOG, "c1", b"about", b"document", 60),
    "difference": SaveDifference(LOG, "c1", "looser", b"{}", 60),
    "consume": ConsumeApproval(LOG, "a1", "digest", "c1"),
    "switch set": SetSwitch(SwitchRow("acme", "tenant/acme", "why", "alice", START)),
    "switch cleared": ClearSwitch("acme", "tenant/acme"),
    "sequence": RaiseSequence("starter", 7),
    "answer ended": CloseAnswer(LOG, "c1"),
    "unknown": MarkUnknown(LOG, "c1"),
}


def item(*effects: StoreEffect) -> BatchItem:
    return BatchItem(freeze(draft(), node="n1"), effects)


def payload(frame: bytes) -> bytes:
    (found,) = FrameReader().feed(frame)
    return found


@pytest.mark.parametrize("effect", EFFECTS.values(), ids=EFFECTS.keys())
def test_batch_arrives_as_it_was_sent(effect: StoreEffect) -> None:
    sent = [item(effect), item()]
    assert decode_batch(payload(encode_batch(sent))) == sent


def test_opening_arrives_as_it_was_sent() -> None:
    opening = Opening("/somewhere/tidegate.db", b"\x00" * 32, flush=False, idle_seconds=0.5)
    assert decode_opening(payload(encode_opening(opening))) == opening


class Foreign:
    """A type that the port does not know."""


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(Foreign(), id="a type of another module"),
        pytest.param(print, id="a function"),
        pytest.param(threading.Thread, id="a class of the library"),
        pytest.param(StoreConflict, id="an exception of the port"),
        pytest.param(pickle.loads, id="the unpickler itself"),
    ],
)
def test_owner_takes_no_value_that_is_none_of_the_ports(value: object) -> None:
    with pytest.raises(pickle.UnpicklingError, match="no value of the store's port"):
        decode_batch(pickle.dumps([((), (value,))], 5))


def test_results_arrive_as_they_were_said() -> None:
    items = [item(), item(), item()]
    conflict = StoreConflict("replay", "ended", call="c0")
    low = StoreUnavailable("disk_low", "no room")
    reply = decode_reply(payload(encode_reply([_appended(3), conflict, low])))
    assert isinstance(reply, Answered)
    first, second, third = reply.of(items)
    assert first == _appended(3)
    assert isinstance(second, StoreConflict)
    assert (second.code, second.detail, second.call) == ("replay", "ended", "c0")
    assert isinstance(third, StoreUnavailable)
    assert (third.code, third.detail, third.fatal) == ("disk_low", "no room", False)
    with pytest.raises(GateMisuse, match="other items"):
        reply.of(items[:2])


def test_other_replies_arrive_as_they_were_said() -> None:
    assert decode_reply(payload(encode_reply(Opened()))) == Opened()
    assert decode_reply(payload(encode_reply(Noted("disk_low")))) == Noted("disk_low")
    assert decode_reply(payload(encode_reply(Noted(None)))) == Noted(None)
    failed = decode_reply(payload(encode_reply(StoreUnavailable("store_io_error", "gone", fatal=True))))
    assert isinstance(failed, StoreUnavailable)
    assert (failed.code, failed.fatal) == ("store_io_error", True)


@pytest.mark.parametrize("said", [b'{"else": 1}', b"7", b'{"opened": false}'])
def test_reply_is_refused_when_no_owner_says_it(said: bytes) -> None:
    with pytest.raises(GateMisuse, match="means nothing"):
        decode_reply(said)


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 1000])
def test_frames_are_whole_however_they_are_cut(step: int) -> None:
    sent = [b"", b"one", b"x" * 300]
    stream = b"".join(framed(each) for each in sent)
    reader, found = FrameReader(), []
    for at in range(0, len(stream), step):
        found += reader.feed(stream[at : at + step])
    assert found == sent


def test_frame_is_whole_when_it_comes_in_thousands_of_pieces() -> None:
    payload = bytes(range(256)) * (1 << 16)
    stream, reader, found = framed(payload), FrameReader(), []
    for at in range(0, len(stream), 4096):
        found += reader.feed(stream[at : at + 4096])
    assert found == [payload]


def test_frame_is_refused_when_no_end_writes_one_so_long() -> None:
    with pytest.raises(GateMisuse, match="longer than any"):
        FrameReader().feed(b"\xff\xff\xff\xff")


# -- ends that fail ----------------------------------------------------------------------------------------------------


class Scripted:
    """An owner that reads the opening and then does as told with the link."""

    def __init__(self, *answers: bytes, stay: bool = False) -> None:
        self._answers = answers
        self._stay = stay

    def __call__(self) -> Owner:
        here, there = socket.socketpair()
        thread = threading.Thread(target=self._serve, args=(there,), daemon=True)
        thread.start()
        here.setblocking(False)

        return Owner(here, thread.join)

    def _serve(self, there: socket.socket) -> None:
        with there:
            for answer in self._answers:
                there.recv(1 << 20)
                there.sendall(answer)
            if self._stay:
                while there.recv(1 << 20):
                    pass


async def test_writer_does_not_start_when_the_owner_ends_before_it_opened() -> None:
    writer = LedgerWriter(StoreLink(Scripted(), Opening("", b"")), node="n1", on_fatal=print)
    with pytest.raises(LedgerUnavailable, match="has ended"):
        await writer.start()
    assert not writer.healthy
    await writer.close()


async def test_writer_does_not_start_when_the_owner_cannot_be_started() -> None:
    def begin() -> Owner:
        raise FileNotFoundError(2, "no such interpreter")

    writer = LedgerWriter(StoreLink(begin, Opening("", b"")), node="n1", on_fatal=print)
    with pytest.raises(LedgerUnavailable, match="did not start"):
        await writer.start()
    await writer.close()


async def test_writer_stops_for_good_when_the_owner_ends_under_it() -> None:
    fatal: list[str] = []
    link = StoreLink(Scripted(encode_reply(Opened())), Opening("", b""))
    writer = LedgerWriter(link, node="n1", on_fatal=fatal.append)
    await writer.start()
    async with asyncio.timeout(10):
        while not fatal:
            await asyncio.sleep(0)
    with pytest.raises(LedgerUnavailable, match="has ended"):
        await writer.append(draft())
    assert not writer.healthy
    await writer.close()
    assert len(fatal) == 1


async def test_waiters_are_refused_when_the_owner_ends_in_the_middle_of_a_batch() -> None:
    fatal: list[str] = []
    link = StoreLink(Scripted(encode_reply(Opened()), b""), Opening("", b""))
    writer = LedgerWriter(link, node="n1", on_fatal=fatal.append)
    await writer.start()
    results = await asyncio.gather(*(writer.append(draft()) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [LedgerUnavailable] * 3
    assert (len(fatal), writer.unflushed) == (1, 0)
    await writer.close()


async def test_waiters_are_refused_when_an_effect_cannot_be_sent() -> None:
    fatal: list[str] = []
    link = StoreLink(Scripted(encode_reply(Opened()), stay=True), Opening("", b""))
    writer = LedgerWriter(link, node="n1", on_fatal=fatal.append)
    await writer.start()
    unsendable = SaveDifference(LOG, "c1", "looser", memoryview(b"{}"), 60)  # type: ignore[arg-type]
    with pytest.raises(LedgerUnavailable, match="pickle"):
        await writer.append(draft(), effects=(unsendable,))
    assert len(fatal) == 1
    await writer.close()


async def test_link_takes_one_batch_at_a_time() -> None:
    link = StoreLink(Scripted(encode_reply(Opened()), stay=True), Opening("", b""))
    with pytest.raises(GateMisuse, match="after it was opened"):
        link.send([item()])
    writer = LedgerWriter(link, node="n1", on_fatal=print)
    await writer.start()
    link.send([item()])
    with pytest.raises(GateMisuse, match="one batch at a time"):
        link.send([item()])
    await link.close()


async def test_process_writes_and_ends_with_its_link(tmp_path: Path) -> None:
    path = tmp_path / "state" / "tidegate.db"
    writer = LedgerWriter(store_link(path, b"k" * 32), node="n1", on_fatal=print)
    await writer.start()
    appended = await asyncio.gather(*(writer.append(draft(call=f"c{number}")) for number in range(5)))
    await writer.close()
    assert [each.seq for each in appended] == [0, 1, 2, 3, 4]
    assert await asyncio.to_thread(path.stat)


async def test_writer_does_not_start_when_the_process_cannot_open_the_file(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "tidegate.db").write_bytes(b"not a database at all" * 100)
    fatal: list[str] = []
    writer = LedgerWriter(store_link(tmp_path / "state" / "tidegate.db", b"k" * 32), node="n1", on_fatal=fatal.append)
    with pytest.raises(LedgerUnavailable, match="store_corrupt"):
        await writer.start()
    await writer.close()
    assert fatal == [], "the start has said why it failed; nothing has ended that had begun"


class Refusing:
    """A writing side that fails as told."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def open_writer(self) -> None:
        return None

    def append_batch(self, items: Sequence[BatchItem]) -> list[BatchResult]:
        raise self._error

    def tidy(self) -> None:
        return None

    def close_writer(self) -> None:
        return None


@pytest.mark.parametrize(
    ("frames", "status"),
    [
        pytest.param([], 0, id="the gate goes before it says anything"),
        pytest.param([encode_opening(Opening("", b""))], 0, id="the gate goes after the opening"),
        pytest.param([encode_opening(Opening("", b"")), encode_batch([item()])], EXIT_FAILED, id="a batch fails"),
    ],
)
def test_process_ends_when(frames: list[bytes], status: int, capfd: pytest.CaptureFixture[str]) -> None:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(b"".join(frames))
        here.shutdown(socket.SHUT_WR)
        assert StoreProcess(there, lambda _opening: Refusing(RuntimeError("a bug"))).run() == status
    assert capfd.readouterr().err == ""


def test_process_says_so_when_it_fails_and_nobody_listens(capfd: pytest.CaptureFixture[str]) -> None:
    here, there = socket.socketpair()
    here.sendall(encode_opening(Opening("", b"")) + encode_batch([item()]))

    class Leaving(Refusing):
        def append_batch(self, items: Sequence[BatchItem]) -> list[BatchResult]:
            here.close()
            return super().append_batch(items)

    with there:
        assert StoreProcess(there, lambda _opening: Leaving(RuntimeError("a bug"))).run() == EXIT_FAILED
    assert "the gate is gone" in capfd.readouterr().err


def _appended(seq: int) -> Appended:
    return Appended(LOG, seq, "ab" * 32)
