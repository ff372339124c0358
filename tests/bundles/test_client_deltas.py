"""The polling client and deltas: the same bundle by a shorter way, and the whole one in the same poll when anything is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bundles import client_deltas
from bundles.archive import write_archive
from bundles.build import sign_files
from bundles.canonical import canonical_json, sha256_hex
from bundles.client_protocol import Fetched, Transfer
from bundles.delta import INSERTED_FILE, PLAN_FILE, apply_delta, make_delta
from bundles.delta_envelope import DELTA_MAX_BYTES, DeltaHead, SealedDelta, seal_delta
from bundles.errors import BundleError, BundleRefused, BundleUnavailable
from bundles.freshness import BundleIdentity
from bundles.service_protocol import DELTA_TYPE, encode_cosignatures
from tests.bundles.parts import NOW, OPTIONS, good_files, signed, signing_key, trust
from tests.bundles.services import Site
from tests.bundles.test_archive import _bomb
from tests.bundles.test_dsse import TEAM, signed_by
from tests.bundles.test_freshness import stated
from tests.bundles.test_service_deltas import large

BASE, NEWER = large(7), large(8)
HELD = BundleIdentity("main", f"sha256:{sha256_hex(BASE)}", 7)
TARGET = BundleIdentity("main", f"sha256:{sha256_hex(NEWER)}", 8)
DELTA = make_delta(BASE, NEWER) or b""


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    """A gate that has taken sequence 7 whole, a second ago."""
    made = await asyncio.to_thread(Site, tmp_path)
    await made.desk.put(BASE)
    await made.poll()
    made.clocks.pass_time(1)
    return made


def by_delta(
    delta: bytes = DELTA,
    *,
    target: BundleIdentity = TARGET,
    base: str = HELD.digest,
    key: str = "freshness",
    token: str | None = None,
    **head: int,
) -> Callable[[Fetched], Fetched]:
    """Answers 226 with this delta to who asks for one; everybody else gets what the service says."""
    about = DeltaHead(target, base, head.get("epoch", 0), head.get("iat", NOW), head.get("exp", NOW + 600))
    sealed = seal_delta(SealedDelta(about, delta), key=signing_key(key), keyid=key)
    return answering(sealed, token or stated(target, now=NOW + 1))


def answering(body: bytes, token: str, kind: str = DELTA_TYPE) -> Callable[[Fetched], Fetched]:
    """Answers 226 with this body; a whole answer stays as it is."""
    headers = {"content-type": kind, "tidegate-freshness": token}

    def spoil(fetched: Fetched) -> Fetched:
        return Fetched(226, headers, body) if fetched.status == 226 else fetched

    return spoil


def of(plan: object, inserted: bytes = b"") -> bytes:
    """A delta archive with this plan."""
    return write_archive({PLAN_FILE: canonical_json(plan), INSERTED_FILE: inserted})  # type: ignore[arg-type]


async def test_newer_bundle_is_taken_by_a_delta_when_the_service_has_one(site: Site) -> None:
    await site.desk.put(NEWER)
    await site.poll()
    assert [bundle.sequence for bundle in site.in_force] == [7, 8] and len(site.asked) == 2
    assert dict(site.asked[-1].headers)["A-IM"] == "tidegate-delta"
    transfer = site.client.status().transfer
    assert transfer is not None and transfer.kind == "delta" and transfer.size_bytes < len(NEWER) / 5
    assert (site.folder / "bundle.tar.gz").read_bytes() == NEWER
    assert site.guard.holds() and site.guard.lease.statement is not None
    assert site.guard.lease.statement.bundle == TARGET


async def test_transfer_is_whole_when_nothing_was_held(site: Site) -> None:
    assert "A-IM" not in dict(site.asked[0].headers)
    assert site.client.status().transfer == Transfer("whole", len(BASE))


async def test_delta_is_taken_after_a_restart_when_the_base_is_on_disk(site: Site) -> None:
    await site.desk.put(NEWER)
    site.restarted()
    assert await site.client.restore() is not None
    assert site.client.status().transfer is None
    await site.poll()
    transfer = site.client.status().transfer
    assert transfer is not None and transfer.kind == "delta" and site.in_force[-1].sequence == 8


async def test_deltas_follow_one_another_when_bundles_do(site: Site) -> None:
    for sequence in (8, 9, 10):
        await site.desk.put(large(sequence))
        site.clocks.pass_time(1)
        await site.poll()
    assert [bundle.sequence for bundle in site.in_force] == [7, 8, 9, 10] and len(site.asked) == 4


async def test_whole_bundle_is_taken_when_the_base_is_unknown_to_the_service(site: Site) -> None:
    await asyncio.to_thread(site.desk.reopened)
    await site.desk.put(large(8))
    await asyncio.to_thread(site.desk.reopened)
    await site.poll()
    assert site.in_force[-1].sequence == 8 and len(site.asked) == 2
    assert site.client.status().transfer == Transfer("whole", len(large(8)))


async def test_no_delta_is_asked_for_when_they_are_switched_off(site: Site) -> None:
    site.settings = replace(site.settings, deltas=False)
    site.restarted()
    await site.client.restore()
    await site.desk.put(NEWER)
    await site.poll()
    assert "A-IM" not in dict(site.asked[-1].headers) and site.in_force[-1].sequence == 8


async def test_lease_is_extended_by_304_when_a_delta_was_asked_for_and_nothing_changed(site: Site) -> None:
    site.clocks.pass_time(60)
    await site.poll()
    assert site.client.status().remaining_seconds == 600 and len(site.in_force) == 1


async def test_delta_brings_cosignatures_along_when_two_are_required(site: Site) -> None:
    site.trust = trust(threshold=2, keys=(*trust().keys, *TEAM))
    first = signed_by("anna", "bert", digest=HELD.digest)
    (site.folder / "bundle.tar.gz.dsse.json").write_bytes(first)
    site.restarted()
    assert await site.client.restore() is not None
    await site.desk.put(NEWER)
    envelope = encode_cosignatures(signed_by("anna", "bert", digest=TARGET.digest))
    site.spoil = lambda fetched: replace(
        fetched, unverified_headers={**fetched.unverified_headers, "tidegate-cosignatures": envelope}
    )
    await site.poll()
    assert site.in_force[-1].keyids == ("anna", "bert")
    transfer = site.client.status().transfer
    assert transfer is not None and transfer.kind == "delta"


async def test_bundle_is_refused_when_a_delta_leads_to_it_without_its_cosignatures(site: Site) -> None:
    site.trust = trust(threshold=2, keys=(*trust().keys, *TEAM))
    (site.folder / "bundle.tar.gz.dsse.json").write_bytes(signed_by("anna", "bert", digest=HELD.digest))
    site.restarted()
    assert await site.client.restore() is not None
    await site.desk.put(NEWER)
    with pytest.raises(BundleRefused) as refused:
        await site.poll()
    assert refused.value.code == "bundle_threshold"


OTHERS = sign_files(good_files(), signing_key("theirs"), replace(OPTIONS, sequence=8))
LAST_NIGHT = stated(TARGET, now=NOW - 3_600)
TO_ANOTHER = make_delta(BASE, large(9)) or b""

REFUSED: dict[str, tuple[Callable[[Fetched], Fetched], str]] = {
    "is signed by nobody": (answering(DELTA, stated(TARGET, now=NOW + 1)), "delta_signature_invalid"),
    "has an envelope without signatures": (
        answering(
            b'{"payload":"","payloadType":"application/vnd.tidegate.bundle-delta","signatures":[]}',
            stated(TARGET, now=NOW + 1),
        ),
        "delta_unsigned",
    ),
    "is signed by a stranger": (by_delta(key="theirs"), "delta_key_unknown"),
    "is signed by the bundle key": (by_delta(key="ours"), "delta_key_unknown"),
    "begins at another base": (by_delta(base="sha256:" + "b" * 64), "delta_other_base"),
    "is of another bundle": (by_delta(target=replace(TARGET, name="side")), "delta_other_bundle"),
    "is of another epoch": (by_delta(epoch=1), "delta_epoch_mismatch"),
    "leads to a lower sequence": (by_delta(target=replace(TARGET, sequence=6)), "delta_not_newer"),
    "has expired": (by_delta(iat=NOW - 600, exp=NOW), "delta_expired"),
    "is from the future": (by_delta(iat=NOW + 60, exp=NOW + 600), "delta_future"),
    "holds for ever": (by_delta(exp=NOW + 10**8), "delta_envelope_invalid"),
    "leads to another archive": (by_delta(TO_ANOTHER), "delta_digest_mismatch"),
    "leads nowhere": (by_delta(of({"edited": {}, "removed": []})), "delta_digest_mismatch"),
    "adds a file behind the signature's back": (
        by_delta(of({"edited": {"evil.rego": [1]}, "removed": []}, b"x")),
        "delta_digest_mismatch",
    ),
    "writes above the root": (by_delta(of({"edited": {"../x": [1]}, "removed": []}, b"x")), "delta_edits_invalid"),
    "copies from behind the end": (
        by_delta(of({"edited": {".manifest": [[10**6, 10]]}, "removed": []})),
        "delta_edits_invalid",
    ),
    "is a bomb of copies": (
        by_delta(of({"edited": {"chains/data.json": [[0, 40_000]] * 100_000}, "removed": []})),
        "delta_too_large",
    ),
    "is a bomb of zeros": (by_delta(_bomb(64 << 20)), "delta_too_large"),
    "is too large": (answering(b" " * (DELTA_MAX_BYTES + 1), stated(TARGET, now=NOW + 1)), "delta_too_large"),
    "is no archive": (by_delta(b"x"), "delta_archive_invalid"),
    "is OPA's": (by_delta(write_archive({"patch.json": b"{}"})), "delta_archive_invalid"),
    "is a page": (answering(b"<html>", stated(TARGET, now=NOW + 1), "text/html"), "delta_answer"),
    "is a whole bundle": (answering(NEWER, stated(TARGET, now=NOW + 1), "application/gzip"), "delta_answer"),
    "came with a statement about the base": (by_delta(token=stated(HELD, now=NOW + 1)), "freshness_sequence"),
    "came with a statement about another archive": (
        by_delta(token=stated(replace(TARGET, digest="sha256:" + "c" * 64), now=NOW + 1)),
        "freshness_other_digest",
    ),
    "came with last night's statement": (by_delta(token=LAST_NIGHT), "freshness_expired"),
    "came with a stranger's statement": (by_delta(token=stated(TARGET, key="theirs")), "freshness_key_unknown"),
}


@pytest.mark.parametrize("fault", REFUSED)
async def test_whole_bundle_is_taken_in_the_same_poll_when_the_delta(fault: str, site: Site) -> None:
    await site.desk.put(NEWER)
    site.spoil, code = REFUSED[fault]
    offer = await site.client.ask(site.say)
    assert offer is not None and offer.bundle.digest == TARGET.digest
    assert site.said == [code] and len(site.asked) == 3
    again = dict(site.asked[-1].headers)
    assert "A-IM" not in again and again["Prefer"] == "modes=snapshot"
    assert (site.folder / "bundle.tar.gz").read_bytes() == BASE  # nothing is half applied before it is in force
    await site.client.commit(offer)
    status = site.client.status()
    assert (status.deltas_refused, status.delta_refusal) == (1, code)
    assert status.transfer == Transfer("whole", len(NEWER)) and status.remaining_seconds == 600


async def lose_base(site: Site) -> None:
    (site.folder / "bundle.tar.gz").unlink()


async def other_base(site: Site) -> None:
    (site.folder / "bundle.tar.gz").write_bytes(large(6))


async def no_base(site: Site) -> None:
    (site.folder / "bundle.tar.gz").unlink()
    (site.folder / "bundle.tar.gz").mkdir()


BASES = {
    "is gone": (lose_base, "delta_base_missing"),
    "is another": (other_base, "delta_base_missing"),
    "cannot be read": (no_base, "state_unavailable"),
}


@pytest.mark.parametrize("case", BASES)
async def test_whole_bundle_is_taken_when_the_base_on_disk(case: str, site: Site) -> None:
    spoil, code = BASES[case]
    await site.desk.put(NEWER)
    await spoil(site)
    offer = await site.client.ask(site.say)
    assert offer is not None and offer.archive == NEWER and site.said == [code]


async def test_old_bundle_and_lease_stay_when_delta_and_whole_bundle_are_both_refused(site: Site) -> None:
    await site.desk.put(NEWER)
    refuse = REFUSED["is signed by a stranger"][0]
    site.spoil = lambda fetched: refuse(fetched) if fetched.status == 226 else replace(fetched, status=500)
    with pytest.raises(BundleUnavailable) as refused:
        await site.client.ask(site.say)
    assert refused.value.code == "bundle_service_status" and site.said == ["delta_key_unknown"]
    assert site.client.held == HELD and site.client.status().remaining_seconds == 599


UNTRUSTED = {
    "the bundle is signed by another key": (OTHERS, "bundle_signature_invalid"),
    "the bundle is for another audience": (signed(good_files(), sequence=8, audience="x"), "bundle_audience_mismatch"),
    "the bundle is unsigned": (write_archive(good_files()), "bundle_unsigned"),
    "the bundle's sequence is lower than stated": (large(6), "bundle_rollback"),
}


@pytest.mark.parametrize("case", UNTRUSTED)
async def test_online_key_changes_no_policy_when_it_signs_delta_and_statement_but(case: str, site: Site) -> None:
    """Whoever has the online key and the network can offer any archive, and gets as far as with a whole one."""
    archive, code = UNTRUSTED[case]
    target = BundleIdentity("main", f"sha256:{sha256_hex(archive)}", 8)
    delta = make_delta(BASE, archive)
    assert delta is not None and apply_delta(BASE, delta) == archive
    answer = by_delta(delta, target=target)(Fetched(226, {}))
    site.asked.clear()
    site.spoil = lambda _: answer
    with pytest.raises(BundleRefused) as refused:
        await site.client.ask(site.say)
    assert refused.value.code == code
    # Its digest was right, so the whole bundle would be the same bytes: it is not asked for.
    assert len(site.asked) == 1 and site.said == [] and site.client.held == HELD
    assert site.client.status().remaining_seconds == 599


async def test_answer_is_refused_when_a_delta_comes_that_nobody_asked_for(site: Site) -> None:
    site.settings = replace(site.settings, deltas=False)
    site.restarted()
    await site.client.restore()
    answer = by_delta()(Fetched(226, {}))
    site.spoil = lambda _: answer
    with pytest.raises(BundleError) as refused:
        await site.poll()
    assert refused.value.code == "bundle_service_status"


async def test_answer_is_refused_when_a_delta_comes_without_a_statement(site: Site) -> None:
    await site.desk.put(NEWER)
    site.spoil = lambda fetched: replace(fetched, unverified_headers={"content-type": DELTA_TYPE})
    with pytest.raises(BundleRefused) as refused:
        await site.poll()
    assert refused.value.code == "freshness_missing"


async def test_deltas_are_asked_for_ever_more_rarely_when_they_are_refused(site: Site) -> None:
    site.restarted()
    await site.client.restore()
    site.spoil = REFUSED["is signed by a stranger"][0]
    pauses = []
    for sequence in range(8, 11):
        await site.desk.put(large(sequence))
        site.clocks.pass_time(1)
        offer = await site.client.ask(site.say)
        assert offer is not None
        await site.client.commit(offer)
        site.clocks.pass_time(1)
        await site.client.ask(site.say)
        assert "A-IM" not in dict(site.asked[-1].headers)
        pauses.append(client_deltas.PAUSE_FIRST_SECONDS * 2.0 ** (sequence - 8))
        site.steady += pauses[-1]
    assert site.said == ["delta_key_unknown"] * 3
    site.spoil = None
    await site.desk.put(large(11))
    site.clocks.pass_time(1)
    offer = await site.client.ask(site.say)
    assert offer is not None and offer.transfer.kind == "delta"
