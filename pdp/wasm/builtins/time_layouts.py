"""Instants as texts, after a layout: written by ``time.format``, read by ``time.parse_ns`` and ``time.parse_rfc3339_ns``.

Guarantees Go's reading, which is wider than the RFCs': one digit for an hour, a fraction after the seconds of any layout
with a point or a comma, offsets of up to 24 hours and 60 minutes, names in any case, a weekday that need not fit.

Declined are layouts that are not in ``LAYOUTS``, and abbreviations of zones other than UTC and GMT: what Go takes ``CET``
for depends on the zone of its machine.

**Source**: Go's ``time.Parse`` and ``time.Format``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache, partial
from typing import Final

from pdp.wasm.builtins.values import Declined, Undefined

RFC3339: Final = "2006-01-02T15:04:05Z07:00"
RFC3339_NANO: Final = "2006-01-02T15:04:05.999999999Z07:00"
NAMED: Final[Mapping[str, str]] = {
    "ANSIC": "Mon Jan _2 15:04:05 2006",
    "UnixDate": "Mon Jan _2 15:04:05 MST 2006",
    "RubyDate": "Mon Jan 02 15:04:05 -0700 2006",
    "RFC822": "02 Jan 06 15:04 MST",
    "RFC822Z": "02 Jan 06 15:04 -0700",
    "RFC850": "Monday, 02-Jan-06 15:04:05 MST",
    "RFC1123": "Mon, 02 Jan 2006 15:04:05 MST",
    "RFC1123Z": "Mon, 02 Jan 2006 15:04:05 -0700",
    "RFC3339": RFC3339,
    "RFC3339Nano": RFC3339_NANO,
}
"""Layouts that OPA knows by name."""
LAYOUTS: Final = frozenset((*NAMED.values(), "2006-01-02 15:04:05", "2006-01-02", "15:04:05", "15:04"))
"""The layouts that are read and written."""
WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ABBREVIATION: Final = "(?:UTC|GMT)"
_ANY_ABBREVIATION: Final = "[A-Za-z0-9+-]+"
_SECOND: Final = "(?P<second>[0-9]{2})"
_FRACTION: Final = r"(?:[.,](?P<fraction>[0-9]++))?+"
_CENTURY_TURN: Final = 69
"""Two digits of a year from here on are of the 20th century."""
_UNIX_DAY: Final = date(1970, 1, 1).toordinal()
_CYCLE_YEARS: Final = 400
_CYCLE_DAYS: Final = 146_097


@dataclass(frozen=True, slots=True)
class Moment:
    """An instant as clocks and calendars of one zone show it."""

    day: date
    hour: int
    minute: int
    second: int
    nanosecond: int
    offset_seconds: int
    zone: str


def written(moment: Moment, layout: str) -> str:
    """The moment after a layout, or after one of OPA's names for one; raises ``Declined``."""
    return "".join([_WORDS[word][1](moment) if word in _WORDS else word for word in _words(_known(layout))])


def read(layout: str, text: str) -> int:
    """Nanoseconds since 1970, of any year from 0 to 9999; raises ``Undefined`` and ``Declined``."""
    words = _words(_known(layout))
    found = _pattern(words, _ABBREVIATION).fullmatch(text)
    if found is not None:
        return _instant(found.groupdict(""))
    if "MST" in words and _pattern(words, _ANY_ABBREVIATION).fullmatch(text):
        raise Declined("a time with the abbreviation of a zone")
    raise Undefined


def _known(layout: str) -> str:
    text = NAMED.get(layout, layout)
    if text not in LAYOUTS:
        raise Declined("a layout of times that is not among those the host knows")
    return text


def _instant(fields: Mapping[str, str]) -> int:
    month = fields.get("month", "1")
    month_number = int(month) if month.isdigit() else _MONTHS.index(month.title()) + 1
    year, day = _year(fields), int(fields.get("day", "1"))
    hour, minute, second = (int(fields.get(name, "0")) for name in ("hour", "minute", "second"))
    if not 1 <= month_number <= 12 or hour > 23 or minute > 59 or second > 59:
        raise Undefined
    if not 1 <= day <= month_days(year, month_number):
        raise Undefined
    seconds = (unix_day(year, month_number) + day - 1) * 86_400 + hour * 3_600 + minute * 60 + second
    return (seconds - _offset(fields.get("offset", ""))) * 10**9 + int(fields.get("fraction", "")[:9].ljust(9, "0"))


