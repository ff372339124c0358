"""``time.*``: instants in nanoseconds since 1970, shown in a zone, moved by a calendar, held against each other.

Guarantees OPA's answers for every instant that 64 bits hold in UTC, and from 1970 on in every zone of ``zones``. There is
no clock: a policy asks for the time of its input, ``time.parse_rfc3339_ns(input.context.time)``.

Declined are, beside what ``zones``, ``time_layouts`` and ``durations`` decline: numbers that are not whole but so near to
it that 64 bits of binary do not tell, and whole numbers with a point as parts of a date to add, which OPA takes or not by
how long they are.

**Source**: OPA's ``v1/topdown/time.go``; Go's ``time`` package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Final

from pdp.wasm.builtins import zones
from pdp.wasm.builtins.durations import duration_ns
from pdp.wasm.builtins.time_layouts import (
    RFC3339,
    RFC3339_NANO,
    WEEKDAYS,
    Moment,
    calendar_day,
    month_days,
    read,
    unix_day,
    written,
)
from pdp.wasm.builtins.values import Declined, Undefined, Value

STEP_MAX: Final = 10**9
"""Years, months or days to add; no sum of smaller ones leaves 64 bits on the way."""
_NUMBER_DIGITS_MAX: Final = 1_000
_INT64: Final = range(-(2**63), 2**63)
_MANTISSA_BITS: Final = 64
_SECOND_NS: Final = 10**9
_DAY_SECONDS: Final = 86_400
_UNITS: Final = (None, 12, None, 24, 60, 60)
"""How many of a part of a difference make one of the part before it; days have their own rule."""


def parse_rfc3339_ns(value: Value) -> Value:
    """The instant of an RFC 3339 text."""
    return _in_range(read(RFC3339, _text(value)))


def parse_ns(layout: Value, value: Value) -> Value:
    """The instant of a text after a layout."""
    return _in_range(read(_text(layout), _text(value)))


def parse_duration_ns(value: Value) -> Value:
    """The nanoseconds of a duration such as ``1h30m`` or ``2d``."""
    return duration_ns(_text(value))


def to_text(instant: Value) -> Value:
    """The instant after the layout of its operand; without one, as RFC 3339 with nanoseconds."""
    nanoseconds, place, layout = _instant(instant)
    return written(_moment(nanoseconds, place), layout or RFC3339_NANO)


def date(instant: Value) -> Value:
    """Year, month and day."""
    day = _moment(*_instant(instant)[:2]).day
    return [day.year, day.month, day.day]


def clock(instant: Value) -> Value:
    """Hour, minute and second."""
    moment = _moment(*_instant(instant)[:2])
    return [moment.hour, moment.minute, moment.second]


def weekday(instant: Value) -> Value:
    """The English name of the day."""
    return WEEKDAYS[_moment(*_instant(instant)[:2]).day.weekday()]


def add_date(instant: Value, years: Value, months: Value, days: Value) -> Value:
    """The instant with the same clock on another day of its zone; days that a month does not have run over."""
    nanoseconds, place, _ = _instant(instant)
    moment = _moment(nanoseconds, place)
    more_years, month = divmod(moment.day.month - 1 + _step(months), 12)
    first = unix_day(moment.day.year + _step(years) + more_years, month + 1)
    local = (first + moment.day.day - 1 + _step(days)) * _DAY_SECONDS
    local += moment.hour * 3_600 + moment.minute * 60 + moment.second
    _in_range(max(abs(local) - 2 * _DAY_SECONDS, 0) * _SECOND_NS)
    # Go's two looks: the first takes the local time for UTC, the second corrects it beside a change of the clocks.
    guess = local - zones.offset(place, local)[0]
    return _in_range((local - zones.offset(place, guess)[0]) * _SECOND_NS + moment.nanosecond)


def diff(first: Value, second: Value) -> Value:
    """Years, months, days, hours, minutes and seconds between two instants, in the zone of the first operand.

    The parts are those of clocks and calendars, so across a change of the clocks some may be negative.
    """
    (start_ns, place, _), (end_ns, _, _) = _instant(first), _instant(second)
    start, end = _moment(min(start_ns, end_ns), place), _moment(max(start_ns, end_ns), place)
    parts = [after - before for before, after in zip(_parts(start), _parts(end), strict=True)]
    for index in (5, 4, 3, 2, 1):
        if parts[index] < 0:
            parts[index] += _UNITS[index] or month_days(start.day.year, start.day.month)
            parts[index - 1] -= 1
    return parts


def _parts(moment: Moment) -> tuple[int, ...]:
    return (moment.day.year, moment.day.month, moment.day.day, moment.hour, moment.minute, moment.second)


def _instant(value: Value) -> tuple[int, zones.Zone, str]:
    """Nanoseconds, zone and layout of ``ns``, ``[ns]``, ``[ns, zone]`` or ``[ns, zone, layout]``; more is not looked at."""
    if not isinstance(value, list):
        return _nanoseconds(value), None, ""
    if not value:
        raise Undefined
    nanoseconds = _nanoseconds(value[0])
    names = [_text(name) for name in value[1:3]]
    place = zones.zone(names[0]) if names else None
    return nanoseconds, place, names[1] if len(names) > 1 else ""


def _moment(nanoseconds: int, place: zones.Zone) -> Moment:
    seconds, nanosecond = divmod(nanoseconds, _SECOND_NS)
    offset_seconds, abbreviation = zones.offset(place, seconds)
    days, second = divmod(seconds + offset_seconds, _DAY_SECONDS)
    hour, second = divmod(second, 3_600)
    minute, second = divmod(second, 60)
    return Moment(calendar_day(days), hour, minute, second, nanosecond, offset_seconds, abbreviation)


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise Undefined
    return value


def _in_range(nanoseconds: int) -> int:
    if nanoseconds not in _INT64:
        raise Undefined
    return nanoseconds


def _nanoseconds(value: Value) -> int:
    """A whole number of 64 bits, however it is written."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Undefined
    if isinstance(value, int):
        return _in_range(value)
    if max(abs(value.adjusted()), len(value.as_tuple().digits)) > _NUMBER_DIGITS_MAX:
        raise Declined("an instant that is a very long number")
    exact = Fraction(value)
    nearest = round(exact)
    if exact == nearest:
        return _in_range(nearest)
    # OPA rounds to 64 bits first: what is nearer to a whole number than their last one may become it.
    if abs(exact - nearest) <= Fraction(2) ** (int(abs(exact)).bit_length() - _MANTISSA_BITS):
        raise Declined("an instant that is all but a whole number")
    raise Undefined


def _step(value: Value) -> int:
    """A number of years, months or days: an ``int`` of 64 bits for OPA."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Undefined
    if isinstance(value, Decimal):
        if value == value.to_integral_value():
            raise Declined("a whole number with a point, as a part of a date")
        raise Undefined
    if abs(_in_range(value)) > STEP_MAX:
        raise Declined("a very large part of a date")
    return value


BUILTINS: Final[Mapping[str, Callable[..., Value]]] = {
    "time.add_date": add_date,
    "time.clock": clock,
    "time.date": date,
    "time.diff": diff,
    "time.format": to_text,
    "time.parse_duration_ns": parse_duration_ns,
    "time.parse_ns": parse_ns,
    "time.parse_rfc3339_ns": parse_rfc3339_ns,
    "time.weekday": weekday,
}
