"""Kept inputs and differences: sealed, scoped, bounded in time and number."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from gateway.errors import GateMisuse
from gateway.store.answers import AnswerBroken, decode_kept, encode_kept, keep_input_effects
from gateway.store.offline_inputs_driver import OfflineInputs
from gateway.store.port import (
    DIFFERENCES_MAX_ROWS,
    KEPT_INPUT_MAX_BYTES,
    KeepInput,
    SaveDifference,
    StoreUnavailable,
)
from gateway.store.sealing import SealBroken, TenantKeys
from gateway.store.sqlite import PRUNE_INTERVAL_MS
from tests.gateway.store.build import KEYS, LOG, OTHER_LOG, OpenStore, draft, open_store

SECRET = b'{"args":{"note":"of alice"}}'


def keep(call: str = "c1", *, document: bytes = SECRET, seconds: int = 60, log: tuple[str, str] = LOG) -> KeepInput:
    return KeepInput(log, call, b'{"effect":"DENY"}', document, seconds)


def difference(call: str = "c1", kind: str = "loosening", log: tuple[str, str] = LOG) -> SaveDifference:
    return SaveDifference(log, call, kind, b'{"action":"a"}', 60)


async def kept(opened: OpenStore, *effects: KeepInput) -> None:
    for effect in effects:
        await opened.writer.append(draft("refusal", log=effect.log, call=effect.call), effects=(effect,))


async def test_input_is_read_again_when_it_was_kept(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await kept(opened, keep())
        found = await opened.store.kept_input(LOG, "c1")
    assert found is not None
    assert (found.call, found.at, found.about, found.document) == ("c1", opened.clock.now, b'{"effect":"DENY"}', SECRET)


async def test_input_is_nowhere_in_the_clear(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await kept(opened, keep())
    assert b"of alice" not in b"".join(path.read_bytes() for path in opened.path.parent.iterdir())


@pytest.mark.parametrize(("log", "call"), [(OTHER_LOG, "c1"), (LOG, "c2"), (("acme", "other"), "c1")])
async def test_input_is_absent_when_asked_from_elsewhere(tmp_path: Path, log: tuple[str, str], call: str) -> None:
    async with open_store(tmp_path) as opened:
        await kept(opened, keep(), keep("c9", log=OTHER_LOG))
        assert await opened.store.kept_input(log, call) is None


async def test_input_is_absent_from_the_end_of_its_time_on(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await kept(opened, keep(seconds=60))
        opened.clock.advance(59.999)
        assert await opened.store.kept_input(LOG, "c1") is not None
        opened.clock.advance(0.001)
        assert await opened.store.kept_input(LOG, "c1") is None
        assert await opened.store.kept_inputs(LOG, 10, None) == ()
        assert await offline(opened, lambda reader: reader.of_call("c1")) is None


async def test_input_is_replaced_when_the_call_is_decided_again(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await kept(opened, keep(), keep("c2"), keep(document=b"{}"))
        newest = await opened.store.kept_inputs(LOG, 10, None)
    assert [(each.call, each.document) for each in newest] == [("c1", b"{}"), ("c2", SECRET)]


async def test_inputs_are_paged_newest_first(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await kept(opened, *(keep(f"c{number}") for number in range(5)), keep("x", log=OTHER_LOG))
        first = await opened.store.kept_inputs(LOG, 2, None)
        rest = await opened.store.kept_inputs(LOG, 10, first[-1].position)
    assert [each.call for each in (*first, *rest)] == ["c4", "c3", "c2", "c1", "c0"]


async def test_input_does_not_open_when_it_was_moved_to_another_call(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await kept(opened, keep())
        with sqlite3.connect(opened.path) as file:
            file.execute("UPDATE inputs SET call = 'c2'")
        with pytest.raises(SealBroken):
            await opened.store.kept_input(LOG, "c2")


async def test_input_is_refused_when_it_belongs_to_another_log_than_its_record(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        for effect in (keep(log=OTHER_LOG), difference(log=OTHER_LOG)):
            with pytest.raises(GateMisuse):
                await opened.writer.append(draft(), effects=(effect,))


def test_input_is_not_kept_when_it_is_too_large() -> None:
    room = KEPT_INPUT_MAX_BYTES - len(keep().about)
    assert len(keep_input_effects(keep(document=b"x" * room))) == 1
    assert keep_input_effects(keep(document=b"x" * (room + 1))) == ()


@pytest.mark.parametrize("data", [b"", b"0000", b"0000000g{}", b"00000003{}", b"-0000001{}"])
def test_kept_is_refused_when_it_was_not_written_here(data: bytes) -> None:
    with pytest.raises(AnswerBroken):
        decode_kept(data)


@pytest.mark.parametrize("parts", [(b"", b""), (b"{}", b""), (b"", b"{}"), (b"a\n\x00", b"\x00b")])
def test_kept_comes_out_as_it_went_in(parts: tuple[bytes, bytes]) -> None:
    assert decode_kept(encode_kept(*parts)) == parts


async def test_differences_are_listed_newest_first_and_by_kind(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        for call, kind in (("c1", "loosening"), ("c2", "tightening"), ("c3", "loosening")):
            await opened.writer.append(draft("bundle"), effects=(difference(call, kind),))
        await opened.writer.append(draft("bundle", log=OTHER_LOG), effects=(difference("x", log=OTHER_LOG),))
        everything = await opened.store.differences(LOG, None, 10, None)
        looser = await opened.store.differences(LOG, "loosening", 1, None)
        older = await opened.store.differences(LOG, "loosening", 10, looser[0].position)
        assert [row.call for row in everything] == ["c3", "c2", "c1"]
        assert [row.call for row in (*looser, *older)] == ["c3", "c1"]
        assert looser[0].data == b'{"action":"a"}'
        assert await opened.store.difference_counts(LOG) == {"loosening": 2, "tightening": 1}
        opened.clock.advance(60)
        assert await opened.store.differences(LOG, None, 10, None) == ()
        assert await opened.store.difference_counts(LOG) == {}


async def test_expired_rows_are_removed_while_nothing_waits(tmp_path: Path) -> None:
    async with open_store(tmp_path, idle_seconds=0.01) as opened:
        await opened.writer.append(draft("refusal"), effects=(keep(), difference()))
        opened.clock.advance(60 + PRUNE_INTERVAL_MS / 1000)
        for _ in range(500):
            with sqlite3.connect(opened.path) as file:
                left = file.execute("SELECT (SELECT count(*) FROM inputs) + (SELECT count(*) FROM differences)")
                if left.fetchone()[0] == 0:
                    break
            await asyncio.sleep(0.01)
        else:
            pytest.fail("expired rows stand for 5 s")


async def test_oldest_differences_are_removed_when_there_are_too_many(tmp_path: Path) -> None:
    async with open_store(tmp_path, idle_seconds=0.01) as opened:
        await opened.writer.append(draft("bundle"), effects=(difference("old"),))
        with sqlite3.connect(opened.path) as file:
            file.execute(
                "INSERT INTO differences SELECT id + ?, log_id, 'new', at, expires + 10000000, kind, data FROM differences",
                (DIFFERENCES_MAX_ROWS,),
            )
        opened.clock.advance(PRUNE_INTERVAL_MS / 1000)
        for _ in range(500):
            rows = await opened.store.differences(LOG, None, 10, None)
            if [row.call for row in rows] == ["new"]:
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail("old differences stand for 5 s")


Found = TypeVar("Found")


async def offline(opened: OpenStore, ask: Callable[[OfflineInputs], Found], keys: TenantKeys = KEYS) -> Found:
    """What a reader of the file alone finds."""

    def read() -> Found:
        with OfflineInputs(opened.path, keys, opened.clock.now) as reader:
            return ask(reader)

    return await asyncio.to_thread(read)


async def test_offline_reader_finds_inputs_and_records_of_every_log(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await kept(opened, keep("c1"), keep("c2", log=OTHER_LOG), keep("c3"))
    found = await offline(opened, lambda reader: reader.of_call("c2"))
    assert found is not None and (found.log, found.document) == (OTHER_LOG, SECRET)
    assert await offline(opened, lambda reader: reader.of_call("nosuch")) is None
    for count, tenant, calls in ((2, None, ["c3", "c2"]), (1, "rival", ["c2"]), (9, "acme", ["c3", "c1"])):
        newest = await offline(opened, lambda reader, n=count, t=tenant: list(reader.newest(n, tenant=t)))  # type: ignore[misc]
        assert [each.call for each in newest] == calls
    records = await offline(opened, lambda reader: reader.records_of("c1"))
    assert [record["kind"] for record in records] == ["refusal"]


async def test_offline_reader_refuses_when_the_key_is_another(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await kept(opened, keep())
    with pytest.raises(SealBroken):
        await offline(opened, lambda reader: reader.of_call("c1"), TenantKeys(b"x" * 32))


def test_offline_reader_refuses_when_there_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="store_missing"):
        OfflineInputs(tmp_path / "none", KEYS, 0)


def test_offline_reader_refuses_when_the_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "none").write_bytes(b"x" * 4096)
    with OfflineInputs(tmp_path / "none", KEYS, 0) as reader, pytest.raises(StoreUnavailable):
        reader.of_call("c1")


async def test_offline_reader_finds_nothing_when_an_older_version_wrote_the_store(tmp_path: Path) -> None:
    async with open_store(tmp_path) as opened:
        await kept(opened, keep())
    with sqlite3.connect(opened.path) as file:
        file.execute("DROP TABLE inputs")
    assert await offline(opened, lambda reader: reader.of_call("c1")) is None
    assert await offline(opened, lambda reader: list(reader.newest(5))) == []
