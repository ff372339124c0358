"""A lease's record under another configuration than it was written with, and with what somebody wrote into it."""

from __future__ import annotations

import json

import pytest

from bundles.lease import ClockReading, Lease, restored
from tests.bundles.parts import NOW
from tests.bundles.test_freshness import KEY
from tests.bundles.test_lease import START, later, leased

SOON = 60.0
SOMETIME = 10**12


def _altered(ends_boot_ms: int) -> bytes:
    return json.dumps({**json.loads(leased().record()), "ends_boot_ms": ends_boot_ms}).encode()


def _read(raw: bytes, clocks: ClockReading, *, longest: float = SOON) -> Lease:
    return restored(raw, (KEY,), clocks, longest_seconds=longest)


def test_lease_is_cut_when_the_longest_one_was_made_shorter_before_the_restart() -> None:
    assert _read(leased().record(), later(100)).remaining_seconds(later(100)) == SOON


def test_lease_is_cut_when_its_record_promises_more_than_the_longest_one() -> None:
    held = _read(_altered(SOMETIME), later(100))
    assert held.remaining_seconds(later(100)) == SOON
    assert held.bounds() == (float(NOW), float(NOW + 600), START.boot_seconds + 100 + SOON)


def test_lease_is_not_lengthened_when_its_record_says_less() -> None:
    held = _read(_altered(int((START.boot_seconds + 110) * 1000)), later(100), longest=600.0)
    assert held.remaining_seconds(later(100)) == pytest.approx(10.0)


def test_lease_ends_by_the_wall_clock_when_another_boot_wrote_the_record() -> None:
    started = ClockReading(NOW + 590.0, 1.0, "boot-2")
    assert _read(_altered(SOMETIME), started, longest=600.0).remaining_seconds(started) == pytest.approx(10.0)


def test_lease_takes_no_end_from_its_record_when_nobody_can_tell_the_boots_apart() -> None:
    nameless = ClockReading(START.wall_seconds, START.boot_seconds, "")
    raw = json.dumps({**json.loads(_altered(int((START.boot_seconds + 1) * 1000))), "boot": ""}).encode()
    assert _read(raw, nameless).remaining_seconds(nameless) == SOON
