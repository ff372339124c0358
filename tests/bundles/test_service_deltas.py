"""Deltas at the bundle service: who gets one, from what, how much is kept, and that nobody else notices."""

from __future__ import annotations

import asyncio
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from bundles import service_deltas
from bundles.canonical import sha256_hex
from bundles.delta import apply_delta, make_delta
from bundles.delta_envelope import SealedDelta, open_delta
from bundles.freshness import BundleIdentity, OnlineKey, verify_statement
from bundles.service_config import load_service_config
from bundles.service_deltas import DeltaDesk
from bundles.service_protocol import ServiceAnswer, asks_for_delta, digests_in
from bundles.service_shelf import Publication, Shelved
from tests.bundles.parts import NOW, good_files, signed, signing_key
from tests.bundles.test_freshness import KEY
from tests.bundles.test_service import CONFIG, Desk, header, identity, write_directory

WANTED = {"a_im": "tidegate-delta"}


@lru_cache(maxsize=32)
def large(sequence: int, *, line: str = "", **options: int) -> bytes:
    """A bundle with some 30 KB of data, one line of which is given."""
    lines = [f'"u{number:04d}":"{sha256_hex(str(number).encode())}"' for number in range(600)]
    lines[300] = f'"u0300":"{line or sequence}"'
    return signed(
        {**good_files(), "chains/data.json": ("{" + ",".join(lines) + "}").encode()}, sequence=sequence, **options
    )


def etag(raw: bytes) -> str:
    return f'"sha256:{sha256_hex(raw)}"'


def opened(answer: ServiceAnswer, base: bytes, sequence: int, *, now: float = NOW) -> SealedDelta:
    """The delta in an answer, checked as a gate does."""
    assert header(answer, "Content-Type") == "application/vnd.tidegate.bundle-delta+json"
    return open_delta(answer.body, (KEY,), identity(base, sequence), epoch=0, now=now)


@pytest.fixture
async def desk(tmp_path: Path) -> Desk:
    """A service that served sequence 1 and serves sequence 2."""
    made = await asyncio.to_thread(lambda: Desk(write_directory(tmp_path)))
    await made.put(large(1))
    await made.put(large(2))
    return made


async def test_delta_leads_to_what_is_served_when_the_client_asks_and_has_the_one_before(desk: Desk) -> None:
    answer = await desk.ask("GET", if_none_match=etag(large(1)), **WANTED)
    assert answer.status == 226 and len(answer.body) < len(large(2)) / 5
    assert apply_delta(large(1), opened(answer, large(1), 1).archive) == large(2)
    assert header(answer, "IM") == "tidegate-delta" and header(answer, "Delta-Base") == etag(large(1))
    assert header(answer, "ETag") == etag(large(2)) and header(answer, "Cache-Control") == "no-store"
    token = header(answer, "Tidegate-Freshness") or ""
    assert verify_statement(token, (KEY,), identity(large(2), 2), now=NOW).issued_at == NOW
    assert desk.said[-1][0] == "delta_made"


async def test_delta_leads_over_several_publications_when_the_client_missed_some(desk: Desk) -> None:
    await desk.put(large(3))
    await desk.put(large(4))
    answer = await desk.ask("GET", if_none_match=f'"other", {etag(large(1))}', **WANTED)
    assert apply_delta(large(1), opened(answer, large(1), 1).archive) == large(4)


async def test_delta_comes_out_of_a_long_poll_when_something_is_published(desk: Desk) -> None:
    waiting = asyncio.create_task(
        desk.ask("GET", if_none_match=etag(large(2)), prefer="modes=snapshot;wait=30", **WANTED)
    )
    while not desk.service.waiting:
        await asyncio.sleep(0)
    await desk.put(large(3))
    answer = await waiting
    assert answer.status == 226 and header(answer, "Preference-Applied") == "wait=30"
    assert apply_delta(large(2), opened(answer, large(2), 2).archive) == large(3)


WHOLE: dict[str, dict[str, str]] = {
    "it does not ask": {"if_none_match": etag(large(1))},
    "it asks as stock OPA does": {"if_none_match": etag(large(1)), "prefer": "modes=snapshot,delta"},
    "it asks as stock OPA does for long polls": {"if_none_match": etag(large(1)), "prefer": "modes=snapshot,delta;wait=5"},
    "it asks for another kind": {"if_none_match": etag(large(1)), "a_im": "vcdiff, gzip"},
    "it refuses ours": {"if_none_match": etag(large(1)), "a_im": "vcdiff, tidegate-delta;q=0.0"},
    "it has nothing": WANTED,
    "it has something unknown": {"if_none_match": '"sha256:x"', **WANTED},
}  # fmt: skip


@pytest.mark.parametrize("case", WHOLE)
async def test_whole_bundle_is_served_to_a_client_when(case: str, desk: Desk) -> None:
    answer = await desk.ask("GET", **WHOLE[case])
    assert (answer.status, answer.body) == (200, large(2)) and header(answer, "IM") is None
    assert desk.said[-1][0] == "published"


