"""The lease under clocks that jump, stop, sleep and restart."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundles.errors import BundleRefused
from bundles.freshness import read_statement
from bundles.lease import ClockReading, Lease, restored
from tests.bundles.parts import NOW
from tests.bundles.test_freshness import KEY, NEXT_KEY, OURS, stated

LONGEST = 600.0
START = ClockReading(float(NOW), 5_000.0, "boot-1")


def later(seconds: float, *, wall: float | None = None, base: ClockReading = START) -> ClockReading:
    """``seconds`` after ``base`` on the boot clock; ``wall`` says how far the wall clock got instead."""
    moved = seconds if wall is None else wall
    return replace(base, wall_seconds=base.wall_seconds + moved, boot_seconds=base.boot_seconds + seconds)


def leased(*, now: int = NOW, ttl: int = 600, clocks: ClockReading = START) -> Lease:
    """A lease armed once."""
    return armed(Lease(), now=now, ttl=ttl, clocks=clocks)


def armed(lease: Lease, *, now: int = NOW, ttl: int = 600, clocks: ClockReading = START, bundle: Any = OURS) -> Lease:
    statement = read_statement(stated(bundle, now=now, ttl=ttl), (KEY,))
    return lease.armed(statement, clocks, longest_seconds=LONGEST)


def test_lease_holds_nothing_when_it_never_began() -> None:
    assert not Lease().holds(START)


ENDED = {
    "both clocks passed the end": later(600),
    "the machine slept and the wall clock stood still": later(600, wall=0),
    "the wall clock jumped forward past the end": later(1, wall=600),
    "the wall clock jumped forward by a year": later(1, wall=31_536_000),
    "the wall clock went back before the highest time seen": later(10, wall=-1),
    "the wall clock went back to yesterday": later(10, wall=-86_400),
    "the machine was started anew under the running process": replace(START, boot="boot-2", boot_seconds=1.0),
}


@pytest.mark.parametrize("case", ENDED)
def test_lease_has_ended_when(case: str) -> None:
    assert leased().remaining_seconds(ENDED[case]) == 0.0


HOLDS = {
    "no time has passed": (START, 600.0),
    "half the time has passed": (later(300), 300.0),
    "the wall clock runs slow": (later(300, wall=100), 300.0),
    "the wall clock runs fast": (later(100, wall=300), 300.0),
    "one millisecond is left": (later(599.999), 0.001),
}


@pytest.mark.parametrize("case", HOLDS)
def test_lease_still_holds_when(case: str) -> None:
    clocks, left = HOLDS[case]
    assert leased().remaining_seconds(clocks) == pytest.approx(left, abs=1e-6)


def test_lease_is_never_longer_than_configured_when_the_statement_allows_more() -> None:
    assert leased(ttl=900).remaining_seconds(START) == LONGEST


def test_lease_counts_from_the_statement_when_it_arrived_late() -> None:
    assert leased(clocks=later(500)).remaining_seconds(later(500)) == 100.0


def test_lease_is_extended_when_a_later_statement_arrives() -> None:
    extended = armed(leased(), now=NOW + 60, clocks=later(60))
    assert extended.remaining_seconds(later(60)) == 600.0
    assert extended.holds(later(659)) and not leased().holds(later(659))


def test_lease_stays_as_it_is_when_the_same_statement_arrives_again() -> None:
    held = leased()
    assert armed(held, clocks=later(60)) is held


def test_lease_is_not_extended_when_the_wall_clock_went_back_before_the_same_statement() -> None:
    held = leased().observed(later(300))
    with pytest.raises(BundleRefused) as refused:
        armed(held, now=NOW + 1, clocks=later(301, wall=0))
    assert refused.value.code == "freshness_clock_back"


REPLAYED = {
    "an earlier statement arrives": {"now": NOW + 59},
    "yesterday's statement arrives": {"now": NOW - 86_400},
    "another bundle's statement of the same second arrives": {"now": NOW + 60, "bundle": replace(OURS, sequence=6)},
}


@pytest.mark.parametrize("case", REPLAYED)
def test_lease_is_not_extended_when(case: str) -> None:
    held = armed(leased(), now=NOW + 60, clocks=later(60))
    with pytest.raises(BundleRefused) as refused:
        armed(held, clocks=later(61), **REPLAYED[case])
    assert refused.value.code == "freshness_replayed"


def test_lease_follows_a_new_bundle_when_it_is_published_within_the_second() -> None:
    fresh = replace(OURS, sequence=8, digest="sha256:" + "c" * 64)
    moved = armed(leased(), bundle=fresh, clocks=later(1))
    assert moved.statement is not None and moved.statement.bundle == fresh


def test_lease_begins_again_when_a_clock_that_had_jumped_is_put_right() -> None:
    jumped = later(1, wall=86_400)
    held = leased().observed(jumped)
    assert not held.holds(jumped) and held.highest_wall_seconds == NOW
    assert armed(held, now=NOW + 2, clocks=later(2)).holds(later(3))


def kept(lease: Lease, clocks: ClockReading, *, keys: Any = (KEY,)) -> Lease:
    """What a restart reads back."""
    return restored(lease.record(), keys, clocks, longest_seconds=LONGEST)


AFTER_RESTART = {
    "at once": (START, 600.0),
    "after half the time": (later(300), 300.0),
    "of the machine, which took a minute": (ClockReading(NOW + 60.0, 3.0, "boot-2"), 540.0),
    "after a sleep while the wall clock stood still": (later(400, wall=0), 200.0),
}


@pytest.mark.parametrize("case", AFTER_RESTART)
def test_lease_goes_on_after_a_restart(case: str) -> None:
    clocks, left = AFTER_RESTART[case]
    assert kept(leased(), clocks).remaining_seconds(clocks) == pytest.approx(left, abs=0.001)


ENDED_BY_RESTART = {
    "past its end": later(601),
    "asleep past its end": later(601, wall=0),
    "with the clock back": later(10, wall=-5),
    "of the machine with the clock back": ClockReading(NOW - 100.0, 3.0, "boot-2"),
    "of the machine past its end": ClockReading(NOW + 600.0, 3.0, "boot-2"),
}


@pytest.mark.parametrize("case", ENDED_BY_RESTART)
def test_lease_has_ended_after_a_restart(case: str) -> None:
    clocks = ENDED_BY_RESTART[case]
    assert not kept(leased(), clocks).holds(clocks)


def test_lease_remembers_the_highest_time_when_it_was_observed_before_a_restart() -> None:
    held = leased().observed(later(300))
    back = later(301, wall=299)
    assert held.holds(later(301)) and not kept(held, back).holds(back)
    with pytest.raises(BundleRefused):
        armed(kept(held, back), now=NOW + 299, clocks=back)


def test_lease_is_refused_after_a_restart_when_its_key_is_trusted_no_longer() -> None:
    with pytest.raises(BundleRefused) as refused:
        kept(leased(), START, keys=(NEXT_KEY,))
    assert refused.value.code == "freshness_key_unknown"


def test_lease_is_no_longer_than_signed_when_its_record_was_altered() -> None:
    document = {**json.loads(leased().record()), "ends_boot_ms": 10**12}
    altered = restored(json.dumps(document).encode(), (KEY,), later(100), longest_seconds=LONGEST)
    assert altered.remaining_seconds(later(100)) == 500.0


def test_record_of_no_lease_keeps_the_highest_time_when_read_back() -> None:
    held = Lease(highest_wall_seconds=float(NOW))
    assert kept(held, START) == held


def test_record_is_readable_when_the_lease_ended_before_the_machine_started() -> None:
    started = ClockReading(NOW + 10_000.0, 3.0, "boot-2")
    ended = kept(leased(), started)
    assert not kept(ended, started).holds(started)


BAD_RECORDS = {
    "is no JSON": b"{",
    "is a list": b"[]",
    "is of another version": json.dumps({**json.loads(leased().record()), "v": 2}).encode(),
    "lacks a member": b'{"v":1}',
    "has a member more": json.dumps({**json.loads(leased().record()), "x": 1}).encode(),
    "has a time in words": json.dumps({**json.loads(leased().record()), "ends_boot_ms": "soon"}).encode(),
    "has a time below zero": json.dumps({**json.loads(leased().record()), "highest_wall_ms": -1}).encode(),
    "has a statement that is a number": json.dumps({**json.loads(leased().record()), "statement": 1}).encode(),
    "has a machine start that is a number": json.dumps({**json.loads(leased().record()), "boot": 1}).encode(),
    "is too long": b" " * 20_000,
}


@pytest.mark.parametrize("fault", BAD_RECORDS)
def test_record_is_refused_when_it(fault: str) -> None:
    with pytest.raises(BundleRefused) as refused:
        restored(BAD_RECORDS[fault], (KEY,), START, longest_seconds=LONGEST)
    assert refused.value.code == "lease_record_invalid"


STEP = st.tuples(st.floats(0, 400), st.floats(-2_000, 2_000), st.booleans())


@given(st.lists(STEP, max_size=12))
def test_lease_never_outlives_its_statement_whatever_the_clocks_do(steps: list[tuple[float, float, bool]]) -> None:
    lease, clocks = leased(), START
    for slept, jumped, restarts in steps:
        clocks = later(slept, wall=slept + jumped, base=clocks)
        if restarts:
            lease = kept(lease, clocks)
        lease = lease.observed(clocks)
        if lease.holds(clocks):
            assert clocks.wall_seconds < NOW + 600
            assert clocks.boot_seconds < START.boot_seconds + 600 + 0.01
            assert clocks.wall_seconds >= NOW
