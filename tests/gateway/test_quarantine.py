"""What may not decide stays on disk and out of force: until it is released, or another bundle takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
import pytest

from bundles.errors import BundleRefused
from bundles.trusted_set import TrustedBundle
from gateway.quarantine import ENTRIES_MAX_COUNT, Entry, QuarantineUnreadable, decode_entries, encode_entries
from gateway.quarantine_store import FILE_NAME, QuarantineStore
from gateway.quarantining import OPERATOR_LOG, Quarantine
from pdp.cross_check import CrossDifference
from pdp.errors import PolicyUnavailable
from pdp.prepared import Answer, PolicyPlane
from pdp.replay import Kind
from tests.gateway.store.build import OpenStore, open_store
from tests.pdp.parts import ALLOW, QUESTION, bundle_of

ENTRY = Entry(1_800_000_000_000, "c1", "sha256:in", "sha256:ours", "sha256:theirs")
BUNDLE = bundle_of(b"")
NEWER = replace(BUNDLE, digest="sha256:newer", revision="r2")


def differing(bundle: TrustedBundle = BUNDLE) -> CrossDifference:
    return CrossDifference(
        "acme", "ops", "c1", bundle.digest, Kind.TIGHTENING, "sha256:in", "sha256:ours", "sha256:theirs", b"{}"
    )


def test_entries_are_read_as_they_were_written() -> None:
    entries = {"sha256:a": ENTRY, "sha256:b": replace(ENTRY, at_ms=2, call="")}
    assert decode_entries(encode_entries(entries)) == entries
    assert decode_entries(encode_entries({})) == {}


def test_oldest_entry_goes_when_there_are_too_many() -> None:
    entries = {f"sha256:{number}": replace(ENTRY, at_ms=number) for number in range(ENTRIES_MAX_COUNT + 1)}
    kept = decode_entries(encode_entries(entries))
    assert len(kept) == ENTRIES_MAX_COUNT and "sha256:0" not in kept


WHOLE = {"v": 1, "bundles": {"sha256:a": {"at_ms": 1, "call": "c", "input_digest": "i", "ours": "o", "theirs": "t"}}}


def _with(**changes: object) -> bytes:
    return orjson.dumps({"v": 1, "bundles": {"sha256:a": {**WHOLE["bundles"]["sha256:a"], **changes}}})  # type: ignore[index]


BROKEN: dict[str, bytes] = {
    "it is empty": b"",
    "it is no JSON": b"{",
    "a key stands twice": b'{"v":1,"v":1,"bundles":{}}',
    "it is too long": b'{"v":1,"bundles":{"' + b"x" * 70_000 + b'":{}}}',
    "it is no object": b"[]",
    "it is of another version": orjson.dumps({**WHOLE, "v": 2}),
    "it has no bundles": b'{"v":1}',
    "bundles is no object": b'{"v":1,"bundles":[]}',
    "an entry is no object": b'{"v":1,"bundles":{"sha256:a":1}}',
    "an entry lacks a member": b'{"v":1,"bundles":{"sha256:a":{"at_ms":1}}}',
    "an entry has a member more": _with(more=1),
    "a time is no number": _with(at_ms="1"),
    "a time is a truth value": _with(at_ms=True),
    "a call is no text": _with(call=7),
    "a digest is no text": _with(theirs=None),
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN.keys())
def test_nobody_decides_by_a_quarantine_file_when(raw: bytes, tmp_path: Path) -> None:
    store = QuarantineStore(tmp_path / FILE_NAME)
    store.path.write_bytes(raw)
    for act in (store.entries, lambda: store.holds("a"), lambda: store.add("a", ENTRY), lambda: store.release("a")):
        with pytest.raises(QuarantineUnreadable):
            act()
    assert store.path.read_bytes() == raw


def test_store_keeps_the_first_reason_and_forgets_what_is_released(tmp_path: Path) -> None:
    store = QuarantineStore(tmp_path / "state" / FILE_NAME)
    assert store.entries() == {}
    store.add("sha256:a", ENTRY)
    store.add("sha256:a", replace(ENTRY, call="c2"))
    assert QuarantineStore(store.path).entries() == {"sha256:a": ENTRY}
    assert store.path.stat().st_mode & 0o777 == 0o600
    store.release("sha256:b")
    assert store.holds("sha256:a")
    store.release("sha256:a")
    assert not store.holds("sha256:a")


def test_store_says_so_when_the_disk_does_not_take_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(QuarantineUnreadable):
        QuarantineStore(tmp_path / "file" / FILE_NAME).add("sha256:a", ENTRY)
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(QuarantineUnreadable):
        QuarantineStore(tmp_path / FILE_NAME).entries()


class Allowing:
    """An engine that lets everything."""

    name = "allowing"

    async def connect(self, bundle: TrustedBundle) -> Allowing:
        return self

    async def ask(self, input_bytes: bytes) -> Answer:
        return Answer(ALLOW)

    async def close(self) -> None:
        """Nothing to free."""


@dataclass
class Held:
    """A quarantine with a plane, a ledger and what it said."""

    quarantine: Quarantine
    plane: PolicyPlane
    opened: OpenStore
    store: QuarantineStore
    said: list[str] = field(default_factory=list)

    async def entries(self) -> dict[str, Entry]:
        return await asyncio.to_thread(self.store.entries)

    async def recorded(self) -> list[str]:
        records = await self.opened.store.records(OPERATOR_LOG, 0, 10)
        return [str(orjson.loads(record.data)["action"]["name"]) for record in records]


@asynccontextmanager
async def held(tmp_path: Path, path: Path | None = None) -> AsyncIterator[Held]:
    async with open_store(tmp_path) as opened:
        plane, store, said = PolicyPlane(Allowing()), QuarantineStore(path or tmp_path / FILE_NAME), list[str]()
        quarantine = Quarantine(store, plane, opened.writer, lambda what, fields: said.append(what))
        yield Held(quarantine, plane, opened, store, said)


async def test_bundle_decides_no_more_from_when_its_quarantine_begins(tmp_path: Path) -> None:
    async with held(tmp_path) as one:
        await one.plane.load(BUNDLE)
        await one.quarantine.begin(differing())
        await one.quarantine.begin(differing())
        with pytest.raises(PolicyUnavailable):
            await one.plane.decide(QUESTION)
        assert one.quarantine.is_held
        assert (await one.entries())[BUNDLE.digest].call == "c1"
        assert await one.quarantine.keeps_out(BUNDLE)
        assert await one.recorded() == ["tidegate.cross_check.quarantine"]
        assert one.said == ["bundle_quarantined", "bundle_quarantined"]


async def test_nothing_happens_when_the_bundle_that_differed_was_replaced(tmp_path: Path) -> None:
    async with held(tmp_path) as one:
        await one.quarantine.begin(differing())
        await one.plane.load(NEWER)
        await one.quarantine.begin(differing())
        assert not one.quarantine.is_held and await one.entries() == {} and one.said == []
        assert not await one.plane.withdraw(BUNDLE.digest)


async def test_bundle_that_takes_its_place_decides_and_stays_when_the_other_one_comes_back(tmp_path: Path) -> None:
    async with held(tmp_path) as one:
        await one.plane.load(BUNDLE)
        await one.quarantine.begin(differing())
        assert not await one.quarantine.keeps_out(NEWER)
        await one.plane.load(NEWER)
        await one.quarantine.let_in(NEWER)
        assert not one.quarantine.is_held
        with pytest.raises(BundleRefused) as refused:
            await one.quarantine.keeps_out(BUNDLE)
        assert refused.value.code == "bundle_quarantined"
        assert await one.recorded() == ["tidegate.cross_check.quarantine"]


async def test_bundle_is_kept_out_after_a_restart_and_let_in_once_it_is_released(tmp_path: Path) -> None:
    await asyncio.to_thread(QuarantineStore(tmp_path / FILE_NAME).add, BUNDLE.digest, ENTRY)
    async with held(tmp_path) as one:
        assert await one.quarantine.keeps_out(BUNDLE) and one.quarantine.is_held
        await asyncio.to_thread(one.store.release, BUNDLE.digest)
        assert not await one.quarantine.keeps_out(BUNDLE)
        await one.plane.load(BUNDLE)
        await one.quarantine.let_in(BUNDLE)
        assert not one.quarantine.is_held
        assert await one.recorded() == ["tidegate.cross_check.release"]
        assert one.said == ["bundle_quarantined", "bundle_released"]


async def test_bundle_is_kept_out_though_the_disk_did_not_take_it(tmp_path: Path) -> None:
    async with held(tmp_path, tmp_path / "no" / FILE_NAME) as one:
        (tmp_path / "no").write_bytes(b"")
        await one.plane.load(BUNDLE)
        await one.quarantine.begin(differing())
        assert await one.quarantine.keeps_out(BUNDLE)
        assert one.said[:2] == ["bundle_quarantined", "quarantine_unwritten"]


async def test_quarantine_stands_though_it_cannot_be_recorded(tmp_path: Path) -> None:
    async with held(tmp_path) as one:
        await one.plane.load(BUNDLE)
        await one.opened.writer.close()
        await one.quarantine.begin(differing())
        assert one.quarantine.is_held and BUNDLE.digest in await one.entries()
        assert one.said == ["bundle_quarantined", "quarantine_unrecorded"]