def _year(fields: Mapping[str, str]) -> int:
    if "short_year" not in fields:
        return int(fields.get("year", "0"))
    year = int(fields["short_year"])
    return year + (1900 if year >= _CENTURY_TURN else 2000)


def _offset(text: str) -> int:
    """Seconds east of UTC, from ``Z`` or from a sign with hours and minutes."""
    if text in ("", "Z"):
        return 0
    hours, minutes = int(text[1:3]), int(text[-2:])
    if hours > 24 or minutes > 60:
        raise Undefined
    return (hours * 60 + minutes) * (-60 if text[0] == "-" else 60)


def unix_day(year: int, month: int) -> int:
    """The first day of a month, in days since 1970; every year has one, and the calendar is always the Gregorian."""
    cycles, year_of_cycle = divmod(year, _CYCLE_YEARS)
    return date(_CYCLE_YEARS + year_of_cycle, month, 1).toordinal() + (cycles - 1) * _CYCLE_DAYS - _UNIX_DAY


def month_days(year: int, month: int) -> int:
    """How many days the month has."""
    return unix_day(year + month // 12, month % 12 + 1) - unix_day(year, month)


def calendar_day(unix_days: int) -> date:
    """The day that lies so many after the first of 1970; for years from 1 to 9999."""
    return date.fromordinal(_UNIX_DAY + unix_days)


def _write_offset(colon: str, zero: str, moment: Moment) -> str:
    if zero and moment.offset_seconds == 0:
        return zero
    minutes = abs(moment.offset_seconds) // 60
    sign = "-" if moment.offset_seconds <= -60 else "+"
    return f"{sign}{minutes // 60:02}{colon}{minutes % 60:02}"


def _write_fraction(moment: Moment) -> str:
    return f".{moment.nanosecond:09}".rstrip("0") if moment.nanosecond else ""


_WORDS: Final[Mapping[str, tuple[str, Callable[[Moment], str]]]] = {
    ".999999999": (_FRACTION, _write_fraction),
    "Monday": (
        "(?i:Sunday|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday)",
        lambda moment: WEEKDAYS[moment.day.weekday()],
    ),
    "Mon": ("(?i:Sun|Mon|Tue|Wed|Thu|Fri|Sat)", lambda moment: WEEKDAYS[moment.day.weekday()][:3]),
    "MST": (_ABBREVIATION, lambda moment: moment.zone),
    "Jan": (f"(?P<month>(?i:{'|'.join(_MONTHS)}))", lambda moment: _MONTHS[moment.day.month - 1]),
    "-0700": ("(?P<offset>[+-][0-9]{4})", partial(_write_offset, "", "")),
    "Z07:00": ("(?P<offset>Z|[+-][0-9]{2}:[0-9]{2})", partial(_write_offset, ":", "Z")),
    "2006": ("(?P<year>[0-9]{4})", lambda moment: f"{moment.day.year:04}"),
    "01": ("(?P<month>[0-9]{2})", lambda moment: f"{moment.day.month:02}"),
    "02": ("(?P<day>[0-9]{2})", lambda moment: f"{moment.day.day:02}"),
    "04": ("(?P<minute>[0-9]{2})", lambda moment: f"{moment.minute:02}"),
    "05": (_SECOND, lambda moment: f"{moment.second:02}"),
    "06": ("(?P<short_year>[0-9+-][0-9])", lambda moment: f"{moment.day.year % 100:02}"),
    "15": ("(?P<hour>[0-9]{1,2}+)", lambda moment: f"{moment.hour:02}"),
    "_2": (" ?(?P<day>[0-9]{1,2}+)", lambda moment: f"{moment.day.day:2}"),
    " ": (" ++", lambda moment: " "),
}
"""What a word of a layout stands for: the pattern that reads it, and what writes it."""
_WORD: Final = re.compile(f"({'|'.join(map(re.escape, _WORDS))})")


@lru_cache(maxsize=len(LAYOUTS))
def _words(layout: str) -> tuple[str, ...]:
    """The layout's words and, between them, what stands for itself."""
    return tuple(word for word in _WORD.split(layout) if word)


@lru_cache(maxsize=2 * len(LAYOUTS))
def _pattern(words: Sequence[str], abbreviation: str) -> re.Pattern[str]:
    """What reads a text after these words; seconds may have a fraction where the layout has none."""
    parts = [_WORDS[word][0] if word in _WORDS else re.escape(word) for word in words]
    text = "".join(parts).replace(_ABBREVIATION, abbreviation)
    return re.compile(text if _FRACTION in parts else text.replace(_SECOND, _SECOND + _FRACTION), re.ASCII)