async def test_head_is_of_the_whole_when_a_delta_is_asked_for(desk: Desk) -> None:
    answer = await desk.ask("HEAD", if_none_match=etag(large(1)), **WANTED)
    assert answer.status == 200 and header(answer, "ETag") == etag(large(2))


async def test_answer_is_304_when_a_delta_is_asked_for_and_nothing_changed(desk: Desk) -> None:
    answer = await desk.ask("GET", if_none_match=f"{etag(large(1))}, {etag(large(2))}", **WANTED)
    assert (answer.status, answer.body) == (304, b"") and header(answer, "Tidegate-Freshness")


async def test_whole_bundle_is_served_when_the_service_has_started_again_and_a_delta_after_the_next(desk: Desk) -> None:
    await asyncio.to_thread(desk.reopened)
    assert (await desk.ask("GET", if_none_match=etag(large(1)), **WANTED)).status == 200
    await desk.put(large(3))
    assert (await desk.ask("GET", if_none_match=etag(large(1)), **WANTED)).status == 200
    assert (await desk.ask("GET", if_none_match=etag(large(2)), **WANTED)).status == 226


async def test_whole_bundle_is_served_when_the_delta_would_not_be_much_smaller(tmp_path: Path) -> None:
    desk = await asyncio.to_thread(lambda: Desk(write_directory(tmp_path)))
    small = signed(good_files(), sequence=1)
    await desk.put(small)
    await desk.put(large(2))
    assert (await desk.ask("GET", if_none_match=etag(small), **WANTED)).status == 200
    assert desk.said[-1][0] == "delta_not_offered"


async def test_delta_is_not_offered_from_another_bundle_of_the_same_name(desk: Desk) -> None:
    await desk.put(large(5), "/bundles/acme/main")
    await desk.put(large(6), "/bundles/acme/main")
    assert (await desk.ask("GET", if_none_match=etag(large(5)), **WANTED)).status == 200
    there = await desk.ask("GET", "/bundles/acme/main", token="", if_none_match=etag(large(5)), **WANTED)
    assert there.status == 226


async def test_envelope_is_kept_and_signed_anew_when_half_its_time_is_over(desk: Desk) -> None:
    first = await desk.ask("GET", if_none_match=etag(large(1)), **WANTED)
    desk.now += 299
    assert (await desk.ask("GET", if_none_match=etag(large(1)), **WANTED)).body == first.body
    desk.now += 1
    later = await desk.ask("GET", if_none_match=etag(large(1)), **WANTED)
    assert opened(later, large(1), 1, now=NOW + 899).head.issued_at == NOW + 300
    assert [what for what, _ in desk.said].count("delta_made") == 1


async def test_delta_is_made_once_when_many_ask_at_the_same_time(desk: Desk) -> None:
    asked = [desk.ask("GET", if_none_match=etag(large(1)), **WANTED) for _ in range(20)]
    assert {answer.status for answer in await asyncio.gather(*asked)} == {226}
    assert [what for what, _ in desk.said].count("delta_made") == 1


def huge(sequence: int) -> bytes:
    """A bundle that takes long to pack."""
    noise = b"".join(sha256_hex(b"%d" % number).encode() for number in range(10_000))
    return signed({**good_files(), "chains/data.json": b'{"%d":"%b"}' % (sequence, noise)}, sequence=sequence)


async def test_newest_is_served_whole_when_it_is_published_while_a_delta_is_made(tmp_path: Path) -> None:
    desk = await asyncio.to_thread(lambda: Desk(write_directory(tmp_path)))
    first, second, third = huge(1), huge(2), large(3)
    await desk.put(first)
    await desk.put(second)
    asking = asyncio.create_task(desk.ask("GET", if_none_match=etag(first), **WANTED))
    await asyncio.sleep(0)
    await desk.put(third)
    answer = await asking
    # Whichever was faster: nothing is offered under a statement about something else.
    served, sequence = (third, 3) if answer.status == 200 else (second, 2)
    token = header(answer, "Tidegate-Freshness") or ""
    verify_statement(token, (KEY,), identity(served, sequence), now=NOW)
    assert answer.status == 226 or answer.body == third


ASKS = {
    "alone": ("tidegate-delta", True),
    "among others": ("vcdiff;q=0.3, Tidegate-Delta ; q=0.5", True),
    "with the lowest quality": ("tidegate-delta;q=0.001", True),
    "refused": ("tidegate-delta;q=0", False),
    "refused at length": ("tidegate-delta;Q=0.000", False),
    "as part of a word": ("x-tidegate-delta", False),
    "as nothing": ("", False),
}


@pytest.mark.parametrize("spelling", ASKS)
def test_delta_is_asked_for_when_the_word_stands(spelling: str) -> None:
    value, expected = ASKS[spelling]
    assert asks_for_delta(value) is expected


def test_digests_are_those_of_the_condition_when_it_names_several() -> None:
    assert digests_in('"a", W/"b"') == ("a", "b") and digests_in("*") == ()


