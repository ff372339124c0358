"""Refusals of a listener itself: each is counted, a flood is said by samples."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.edge.problem import refusal
from gateway.operations.edge_refusals import LINES_PER_SECOND_MAX, EdgeRefusals


class Seen:
    """What was counted and said, and a clock set by hand."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        self.said: list[dict[str, object]] = []
        self.now = 100.0
        self.told = EdgeRefusals("gate", self.codes.append, self._say, lambda: self.now)

    def _say(self, fields: Mapping[str, object]) -> None:
        self.said.append(dict(fields))

    def refuse(self, times: int = 1) -> None:
        for _ in range(times):
            self.told(refusal("uri_too_long", "too long"), "192.0.2.1")


def test_refusal_is_counted_and_said_when_it_is_the_first() -> None:
    seen = Seen()
    seen.refuse()
    assert seen.codes == ["uri_too_long"]
    fields = {"listener": "gate", "peer": "192.0.2.1", "status": 414, "code": "uri_too_long", "detail": "too long"}
    assert seen.said == [fields]


def test_refusals_are_all_counted_and_said_by_samples_when_there_are_many() -> None:
    seen = Seen()
    seen.refuse(LINES_PER_SECOND_MAX)
    assert len(seen.said) == LINES_PER_SECOND_MAX
    seen.refuse(5)
    seen.now += 0.999
    seen.refuse()
    assert len(seen.said) == LINES_PER_SECOND_MAX
    assert len(seen.codes) == LINES_PER_SECOND_MAX + 6


def test_next_line_says_how_many_were_left_out_when_a_second_has_passed() -> None:
    seen = Seen()
    seen.refuse(LINES_PER_SECOND_MAX + 7)
    seen.now += 1.0
    seen.refuse(2)
    assert [line.get("omitted") for line in seen.said[-3:]] == [None, 7, None]
