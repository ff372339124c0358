"""A sample of many like lines: the first ones, then some a second, and what was left out is said."""

from __future__ import annotations

from gateway.operations.sampling import BURST_LINES, LINES_PER_SECOND, LineSampler


def _flooded() -> LineSampler:
    sampler = LineSampler()
    assert [sampler.left_out("a", 0.0) for _ in range(BURST_LINES)] == [0] * BURST_LINES
    return sampler


def test_line_is_left_out_when_the_burst_is_over() -> None:
    assert _flooded().left_out("a", 0.0) is None


def test_line_says_how_many_were_left_out_when_there_is_room_again() -> None:
    sampler = _flooded()
    assert [sampler.left_out("a", 0.01 * number) for number in range(10)] == [None] * 10
    later = 1 / LINES_PER_SECOND + 0.1
    assert [sampler.left_out("a", later), sampler.left_out("a", later)] == [10, None]


def test_line_is_written_when_the_flood_is_of_another_kind() -> None:
    assert _flooded().left_out("b", 0.0) == 0


def test_line_is_left_out_when_the_clock_goes_back() -> None:
    assert _flooded().left_out("a", -1000.0) is None


def test_lines_are_no_more_than_a_burst_when_it_was_quiet_for_long() -> None:
    sampler = _flooded()
    written = [sampler.left_out("a", 1e6) for _ in range(2 * BURST_LINES)]
    assert written.count(0) == BURST_LINES