# -- the desk alone ---------------------------------------------------------------------------------------------------


SERVED = load_service_config(CONFIG.encode()).bundles[0]


def shelved(raw: bytes, sequence: int, epoch: int = 0) -> Shelved:
    digest = f"sha256:{sha256_hex(raw)}"
    return Shelved(Publication(digest, sequence, epoch, "r", NOW, "ci", len(raw)), raw, None)


def delta_desk(said: list[str], **options: Any) -> DeltaDesk:
    online = OnlineKey(signing_key("freshness"), "freshness", 600)
    return DeltaDesk(online, lambda: NOW, lambda what, _: said.append(what), **options)


async def test_desk_keeps_the_newest_bases_when_there_are_too_many() -> None:
    made = delta_desk([])
    count = service_deltas.BASES_MAX_COUNT
    for sequence in range(1, count + 2):
        made.remember(SERVED, shelved(large(sequence), sequence))
    target = shelved(large(count + 2), count + 2)
    assert await made.offered(SERVED, etag(large(1)), target) is None
    for sequence in (2, count + 1):
        assert await made.offered(SERVED, etag(large(sequence)), target) is not None


async def test_desk_keeps_within_its_bytes_when_archives_are_large() -> None:
    limit = 2 * len(large(1)) + 10_000
    made = delta_desk([], kept_max_bytes=limit)
    for sequence in (1, 2, 3):
        made.remember(SERVED, shelved(large(sequence), sequence))
    target = shelved(large(4), 4)
    assert await made.offered(SERVED, etag(large(1)), target) is None
    assert await made.offered(SERVED, etag(large(3)), target) is not None
    assert 0 < made.kept_bytes <= limit
    delta_desk([], kept_max_bytes=10).remember(SERVED, shelved(large(1), 1))


NO_WAY = {"the epoch is another": (2, 1), "the sequence is the same": (1, 0), "the sequence is lower": (0, 0)}


@pytest.mark.parametrize("case", NO_WAY)
async def test_desk_offers_nothing_when(case: str) -> None:
    sequence, epoch = NO_WAY[case]
    made = delta_desk([])
    made.remember(SERVED, shelved(large(1), 1))
    target = shelved(large(max(sequence, 1), line="x", epoch=epoch), sequence, epoch)
    assert await made.offered(SERVED, etag(large(1)), target) is None


async def test_desk_says_so_and_offers_nothing_when_what_it_has_is_no_archive() -> None:
    said: list[str] = []
    made = delta_desk(said)
    made.remember(SERVED, shelved(b"no archive", 1))
    assert await made.offered(SERVED, etag(b"no archive"), shelved(large(2), 2)) is None
    assert said == ["delta_failed"]


async def test_desk_says_so_and_offers_nothing_when_making_fails_in_a_way_nobody_thought_of() -> None:
    def broken(base: bytes, target: bytes) -> bytes | None:
        raise MemoryError("none left")

    said: list[str] = []
    made = delta_desk(said, make=broken)
    made.remember(SERVED, shelved(large(1), 1))
    assert await made.offered(SERVED, etag(large(1)), shelved(large(2), 2)) is None
    assert said == ["delta_failed"]


async def test_desk_offers_nothing_yet_when_making_takes_too_long_and_the_delta_once_it_is_made() -> None:
    go_on = threading.Event()

    def slow(base: bytes, target: bytes) -> bytes | None:
        go_on.wait(30)
        return make_delta(base, target)

    said: list[str] = []
    made = delta_desk(said, make=slow, make_seconds=0.01)
    made.remember(SERVED, shelved(large(1), 1))
    target = shelved(large(2), 2)
    assert await made.offered(SERVED, etag(large(1)), target) is None
    assert await made.offered(SERVED, etag(large(1)), target) is None
    go_on.set()
    async with asyncio.timeout(30):
        while not said:
            await asyncio.sleep(0.01)
    assert await made.offered(SERVED, etag(large(1)), target) is not None
    assert said == ["delta_made"]


async def test_desk_offers_nothing_when_it_was_closed_while_making() -> None:
    made = delta_desk([])
    made.remember(SERVED, shelved(large(1), 1))
    asking = asyncio.create_task(made.offered(SERVED, etag(large(1)), shelved(large(2), 2)))
    await asyncio.sleep(0)
    made.close()
    assert await asking is None


async def test_desk_makes_the_way_to_the_newer_when_the_older_was_not_done() -> None:
    made = delta_desk([])
    made.remember(SERVED, shelved(large(1), 1))
    older, newer = await asyncio.gather(
        made.offered(SERVED, etag(large(1)), shelved(large(2), 2)),
        made.offered(SERVED, etag(large(1)), shelved(large(3), 3)),
    )
    assert older is not None and newer is not None
    base = BundleIdentity("main", f"sha256:{sha256_hex(large(1))}", 1)
    heads = [open_delta(offer.envelope, (KEY,), base, epoch=0, now=NOW).head for offer in (older, newer)]
    assert [head.target.sequence for head in heads] == [2, 3]
