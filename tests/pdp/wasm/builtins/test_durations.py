"""Durations: Go's units, OPA's days, weeks and years, and the limits of 64 bits."""

from __future__ import annotations

import pytest

from pdp.wasm.builtins.durations import TEXT_MAX_CHARACTERS, duration_ns
from pdp.wasm.builtins.values import Declined, Undefined

HOUR = 3_600 * 10**9
MAX = 2**63

READ = {
    "one unit": ("100ms", 10**8),
    "several units": ("1h30m5s", HOUR + 30 * 60 * 10**9 + 5 * 10**9),
    "units in any order, twice": ("1s2h1s", 2 * HOUR + 2 * 10**9),
    "the sign for micro": ("3\u00b5s", 3_000),
    "the Greek letter for micro": ("3\u03bcs", 3_000),
    "plain letters for micro": ("3us", 3_000),
    "a sign before": ("-1.5h", -HOUR * 3 // 2),
    "a plus before": ("+2ns", 2),
    "nothing, without a unit": ("0", 0),
    "nothing, with a sign": ("-0", 0),
    "a fraction without a figure before it": (".5s", 5 * 10**8),
    "a figure without a fraction after its point": ("5.s", 5 * 10**9),
    "a fraction that is cut off": ("0.9999999999s", 999_999_999),
    "a fraction in binary floating point": ("0.3ns", 0),
    "a fraction that another order of rounding would miss": (".98669367118h", 3_552_097_216_248),
    "a fraction longer than 64 bits": ("0.33333333333333333333333333h", 1_200_000_000_000),
    "a fraction of many zeros": (f"1.{'0' * 400}1s", 10**9),
    "zeros before a figure": (f"{'0' * 400}1s", 10**9),
    "the most there is": (f"{MAX - 1}ns", MAX - 1),
    "the least there is": (f"-{MAX}ns", -MAX),
    "two halves that overflow to nothing": (f"{MAX}ns{MAX}ns", 0),
    "a day": ("1d", 24 * HOUR),
    "a week": ("1w", 7 * 24 * HOUR),
    "a year": ("1y", 365 * 24 * HOUR),
    "a day among others": ("1d2h30m", 26 * HOUR + HOUR // 2),
    "a part of a day": ("-1.5d", -36 * HOUR),
    "a day after microseconds": ("3\u00b5s1d", 24 * HOUR + 3_000),
    "a very small part of a year": ("0.0000000000001y", 3_153),
    "a plus before days": ("+.5w", 84 * HOUR),
}


@pytest.mark.parametrize(("text", "expected"), READ.values(), ids=READ.keys())
def test_duration_is_read_when(text: str, expected: int) -> None:
    assert duration_ns(text) == expected


UNDEFINED = {
    "empty": "",
    "only a sign": "-",
    "two signs": "--1s",
    "no unit": "10",
    "no figure": "h",
    "only a point": ".s",
    "an unknown unit": "1x",
    "a unit written out": "1min",
    "a unit in capitals": "1H",
    "a space": "1h 1m",
    "a figure at the end": "1h1",
    "figures of another script": "١h",
    "two points": "1.2.3h",
    "an exponent": "1e3s",
    "one nanosecond too many": f"{MAX}ns",
    "one nanosecond too few": f"-{MAX + 1}ns",
    "too many hours": "2562048h",
    "a fraction beyond the limit": "9223372036.854775808999s",
    "a fraction that passes the limit": "153722867.9999999999m",
    "a part that passes the limit after one at it": f"{MAX}ns9223372036.854775813s",
    "parts that pass the limit together": f"{MAX - 1}ns2ns",
    "a figure of twenty digits": "10000000000000000000ns",
    "days in capitals": "1D",
    "days without a figure": "d",
    "only a point for days": ".d",
    "two points for days": "1.2.3d",
    "days and an unknown unit": "1d1x",
    "days and a space": "1d 1h",
    "days and a Greek letter": "1d1\u03bcs",
    "days and a figure": "1d0",
    "two signs before days": "+-1d",
    "too many years": "293y",
    "years beyond floating point": f"{'9' * 400}y",
    "years beyond floating point as hours": f"{'9' * 308}y",
}


@pytest.mark.parametrize("text", UNDEFINED.values(), ids=UNDEFINED.keys())
def test_duration_is_undefined_when(text: str) -> None:
    with pytest.raises(Undefined):
        duration_ns(text)


def test_duration_is_declined_when_the_text_is_longer_than_the_limit() -> None:
    assert duration_ns("0" * (TEXT_MAX_CHARACTERS - 1) + "h") == 0
    with pytest.raises(Declined):
        duration_ns("0" * TEXT_MAX_CHARACTERS + "h")
