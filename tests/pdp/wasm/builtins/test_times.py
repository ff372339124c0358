"""``time.*``: operands that are instants, dates that are added, differences, and what is undefined or declined."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from pdp.wasm.builtins.times import BUILTINS, STEP_MAX
from pdp.wasm.builtins.values import Declined, RegoSet, Undefined

SECOND = 10**9
DAY = 86_400 * SECOND
INSTANT = 1_709_214_307 * SECOND
"""Thursday, 29 February 2024, 13:45:07 UTC."""
SPRING = 1_679_792_400 * SECOND
"""26 March 2023, 01:00 UTC: clocks in the European Union go forward."""
AUTUMN = 1_698_541_200 * SECOND
"""29 October 2023, 01:00 UTC: they go back."""
BERLIN = "Europe/Berlin"
INT64_MAX = 2**63 - 1

ANSWERS: dict[str, tuple[str, list[Any], Any]] = {
    "a date": ("date", [INSTANT], [2024, 2, 29]),
    "a date before 1970": ("date", [-1], [1969, 12, 31]),
    "the first date there is": ("date", [-INT64_MAX - 1], [1677, 9, 21]),
    "the last date there is": ("date", [[INT64_MAX, "UTC"]], [2262, 4, 11]),
    "a date in a zone": ("date", [[INSTANT + 12 * 3_600 * SECOND, "Asia/Tokyo"]], [2024, 3, 1]),
    "an instant alone in an array": ("date", [[INSTANT]], [2024, 2, 29]),
    "more operands than are looked at": ("date", [[INSTANT, "", "any", None]], [2024, 2, 29]),
    "a clock": ("clock", [INSTANT], [13, 45, 7]),
    "a clock a moment before 1970": ("clock", [-1], [23, 59, 59]),
    "a clock before a change": ("clock", [[SPRING - 1, BERLIN]], [1, 59, 59]),
    "a clock after a change": ("clock", [[SPRING, BERLIN]], [3, 0, 0]),
    "a weekday": ("weekday", [INSTANT], "Thursday"),
    "a weekday in a zone": ("weekday", [[INSTANT, "Pacific/Kiritimati"]], "Friday"),
    "a number with an empty fraction": ("clock", [Decimal("1000000000.0")], [0, 0, 1]),
    "nought with an empty fraction": ("clock", [Decimal("0.0")], [0, 0, 0]),
    "a text without a layout": ("format", [INSTANT + 5], "2024-02-29T13:45:07.000000005Z"),
    "a text with an empty layout": ("format", [[INSTANT, BERLIN, ""]], "2024-02-29T14:45:07+01:00"),
    "a text with a layout": ("format", [[INSTANT, BERLIN, "RFC1123"]], "Thu, 29 Feb 2024 14:45:07 CET"),
    "a text of RFC 3339": ("parse_rfc3339_ns", ["2024-02-29T13:45:07Z"], INSTANT),
    "the last text of RFC 3339": ("parse_rfc3339_ns", ["2262-04-11T23:47:16.854775807Z"], INT64_MAX),
    "the first text of RFC 3339": ("parse_rfc3339_ns", ["1677-09-21T00:12:43.145224192Z"], -INT64_MAX - 1),
    "a text and its layout": ("parse_ns", ["RFC1123", "Thu, 29 Feb 2024 13:45:07 GMT"], INSTANT),
    "a duration": ("parse_duration_ns", ["1m"], 60 * SECOND),
    "a day added": ("add_date", [INSTANT, 0, 0, 1], INSTANT + DAY),
    "a year added to a leap day": ("add_date", [INSTANT, 1, 0, 0], INSTANT + 366 * DAY),
    "a month added to a long one": ("add_date", [INSTANT + 31 * DAY, 0, 1, 0], INSTANT + 62 * DAY),
    "months taken over a year's end": ("add_date", [INSTANT, 0, -14, 0], INSTANT - 427 * DAY),
    "nanoseconds kept": ("add_date", [-1, 0, 0, 1], DAY - 1),
    "nothing added at the end of 64 bits": ("add_date", [[INT64_MAX, "Asia/Tokyo"], 0, 0, 0], INT64_MAX),
    "a day of 23 hours": ("add_date", [[SPRING - DAY, BERLIN], 0, 0, 1], SPRING),
    "a clock that a change leaves out": (
        "add_date",
        [[SPRING - DAY + 1_800 * SECOND, BERLIN], 0, 0, 1],
        SPRING + 1_800 * SECOND,
    ),
    "a clock that a change brings twice": (
        "add_date",
        [[AUTUMN - DAY - 1_800 * SECOND, BERLIN], 0, 0, 1],
        AUTUMN + 1_800 * SECOND,
    ),
    "no difference": ("diff", [5, 5], [0, 0, 0, 0, 0, 0]),
    "a difference either way": ("diff", [INSTANT, 0], [54, 1, 28, 13, 45, 7]),
    "a difference in order": ("diff", [0, INSTANT], [54, 1, 28, 13, 45, 7]),
    "a difference over a leap day": ("diff", [INSTANT - 27 * DAY, INSTANT + DAY], [0, 0, 28, 0, 0, 0]),
    "a difference that borrows everywhere": ("diff", [DAY - SECOND, 365 * DAY], [0, 11, 30, 0, 0, 1]),
    "a difference in the first zone": ("diff", [[SPRING - DAY, BERLIN], [SPRING, "Asia/Tokyo"]], [0, 0, 1, 1, 0, 0]),
    "a difference that clocks turn round": (
        "diff",
        [[AUTUMN - 600 * SECOND, BERLIN], AUTUMN + 600 * SECOND],
        [-1, 11, 30, 23, 20, 0],
    ),
}


@pytest.mark.parametrize(("name", "operands", "expected"), ANSWERS.values(), ids=ANSWERS.keys())
def test_time_answers_when_asked_for(name: str, operands: list[Any], expected: Any) -> None:
    answer = BUILTINS[f"time.{name}"](*operands)
    assert answer == expected
    assert type(answer) is type(expected)


NO_INSTANTS: dict[str, Any] = {
    "null": None,
    "a boolean": True,
    "a text": "0",
    "an object": {"a": 1},
    "a set": RegoSet((0,)),
    "an empty array": [],
    "an array of a text": ["0"],
    "an array of a boolean": [False, "UTC"],
    "an array in an array": [[0]],
    "a zone that is a number": [0, 0],
    "a zone that is null": [0, None],
    "a zone that is nowhere": [0, "Europe/Nowhere"],
    "a layout that is no text": [0, "UTC", 1],
    "one more than 64 bits": INT64_MAX + 1,
    "one less than 64 bits": -INT64_MAX - 2,
    "much more than 64 bits": 10**40,
    "more than 64 bits with a point": Decimal("9223372036854775808.0"),
    "a fraction": Decimal("1.5"),
    "a small fraction": [Decimal("-0.25"), "UTC"],
}


@pytest.mark.parametrize("operand", NO_INSTANTS.values(), ids=NO_INSTANTS.keys())
@pytest.mark.parametrize("name", ["date", "clock", "weekday", "format", "diff", "add_date"])
def test_time_is_undefined_when_the_instant_is(name: str, operand: Any) -> None:
    others = {"diff": [0], "add_date": [0, 0, 0]}.get(name, [])
    with pytest.raises(Undefined):
        BUILTINS[f"time.{name}"](operand, *others)


UNDEFINED: dict[str, tuple[str, list[Any]]] = {
    "the second instant of a difference is none": ("diff", [0, "x"]),
    "the second zone of a difference is nowhere": ("diff", [0, [0, "Europe/Nowhere"]]),
    "years are a text": ("add_date", [0, "1", 0, 0]),
    "months are a boolean": ("add_date", [0, 0, True, 0]),
    "days are null": ("add_date", [0, 0, 0, None]),
    "days are a fraction": ("add_date", [0, 0, 0, Decimal("0.5")]),
    "days are beyond 64 bits": ("add_date", [0, 0, 0, INT64_MAX + 1]),
    "the sum is too late by a nanosecond": ("add_date", [INT64_MAX - DAY + 1, 0, 0, 1]),
    "the sum is too early by a nanosecond": ("add_date", [-INT64_MAX - 2 + DAY, 0, 0, -1]),
    "the sum is ages away": ("add_date", [0, STEP_MAX, 0, 0]),
    "the sum in a zone is ages away": ("add_date", [[0, BERLIN], -STEP_MAX, 0, 0]),
    "the text of RFC 3339 is too late": ("parse_rfc3339_ns", ["2262-04-11T23:47:16.854775808Z"]),
    "the text of RFC 3339 is too early": ("parse_rfc3339_ns", ["1677-09-21T00:12:43.145224191Z"]),
    "the text of RFC 3339 is a number": ("parse_rfc3339_ns", [0]),
    "the text is too early for its layout": ("parse_ns", ["15:04", "00:00"]),
    "the layout is a number": ("parse_ns", [0, "00:00"]),
    "the text is null": ("parse_ns", ["RFC3339", None]),
    "the duration is a number": ("parse_duration_ns", [1]),
    "the duration is none": ("parse_duration_ns", ["1 day"]),
}


@pytest.mark.parametrize(("name", "operands"), UNDEFINED.values(), ids=UNDEFINED.keys())
def test_time_is_undefined_when(name: str, operands: list[Any]) -> None:
    with pytest.raises(Undefined):
        BUILTINS[f"time.{name}"](*operands)


DECLINED: dict[str, tuple[str, list[Any], str]] = {
    "an instant is before 1970 in a zone": ("date", [[-1, BERLIN]], "before 1970"),
    "a sum is before 1970 in a zone": ("add_date", [[INSTANT, BERLIN], -60, 0, 0], "before 1970"),
    "a difference begins before 1970 in a zone": ("diff", [[INSTANT, BERLIN], -1], "before 1970"),
    "the zone is the machine's": ("clock", [[0, "Local"]], "machine"),
    "the layout is the policy's own": ("format", [[0, "UTC", "Jan 2"]], "layout"),
    "a number is all but whole": ("date", [Decimal("1670006453141828752.01")], "all but a whole"),
    "a number is nearly nought": ("date", [Decimal("0.00000000000000000000000000001")], "all but a whole"),
    "a number has many digits before its point": ("date", [Decimal("1" * 1_001 + ".0")], "very long"),
    "a number has many zeros": ("date", [Decimal(f"0.{'0' * 1_001}1")], "very long"),
    "a number has many digits behind its point": ("date", [Decimal("0." + "3" * 1_001)], "very long"),
    "years are whole with a point": ("add_date", [0, Decimal("1.0"), 0, 0], "with a point"),
    "months are nought with a point": ("add_date", [0, 0, Decimal("0.00"), 0], "with a point"),
    "days are very many": ("add_date", [0, 0, 0, STEP_MAX + 1], "very large"),
    "years are very few": ("add_date", [0, -STEP_MAX - 1, 0, 0], "very large"),
}


@pytest.mark.parametrize(("name", "operands", "reason"), DECLINED.values(), ids=DECLINED.keys())
def test_time_is_declined_when(name: str, operands: list[Any], reason: str) -> None:
    with pytest.raises(Declined, match=reason):
        BUILTINS[f"time.{name}"](*operands)


def test_time_has_no_clock_when_listed() -> None:
    assert "time.now_ns" not in BUILTINS
    assert all(name.startswith("time.") for name in BUILTINS)
