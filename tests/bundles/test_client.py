"""The polling client: what makes a lease, what ends it, and a service that lies, fails and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bundles.build import sign_files
from bundles.canonical import sha256_hex
from bundles.client_protocol import ClientSettings, Fetched, delay_seconds
from bundles.errors import BundleError, BundleRefused, BundleUnavailable
from bundles.freshness import BundleIdentity
from bundles.service_protocol import encode_cosignatures
from bundles.trusted_set import TrustedBundle
from tests.bundles.parts import NOW, OPTIONS, good_bundle, good_files, signed, signing_key, trust
from tests.bundles.services import Site
from tests.bundles.test_dsse import TEAM, signed_by
from tests.bundles.test_freshness import KEY, NEXT_KEY, payload, stated

RAW = good_bundle()
OURS = BundleIdentity("main", f"sha256:{sha256_hex(RAW)}", 7)


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    """A gate that has just taken sequence 7."""
    made = await asyncio.to_thread(Site, tmp_path)
    await made.desk.put(RAW)
    await made.poll()
    return made


def with_header(name: str, value: str | None) -> Callable[[Fetched], Fetched]:
    """Replace one header of each answer, or leave it out."""

    def spoil(fetched: Fetched) -> Fetched:
        kept = {key: item for key, item in fetched.unverified_headers.items() if key != name}
        return replace(fetched, unverified_headers={**kept, **({name: value} if value is not None else {})})

    return spoil


def freshness(token: str | None) -> Callable[[Fetched], Fetched]:
    return with_header("tidegate-freshness", token)


async def test_lease_begins_when_a_bundle_was_taken(site: Site) -> None:
    assert [bundle.sequence for bundle in site.in_force] == [7]
    assert site.guard.holds() and site.client.status().remaining_seconds == 600


async def test_lease_is_extended_when_nothing_changed(site: Site) -> None:
    site.clocks.pass_time(120)
    await site.poll()
    assert site.client.status().remaining_seconds == 600
    assert dict(site.asked[-1].headers)["If-None-Match"] == f'"{OURS.digest}"'
    assert len(site.in_force) == 1


async def test_newer_bundle_is_taken_when_it_was_published(site: Site) -> None:
    await site.desk.put(signed(good_files(), sequence=8))
    site.clocks.pass_time(1)
    await site.poll()
    assert [bundle.sequence for bundle in site.in_force] == [7, 8]
    assert site.guard.lease.statement is not None and site.guard.lease.statement.bundle.sequence == 8


async def test_lease_ends_when_the_service_is_gone(site: Site) -> None:
    site.spoil = BundleUnavailable("bundle_service_unreachable", "cut off")
    site.clocks.pass_time(599)
    assert site.guard.holds()
    site.clocks.pass_time(1)
    assert not site.guard.holds() and site.client.status().remaining_seconds == 0


async def test_lease_begins_again_when_the_service_is_back(site: Site) -> None:
    site.clocks.pass_time(10_000)
    assert not site.guard.holds()
    await site.poll()
    assert site.guard.holds() and len(site.in_force) == 1


CLOCKS: dict[str, tuple[float, float]] = {
    "went back": (-1, 10),
    "went back to yesterday": (-86_400, 10),
    "jumped past the end": (600, 10),
    "stood still while the machine slept past the end": (0, 600),
}


@pytest.mark.parametrize("case", CLOCKS)
async def test_lease_does_not_hold_when_the_clock(case: str, site: Site) -> None:
    wall, boot = CLOCKS[case]
    site.clocks.wall += wall
    site.clocks.boot += boot
    assert not site.guard.holds()


async def test_lease_is_not_extended_when_the_clock_went_back(site: Site) -> None:
    site.clocks.wall -= 10
    with pytest.raises(BundleRefused) as refused:
        await site.poll()
    assert refused.value.code in ("freshness_clock_back", "freshness_replayed")
    assert not site.guard.holds()


ELEVEN = NOW + 11
BAD_ON_304: dict[str, tuple[Callable[[Fetched], Fetched], str]] = {
    "lacks its statement": (freshness(None), "freshness_missing"),
    "has an empty statement": (freshness(""), "freshness_missing"),
    "has an expired statement": (freshness(stated(OURS, now=NOW - 700)), "freshness_expired"),
    "has yesterday's statement": (freshness(stated(OURS, now=NOW - 86_400)), "freshness_expired"),
    "has an earlier statement": (freshness(stated(OURS, now=NOW - 60)), "freshness_replayed"),
    "has a statement from the future": (freshness(stated(OURS, now=ELEVEN + 31)), "freshness_future"),
    "has a statement about another archive": (
        freshness(stated(replace(OURS, digest="sha256:" + "b" * 64), now=ELEVEN)),
        "freshness_other_digest",
    ),
    "has a statement about a lower sequence": (
        freshness(stated(replace(OURS, sequence=6), now=ELEVEN)),
        "freshness_sequence",
    ),
    "has a statement about another bundle": (
        freshness(stated(replace(OURS, name="side"), now=ELEVEN)),
        "freshness_other_bundle",
    ),
    "has a statement of an unknown key": (freshness(stated(OURS, now=ELEVEN, key="theirs")), "freshness_key_unknown"),
    "has a statement that holds for ever": (
        freshness(payload(digest=OURS.digest, iat=ELEVEN, exp=ELEVEN + 10**6)),
        "freshness_invalid",
    ),
    "is a 500": (lambda fetched: replace(fetched, status=500), "bundle_service_status"),
    "is a redirect": (lambda fetched: replace(fetched, status=302), "bundle_service_status"),
    "is a 204": (lambda fetched: replace(fetched, status=204), "bundle_service_status"),
    "is a page with 200": (
        lambda fetched: Fetched(200, {**fetched.unverified_headers, "content-type": "text/html"}, b"<html>"),
        "bundle_service_answer",
    ),
    "is a page that says it is a bundle": (
        lambda fetched: Fetched(200, {**fetched.unverified_headers, "content-type": "application/gzip"}, b"<html>"),
        "bundle_archive_invalid",
    ),
    "is an empty 200": (
        lambda fetched: Fetched(200, {**fetched.unverified_headers, "content-type": "application/gzip"}, b""),
        "bundle_archive_invalid",
    ),
    "is a 200 without a type": (lambda fetched: Fetched(200, fetched.unverified_headers, RAW), "bundle_service_answer"),
}


@pytest.mark.parametrize("fault", BAD_ON_304)
async def test_lease_is_not_extended_when_the_answer(fault: str, site: Site) -> None:
    site.spoil, code = BAD_ON_304[fault]
    site.clocks.pass_time(11)
    with pytest.raises(BundleError) as refused:
        await site.poll()
    assert refused.value.code == code
    assert site.client.status().remaining_seconds == 589 and len(site.in_force) == 1


async def test_whole_bundle_is_asked_for_when_304_spoke_of_another(site: Site) -> None:
    newer = signed(good_files(), sequence=8)
    await site.desk.put(newer)
    site.clocks.pass_time(1)
    about = BundleIdentity("main", f"sha256:{sha256_hex(newer)}", 8)
    site.spoil = lambda _: Fetched(304, {"tidegate-freshness": stated(about, now=NOW + 1)})
    with pytest.raises(BundleRefused):
        await site.poll()
    site.spoil = None
    await site.poll()
    assert "If-None-Match" not in dict(site.asked[-1].headers)
    assert [bundle.sequence for bundle in site.in_force] == [7, 8]


async def test_lease_is_extended_when_the_etag_lies_and_the_same_bundle_comes_whole(site: Site) -> None:
    site.clocks.pass_time(60)
    token = stated(OURS, now=NOW + 60)
    kind = {"content-type": "application/gzip", "etag": '"other"', "tidegate-freshness": token}
    site.spoil = lambda _: Fetched(200, kind, RAW)
    await site.poll()
    assert site.client.status().remaining_seconds == 600 and len(site.in_force) == 1


def offered(
    raw: bytes, sequence: int, *, about: bytes | None = None, now: int = NOW + 11
) -> Callable[[Fetched], Fetched]:
    """A 200 with any bundle and a proper statement."""
    identity = BundleIdentity("main", f"sha256:{sha256_hex(about or raw)}", sequence)
    token = stated(identity, now=now)
    return lambda _: Fetched(200, {"content-type": "application/gzip", "tidegate-freshness": token}, raw)


OLDER = signed(good_files(), sequence=6)
TWIN = signed({**good_files(), "chains/data.json": b"{}"}, sequence=7)
NEWER = signed(good_files(), sequence=8)

BAD_OFFERS: dict[str, tuple[Callable[[Fetched], Fetched], str]] = {
    "is a captured older one, with a fresh statement": (offered(OLDER, 6), "bundle_rollback"),
    "has the sequence held and another content": (offered(TWIN, 7), "bundle_sequence_reused"),
    "is signed by another key": (
        offered(sign_files(good_files(), signing_key("theirs"), OPTIONS), 7),
        "bundle_signature_invalid",
    ),
    "is for another audience": (offered(signed(good_files(), sequence=8, audience="x"), 8), "bundle_audience_mismatch"),
    "is of another epoch": (offered(signed(good_files(), sequence=8, epoch=1), 8), "bundle_epoch_mismatch"),
    "came with a statement about another archive": (offered(NEWER, 8, about=RAW), "freshness_other_digest"),
    "came with a statement about another sequence": (offered(NEWER, 9), "freshness_sequence"),
    "came with an earlier statement": (offered(NEWER, 8, now=NOW - 1), "freshness_replayed"),
    "came with an expired statement": (offered(NEWER, 8, now=NOW - 600), "freshness_expired"),
}


@pytest.mark.parametrize("fault", BAD_OFFERS)
async def test_bundle_is_not_taken_when_it(fault: str, site: Site) -> None:
    site.spoil, code = BAD_OFFERS[fault]
    site.clocks.pass_time(11)
    with pytest.raises(BundleRefused) as refused:
        await site.poll()
    assert refused.value.code == code
    assert [bundle.sequence for bundle in site.in_force] == [7]
    assert site.client.status().remaining_seconds == 589


async def test_older_bundle_is_not_taken_after_a_restart_when_it_was_captured(site: Site) -> None:
    site.restarted()
    assert await site.client.restore() is not None
    site.clocks.pass_time(11)
    site.spoil = offered(OLDER, 6)
    with pytest.raises(BundleRefused) as refused:
        await site.poll()
    assert refused.value.code == "bundle_rollback"


async def test_older_bundle_is_not_taken_when_everything_but_the_sequence_was_lost(site: Site) -> None:
    for name in ("bundle.tar.gz", "lease.json"):
        (site.folder / name).unlink()
    site.restarted()
    assert await site.client.restore() is None
    site.clocks.pass_time(11)
    site.spoil = offered(OLDER, 6)
    with pytest.raises(BundleRefused) as refused:
        await site.poll()
    assert refused.value.code == "bundle_rollback"


async def test_nothing_is_taken_when_304_comes_before_anything_was_held(tmp_path: Path) -> None:
    site = await asyncio.to_thread(Site, tmp_path)
    site.spoil = lambda _: Fetched(304, {"tidegate-freshness": stated(OURS)})
    with pytest.raises(BundleUnavailable) as refused:
        await site.poll()
    assert refused.value.code == "bundle_service_answer" and not site.guard.holds()


AFTER_RESTART: dict[str, tuple[float, float, str, bool]] = {
    "at once": (0, 0, "boot-1", True),
    "within the lease": (300, 300, "boot-1", True),
    "past the lease": (600, 600, "boot-1", False),
    "with the clock back": (-5, 10, "boot-1", False),
    "of the machine within the lease": (300, -900, "boot-2", True),
    "of the machine with the clock back": (-5, -900, "boot-2", False),
    "of the machine past the lease": (700, -900, "boot-2", False),
}


@pytest.mark.parametrize("case", AFTER_RESTART)
async def test_bundle_kept_on_disk_decides_only_on_its_lease_after_a_restart(case: str, site: Site) -> None:
    wall, boot, start, holds = AFTER_RESTART[case]
    site.clocks.wall += wall
    site.clocks.boot += boot
    site.clocks.start = start
    site.restarted()
    bundle = await site.client.restore()
    assert bundle is not None and bundle.sequence == 7
    assert site.guard.holds() is holds


async def lose_lease(site: Site) -> None:
    (site.folder / "lease.json").unlink()


async def garble_lease(site: Site) -> None:
    (site.folder / "lease.json").write_bytes(b"{")


async def other_statement(site: Site) -> None:
    other = BundleIdentity("main", "sha256:" + "b" * 64, 7)
    raw = (site.folder / "lease.json").read_text()
    token = site.guard.lease.statement.token if site.guard.lease.statement else ""
    (site.folder / "lease.json").write_text(raw.replace(token, stated(other)))


async def other_key(site: Site) -> None:
    site.freshness_keys = (NEXT_KEY,)


NO_LEASE: dict[str, Callable[[Site], Awaitable[None]]] = {
    "its lease was lost": lose_lease,
    "its lease was garbled": garble_lease,
    "its lease is about another archive": other_statement,
    "its lease's key is trusted no longer": other_key,
}


@pytest.mark.parametrize("case", NO_LEASE)
async def test_bundle_kept_on_disk_decides_nothing_after_a_restart_when(case: str, site: Site) -> None:
    await NO_LEASE[case](site)
    site.restarted()
    assert await site.client.restore() is not None
    assert not site.guard.holds()


async def test_highest_time_is_kept_when_the_freshness_key_changed(site: Site) -> None:
    await other_key(site)
    site.clocks.wall -= 5
    site.restarted()
    await site.client.restore()
    assert site.guard.lease.highest_wall_seconds == NOW
    assert site.client.status().error_code == "freshness_key_unknown"


async def test_bundle_kept_on_disk_is_not_used_when_it_was_altered(site: Site) -> None:
    raw = bytearray((site.folder / "bundle.tar.gz").read_bytes())
    raw[len(raw) // 2] ^= 1
    (site.folder / "bundle.tar.gz").write_bytes(bytes(raw))
    site.restarted()
    assert await site.client.restore() is None and not site.guard.holds()


async def test_bundle_kept_on_disk_is_not_used_when_its_key_was_removed(site: Site) -> None:
    site.trust = trust(keys=TEAM)
    site.restarted()
    assert await site.client.restore() is None
    assert site.client.status().error_code == "bundle_key_unknown"


async def test_wall_time_is_remembered_on_disk_when_observed(site: Site) -> None:
    site.clocks.pass_time(300)
    await site.client.observe()
    site.clocks.wall -= 1
    site.restarted()
    await site.client.restore()
    assert site.guard.lease.highest_wall_seconds == NOW + 300 and not site.guard.holds()


async def test_keys_may_change_when_old_and_new_overlap(site: Site) -> None:
    site.freshness_keys = (KEY, NEXT_KEY)
    site.restarted()
    await site.client.restore()
    assert site.guard.holds()
    site.clocks.pass_time(5)
    site.spoil = freshness(stated(OURS, now=NOW + 5, key="freshness-2"))
    await site.poll()
    site.freshness_keys = (NEXT_KEY,)
    site.restarted()
    await site.client.restore()
    assert site.guard.holds()


async def test_bundle_is_taken_when_the_epoch_was_raised_and_the_sequence_began_anew(site: Site) -> None:
    site.trust = trust(epoch=1)
    site.restarted()
    assert await site.client.restore() is None
    anew = signed(good_files(), sequence=1, epoch=1)
    site.spoil = offered(anew, 1, now=NOW + 1)
    site.clocks.pass_time(1)
    site.remembered_as = "main#1"
    await site.poll()
    assert [bundle.epoch for bundle in site.in_force] == [0, 1] and site.guard.holds()


async def test_bundle_is_taken_only_with_enough_cosignatures_when_two_are_required(site: Site) -> None:
    site.trust = trust(threshold=2, keys=(*trust().keys, *TEAM))
    site.restarted()
    assert await site.client.restore() is None
    digest = f"sha256:{sha256_hex(NEWER)}"
    site.clocks.pass_time(1)
    for names in ((), ("anna",)):
        envelope = signed_by(*names, digest=digest)
        given = encode_cosignatures(envelope) if envelope else None
        site.spoil = lambda fetched, given=given: with_header("tidegate-cosignatures", given)(
            offered(NEWER, 8)(fetched)
        )
        with pytest.raises(BundleRefused) as refused:
            await site.poll()
        assert refused.value.code == "bundle_threshold"
    both = encode_cosignatures(signed_by("anna", "bert", digest=digest))
    site.spoil = lambda fetched: with_header("tidegate-cosignatures", both)(offered(NEWER, 8, now=NOW + 1)(fetched))
    await site.poll()
    assert site.in_force[-1].keyids == ("anna", "bert")
    site.restarted()
    assert await site.client.restore() is not None and site.guard.holds()


async def test_old_bundle_and_its_lease_stay_when_the_new_one_cannot_be_put_in_force(site: Site) -> None:
    await site.desk.put(NEWER)
    site.refuses_to_install = BundleRefused("policy_probe_mismatch", "a probe differs")
    site.clocks.pass_time(60)
    running = asyncio.create_task(site.client.run(site.install, site.say))
    while not site.said:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    status = site.client.status()
    assert (status.error_code, status.remaining_seconds, status.failures) == ("policy_probe_mismatch", 540, 1)
    assert site.client.held == OURS


async def test_bundle_is_kept_when_following_ends_while_it_comes_into_force(site: Site) -> None:
    await site.desk.put(NEWER)

    async def install(bundle: TrustedBundle) -> None:
        await site.install(bundle)
        running.cancel()
        await asyncio.sleep(0.01)

    running = asyncio.create_task(site.client.run(install, site.say))
    await asyncio.wait([running])
    assert running.cancelled() and [bundle.sequence for bundle in site.in_force] == [7, 8]
    site.restarted()
    restored = await site.client.restore()
    assert restored is not None and restored.sequence == 8 and site.guard.holds()


async def test_following_ends_when_a_bundle_does_not_come_into_force(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundles.client.TAKING_SECONDS", 0.05)
    await site.desk.put(NEWER)

    async def install(bundle: TrustedBundle) -> None:
        running.cancel()
        await asyncio.Event().wait()

    running = asyncio.create_task(site.client.run(install, site.say))
    async with asyncio.timeout(5):
        await asyncio.wait([running])
    assert running.cancelled() and site.client.held == OURS


async def test_run_takes_what_is_published_when_the_service_comes_back(tmp_path: Path) -> None:
    site = await asyncio.to_thread(lambda: Site(tmp_path, lease_seconds=1))
    site.spoil = BundleUnavailable("bundle_service_unreachable", "down")
    running = asyncio.create_task(site.client.run(site.install, site.say))
    while not site.said:
        await asyncio.sleep(0)
    site.spoil = None
    await site.desk.put(RAW)
    async with asyncio.timeout(10):
        while not site.guard.holds():
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
    assert site.said[0] == "bundle_service_unreachable" and site.client.status().error_code is None


async def test_first_gives_up_with_the_last_error_when_no_bundle_comes_in_time(tmp_path: Path) -> None:
    site = await asyncio.to_thread(lambda: Site(tmp_path, lease_seconds=1))
    with pytest.raises(BundleUnavailable) as refused:
        await site.client.first(0.3)
    assert refused.value.code == "bundle_service_status" and len(site.asked) >= 2


async def test_question_may_be_held_only_while_the_lease_leaves_time(site: Site) -> None:
    site.settings = replace(site.settings, long_poll=True)
    site.restarted()
    await site.client.restore()
    site.spoil = lambda _: Fetched(304, {"tidegate-freshness": stated(OURS, now=int(site.clocks.wall))})
    await site.poll()
    assert dict(site.asked[-1].headers)["Prefer"] == "modes=snapshot;wait=60"
    site.clocks.pass_time(500)
    await site.poll()
    assert dict(site.asked[-1].headers)["Prefer"] == "modes=snapshot"


DELAYS = {
    "after a held answer": (0, 30.0, (0.0, 0.1)),
    "after a quick answer": (0, 0.01, (30.0, 60.0)),
    "after the first failure": (1, 0.01, (0.125, 0.25)),
    "after the second failure": (2, 0.01, (0.25, 0.5)),
    "after many failures": (1000, 0.01, (30.0, 60.0)),
}


@pytest.mark.parametrize("case", DELAYS)
def test_delay_is_spread_within_its_bounds(case: str) -> None:
    failures, took, bounds = DELAYS[case]
    given = tuple(
        delay_seconds(ClientSettings(), failures=failures, took_seconds=took, chance=chance) for chance in (0.0, 1.0)
    )
    assert given == pytest.approx(bounds)


def test_interval_is_a_quarter_of_the_lease_when_that_is_shorter() -> None:
    assert ClientSettings(lease_seconds=100).interval_seconds == 25.0
    assert ClientSettings(lease_seconds=3).wait_seconds == 0
