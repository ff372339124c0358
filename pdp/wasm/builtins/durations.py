"""Durations as ``time.parse_duration_ns`` reads them: Go's, with days, weeks and years of fixed length.

Guarantees Go's answer to the last nanosecond: its limits, its fractions in binary floating point, and its one overflow
(two parts of 2^63 nanoseconds make nothing). Declined are texts of more than ``TEXT_MAX_CHARACTERS``.

**Source**: Go's ``time.ParseDuration``; OPA's ``durationparser``.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Final

from pdp.wasm.builtins.values import Declined, Undefined

TEXT_MAX_CHARACTERS: Final = 4_096
_UNITS: Final = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,  # the sign for micro
    "\u03bcs": 10**3,  # the Greek letter
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3_600 * 10**9,
}
_HOURS: Final = {"d": 24, "w": 7 * 24, "y": 365 * 24}
_PART: Final = re.compile(r"([0-9]*+)(?:\.([0-9]*+))?+([^0-9.]++)")
_EXTENDED_PART: Final = re.compile("([0-9.]++)(ms|us|\u00b5s|ns|[a-z])")
_EXTENDED: Final = re.compile(rf"[-+]?(?:{_EXTENDED_PART.pattern})++")
_MAX: Final = 2**63
_WORD: Final = 2**64
_FRACTION_DIGITS_MAX: Final = 60
"""After as many zeros no digit makes a nanosecond of any unit."""


def duration_ns(text: str) -> int:
    """Nanoseconds; raises ``Undefined`` for what is no duration, ``Declined`` for a very long text."""
    if len(text) > TEXT_MAX_CHARACTERS:
        raise Declined("a very long duration")
    if not _HOURS.keys().isdisjoint(text):
        if not _EXTENDED.fullmatch(text):
            raise Undefined
        parts = (_in_hours(figure, unit) for figure, unit in _EXTENDED_PART.findall(text))
        text = (text[0] if text[0] in "+-" else "") + "".join(parts)
    negative = text.startswith("-")
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    total = _sum(rest)
    if negative:
        return -total
    if total == _MAX:
        raise Undefined
    return total


def _in_hours(figure: str, unit: str) -> str:
    """A part as Go itself reads it: days, weeks and years become hours."""
    if unit not in _HOURS:
        return figure + unit
    if figure.count(".") > 1 or figure == ".":
        raise Undefined
    hours = float(figure) * _HOURS[unit]
    if math.isinf(hours):
        raise Undefined
    return f"{Decimal(repr(hours)):f}h"


def _sum(text: str) -> int:
    """The nanoseconds of all parts, at most 2^63."""
    if not text:
        raise Undefined
    total = at = 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None or part[3] not in _UNITS or not (part[1] or part[2]):
            raise Undefined
        at = part.end()
        total = (total + _part_ns(part[1], part[2] or "", _UNITS[part[3]])) % _WORD
        if total > _MAX:
            raise Undefined
    return total


def _part_ns(whole: str, fraction: str, unit: int) -> int:
    digits = whole.lstrip("0") or "0"
    figure = int(digits) if len(digits) <= 19 else _MAX + 1
    if figure > _MAX // unit:
        raise Undefined
    value = figure * unit + _fraction_ns(fraction, unit)
    if value > _MAX:
        raise Undefined
    return value


def _fraction_ns(fraction: str, unit: int) -> int:
    """What ``.fraction`` is of the unit: as many digits as 63 bits hold, then in binary floating point, cut off."""
    figure, scale = 0, 1.0
    for digit in fraction[:_FRACTION_DIGITS_MAX]:
        longer = figure * 10 + int(digit)
        if figure > (_MAX - 1) // 10 or longer > _MAX:
            break
        figure, scale = longer, scale * 10
    return int(float(figure) * (unit / scale))
