"""Layouts: texts that are instants, texts that nearly are, and instants as texts."""

from __future__ import annotations

import pytest

from pdp.wasm.builtins.time_layouts import NAMED, Moment, calendar_day, month_days, read, unix_day, written
from pdp.wasm.builtins.values import Declined, Undefined

INSTANT = 1_709_214_307 * 10**9
"""Thursday, 29 February 2024, 13:45:07 UTC."""
MINUTE = INSTANT - 7 * 10**9

READ = {
    "RFC 3339 in UTC": ("RFC3339", "2024-02-29T13:45:07Z", INSTANT),
    "RFC 3339 with an offset": ("RFC3339", "2024-02-29T06:45:07-07:00", INSTANT),
    "RFC 3339 with the least of an hour": ("RFC3339", "2024-02-29T0:00:00Z", INSTANT - 49_507 * 10**9),
    "a fraction with a comma": ("RFC3339", "2024-02-29T13:45:07,5Z", INSTANT + 5 * 10**8),
    "a fraction that is cut off": ("RFC3339Nano", "2024-02-29T13:45:07.0000000019Z", INSTANT + 1),
    "the layout itself": ("2006-01-02T15:04:05Z07:00", "2024-02-29T13:45:07Z", INSTANT),
    "the largest offset": ("RFC3339", "2024-02-29T13:45:07+24:60", INSTANT - 90_000 * 10**9),
    "ANSIC": ("ANSIC", "Thu Feb 29 13:45:07 2024", INSTANT),
    "ANSIC with one digit for the day": ("ANSIC", "Thu Feb  1 13:45:07 2024", INSTANT - 28 * 86_400 * 10**9),
    "names in any case, a wrong weekday": ("ANSIC", "mon feB 29 13:45:07 2024", INSTANT),
    "spaces as many as one likes": ("ANSIC", "Thu   Feb 29  13:45:07 2024", INSTANT),
    "a fraction where the layout has none": ("ANSIC", "Thu Feb 29 13:45:07.25 2024", INSTANT + 25 * 10**7),
    "UnixDate": ("UnixDate", "Thu Feb 29 13:45:07 UTC 2024", INSTANT),
    "RubyDate": ("RubyDate", "Thu Feb 29 14:45:07 +0100 2024", INSTANT),
    "RFC822": ("RFC822", "29 Feb 24 13:45 GMT", MINUTE),
    "RFC822Z": ("RFC822Z", "29 Feb 24 13:45 +0000", MINUTE),
    "RFC850": ("RFC850", "Thursday, 29-Feb-24 13:45:07 UTC", INSTANT),
    "RFC1123 as HTTP writes it": ("RFC1123", "Thu, 29 Feb 2024 13:45:07 GMT", INSTANT),
    "RFC1123Z": ("RFC1123Z", "Thu, 29 Feb 2024 13:45:07 -0000", INSTANT),
    "a day": ("2006-01-02", "2024-02-29", INSTANT - 49_507 * 10**9),
    "a day and a clock": ("2006-01-02 15:04:05", "2024-02-29 13:45:07", INSTANT),
    "the first year of two digits": ("RFC822", "01 Jan 69 00:00 UTC", -31_536_000 * 10**9),
    "a year of the 20th century": ("RFC822", "01 Jan 70 00:00 UTC", 0),
    "the last year of two digits": ("RFC822", "01 Jan 68 00:00 UTC", 3_092_601_600 * 10**9),
    "a year with a sign": ("RFC822", "01 Jan -5 00:00 UTC", 788_918_400 * 10**9),
    "a day before 1970, a moment later": ("RFC3339", "1969-12-31T23:59:59.999999999Z", -1),
    "year 0": ("RFC3339", "0000-02-29T00:00:00Z", -62_162_121_600 * 10**9),
    "a clock alone, in year 0": ("15:04", "00:00", -62_167_219_200 * 10**9),
}


@pytest.mark.parametrize(("layout", "text", "expected"), READ.values(), ids=READ.keys())
def test_text_is_an_instant_when_read_as(layout: str, text: str, expected: int) -> None:
    assert read(layout, text) == expected


UNDEFINED = {
    "nothing": ("RFC3339", ""),
    "no day": ("RFC3339", "2024-02-30T00:00:00Z"),
    "day nought": ("RFC3339", "2024-02-00T00:00:00Z"),
    "no leap year": ("RFC3339", "1900-02-29T00:00:00Z"),
    "month nought": ("RFC3339", "2024-00-01T00:00:00Z"),
    "month thirteen": ("RFC3339", "2024-13-01T00:00:00Z"),
    "hour twenty-four": ("RFC3339", "2024-02-29T24:00:00Z"),
    "minute sixty": ("RFC3339", "2024-02-29T00:60:00Z"),
    "a leap second": ("RFC3339", "2016-12-31T23:59:60Z"),
    "an offset of 25 hours": ("RFC3339", "2024-02-29T00:00:00+25:00"),
    "an offset of 61 minutes": ("RFC3339", "2024-02-29T00:00:00+00:61"),
    "no offset": ("RFC3339", "2024-02-29T00:00:00"),
    "an offset without a colon": ("RFC3339", "2024-02-29T00:00:00+0000"),
    "a small T": ("RFC3339", "2024-02-29t00:00:00Z"),
    "a small Z": ("RFC3339", "2024-02-29T00:00:00z"),
    "a space for T": ("RFC3339", "2024-02-29 00:00:00Z"),
    "a point without a fraction": ("RFC3339", "2024-02-29T00:00:00.Z"),
    "more after it": ("RFC3339", "2024-02-29T00:00:00Z "),
    "a new line after it": ("RFC3339", "2024-02-29T00:00:00Z\n"),
    "a space before it": ("RFC3339", " 2024-02-29T00:00:00Z"),
    "digits of another script": ("RFC3339", "٢٠٢٤-02-29T00:00:00Z"),
    "a year of five digits": ("RFC3339", "12024-02-29T00:00:00Z"),
    "a letter that folds to s": ("RFC1123Z", "\u017fun, 29 Feb 2024 13:45:07 +0000"),
    "no weekday": ("RFC1123Z", "29 Feb 2024 13:45:07 +0000"),
    "a weekday in full": ("RFC1123Z", "Thursday, 29 Feb 2024 13:45:07 +0000"),
    "a day of one digit": ("RFC1123Z", "Thu, 1 Feb 2024 13:45:07 +0000"),
    "a month that is none": ("ANSIC", "Thu Foo 29 13:45:07 2024"),
    "no abbreviation": ("RFC1123", "Thu, 29 Feb 2024 13:45:07 "),
    "a day for the layout with a clock": ("2006-01-02 15:04:05", "2024-02-29"),
}


@pytest.mark.parametrize(("layout", "text"), UNDEFINED.values(), ids=UNDEFINED.keys())
def test_text_is_undefined_when_it_has(layout: str, text: str) -> None:
    with pytest.raises(Undefined):
        read(layout, text)


DECLINED = {
    "the abbreviation is one of a zone": ("RFC1123", "Thu, 29 Feb 2024 13:45:07 CET"),
    "the abbreviation is in the middle": ("UnixDate", "Thu Feb 29 13:45:07 PST 2024"),
    "the abbreviation is an offset": ("RFC850", "Thursday, 29-Feb-24 13:45:07 +03"),
    "the abbreviation has an offset": ("RFC822", "29 Feb 24 13:45 GMT+3"),
    "the layout is the policy's own": ("Jan 2, 2006", "Feb 29, 2024"),
    "the layout is a name in other letters": ("rfc3339", "2024-02-29T00:00:00Z"),
    "the layout is empty": ("", ""),
}


@pytest.mark.parametrize(("layout", "text"), DECLINED.values(), ids=DECLINED.keys())
def test_text_is_declined_when(layout: str, text: str) -> None:
    with pytest.raises(Declined):
        read(layout, text)


NOON = Moment(calendar_day(19_783), 9, 5, 7, 120_000_000, 19_800, "IST")
UTC = Moment(calendar_day(19_783), 13, 45, 7, 0, 0, "UTC")
WEST = Moment(calendar_day(19_754), 0, 0, 0, 1, -12_600, "NST")
WRITTEN = {
    "ANSIC": (NOON, "ANSIC", "Fri Mar  1 09:05:07 2024"),
    "UnixDate": (NOON, "UnixDate", "Fri Mar  1 09:05:07 IST 2024"),
    "RubyDate": (NOON, "RubyDate", "Fri Mar 01 09:05:07 +0530 2024"),
    "RFC822": (NOON, "RFC822", "01 Mar 24 09:05 IST"),
    "RFC822Z": (NOON, "RFC822Z", "01 Mar 24 09:05 +0530"),
    "RFC850": (NOON, "RFC850", "Friday, 01-Mar-24 09:05:07 IST"),
    "RFC1123": (NOON, "RFC1123", "Fri, 01 Mar 2024 09:05:07 IST"),
    "RFC1123Z": (NOON, "RFC1123Z", "Fri, 01 Mar 2024 09:05:07 +0530"),
    "RFC3339": (NOON, "RFC3339", "2024-03-01T09:05:07+05:30"),
    "RFC3339Nano": (NOON, "RFC3339Nano", "2024-03-01T09:05:07.12+05:30"),
    "RFC3339Nano without a fraction": (UTC, "RFC3339Nano", "2024-03-01T13:45:07Z"),
    "RFC3339Nano to the last digit": (WEST, "RFC3339Nano", "2024-02-01T00:00:00.000000001-03:30"),
    "an offset of nought as a number": (UTC, "RFC1123Z", "Fri, 01 Mar 2024 13:45:07 +0000"),
    "a clock": (NOON, "15:04", "09:05"),
    "a day": (NOON, "2006-01-02", "2024-03-01"),
}


@pytest.mark.parametrize(("moment", "layout", "expected"), WRITTEN.values(), ids=WRITTEN.keys())
def test_moment_is_written_when_the_layout_is(moment: Moment, layout: str, expected: str) -> None:
    assert written(moment, layout) == expected


def test_offset_loses_its_seconds_and_sign_when_it_is_written() -> None:
    moments = [Moment(calendar_day(0), 0, 0, 0, 0, seconds, "LMT") for seconds in (-59, -60, -2_670, 59)]
    assert [written(moment, "RFC3339")[-6:] for moment in moments] == ["+00:00", "-00:01", "-00:44", "+00:00"]


def test_moment_is_declined_when_the_layout_is_the_policys_own() -> None:
    with pytest.raises(Declined, match="layout"):
        written(NOON, "3:04PM")


def test_every_named_layout_reads_what_it_wrote_when_the_zone_is_utc() -> None:
    for layout in NAMED:
        text = written(UTC, layout)
        assert read(layout, text) // 60_000_000_000 == (19_783 * 86_400 + 49_500) // 60


def test_calendar_is_gregorian_when_the_year_is_far_away() -> None:
    assert [unix_day(year, 1) for year in (1970, 2000, 0, -400, 400_000)] == [
        0,
        10_957,
        -719_528,
        -865_625,
        145_377_472,
    ]
    assert [month_days(year, 2) for year in (1900, 2000, 2023, 2024, -4)] == [28, 29, 28, 29, 29]
    assert [month_days(2023, month) for month in range(1, 13)] == [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
