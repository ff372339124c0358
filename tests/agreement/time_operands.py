"""Operands for ``time.*``: ordinary ones, those beside an edge, and wrong ones, drawn from a seeded source."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from random import Random

from pdp.wasm.builtins import zones
from pdp.wasm.builtins.time_layouts import LAYOUTS, NAMED
from pdp.wasm.builtins.values import Value

ZONES = sorted(zones.NAMES)
USUAL_ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "UTC",
    "",
)
NO_ZONES = (
    *(
        "Europe",
        "Europe/Nowhere",
        "UTC+1",
        "CEST",
        "utc ",
        "Europe/Berlin\n",
        "Europe\\Berlin",
        "zone.tab",
        "tzdata.zi",
    ),
    *("../UTC", "Europe/../UTC", "/UTC", "\\UTC", "..", ".", " ", "\u0000", "UTC\u0000", "Zürich", "x" * 5_000, "🕐"),
)
MACHINE_ZONES = (
    "Local",
    "localtime",
    "posixrules",
    "posix/Europe/Berlin",
    "right/UTC",
    "Europe//Berlin",
    "./UTC",
    "utc",
)
NO_INSTANTS: tuple[Value, ...] = (
    *(None, True, False, "0", "", {}, {"a": 1}, [], [None], [True], ["0"], [[0]], [0, 0], [0, None], [0, ["UTC"]]),
    *([0, "UTC", None], [0, "UTC", 0], [0, "UTC", ["ANSIC"]], [2**63, "UTC"], 2**63, -(2**63) - 1, 2**64, 10**40),
    *(Decimal("1.5"), Decimal("-0.5"), Decimal("9300000000000000000.0"), Decimal("0.001"), [Decimal("0.1"), "UTC"]),
    *(Decimal("123456789.25"), Decimal("-1.000000001")),
)
WHOLE_DECIMALS = tuple(
    map(Decimal, ("0.0", "1.0", "15.000", "1670006453141828752.00", "-1000.0", "-9223372036854775808.0"))
)
UNCLEAR_NUMBERS = tuple(
    map(
        Decimal,
        (
            *("9223372036854775807.1", "1000000000000000000.0001", "0.99999999999999999999999"),
            *("-9223372036854775808.1", "1670006453141828752.01", f"0.{'3' * 1_100}"),
        ),
    )
)
EDGES = (0, 1, -1, 999_999_999, 10**9, -(10**9), 2**63 - 1, -(2**63), 2**53, -(2**53), 951_782_400 * 10**9)
_YEAR_SECONDS = 31_556_952
_LETTERS = " 0123456789+-:.,ZTzt/abwydhmsnuµμUTCGMJanFriéſ\u0000"


@cache
def changes(name: str, year: int) -> tuple[int, ...]:
    """Seconds at which the zone's offset or abbreviation changes within the year."""
    place = zones.zone(name)
    start = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    points = [start + 14 * 86_400 * number for number in range(27)]
    found = []
    for before, after in zip(points, points[1:], strict=False):
        low, high = before, after
        if zones.offset(place, low) == zones.offset(place, high):
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if zones.offset(place, middle) == zones.offset(place, low) else (low, middle)
        found.append(high)
    return tuple(found)


def nanoseconds(draw: Random) -> int:
    """An instant, mostly of these decades."""
    kind = draw.randrange(8)
    if kind == 0:
        return draw.choice(EDGES)
    if kind == 1:
        return draw.randrange(-(2**63), 2**63)
    if kind == 2:
        return draw.randrange(-(2**63), 2**63) // 86_400_000_000_000 * 86_400_000_000_000 + draw.choice((-1, 0, 1))
    seconds = draw.randrange(0, 70 * _YEAR_SECONDS)
    return seconds * 10**9 + draw.choice((0, 0, 10**6, draw.randrange(10**9)))


def zoned(draw: Random) -> list[Value]:
    """An instant in a zone, often beside a change of its clocks."""
    name = draw.choice(draw.choice((ZONES, ZONES, USUAL_ZONES)))
    if draw.random() < 0.4:
        found = changes(name, draw.choice((draw.randrange(1970, 2040), draw.randrange(2040, 2262)))) if name else ()
        if found:
            seconds = draw.choice(found) + draw.choice((-3600, -1, 0, 1, 3599, 3600, draw.randrange(-90_000, 90_000)))
            return [seconds * 10**9 + draw.choice((0, 0, 1, -1, 5 * 10**8)), name]
    return [nanoseconds(draw), name]


def instant(draw: Random) -> Value:
    """An operand that stands for an instant, sometimes a wrong one."""
    kind = draw.randrange(20)
    if kind < 4:
        return nanoseconds(draw)
    if kind < 16:
        return zoned(draw)
    if kind == 16:
        return [nanoseconds(draw), draw.choice(NO_ZONES)]
    if kind == 17:
        others: tuple[Value, ...] = (*WHOLE_DECIMALS, [nanoseconds(draw)], [nanoseconds(draw), "UTC", "", 1])
        return draw.choice(others)
    if kind == 18:
        place: Value = [nanoseconds(draw), draw.choice(MACHINE_ZONES)]
        return place if draw.random() < 0.5 else draw.choice(UNCLEAR_NUMBERS)
    return draw.choice(NO_INSTANTS)


def laid_out(draw: Random) -> Value:
    """An instant with a layout."""
    if draw.random() < 0.2:
        return instant(draw)
    layout = draw.choice((*NAMED, *sorted(LAYOUTS), "")) if draw.random() < 0.99 else "Jan 2 2006"
    return [*(zoned(draw) if draw.random() < 0.8 else [nanoseconds(draw), "UTC"]), layout]


def step(draw: Random) -> Value:
    """How many years, months or days to add."""
    kind = draw.randrange(24)
    if kind < 20:
        most = draw.choice((1, 3, 15, 40, 400, 4_000, 90_000))
        return draw.randint(-most, most)
    if kind < 22:
        return draw.choice((0, 10**9, -(10**9), 10**6, 150_000_000))
    return draw.choice(
        (
            10**9 + 1,
            2**62,
            2**63 - 1,
            -(2**63),
            2**63,
            2**70,
            Decimal("1.0"),
            Decimal("1.5"),
            Decimal("-12.00"),
            None,
            True,
            "1",
        )
    )


def changed(draw: Random, text: str, often: float) -> str:
    """The text with a few characters taken out, put in or exchanged."""
    while text and draw.random() < often:
        at = draw.randrange(len(text))
        text = text[:at] + draw.choice(("", draw.choice(_LETTERS), text[at] * 2, text[at].swapcase())) + text[at + 1 :]
    return text


def duration(draw: Random) -> Value:
    """A duration, sometimes one with a mistake or beyond a limit."""
    if draw.random() < 0.02:
        return draw.choice((None, True, 1, [], {}, ["1h"]))
    units = draw.choice(
        (("h", "m", "s"), ("ns", "us", "µs", "μs", "ms", "s"), ("d", "w", "y", "h", "m", "s", "ms", "µs"))
    )
    parts = []
    for _ in range(draw.choice((1, 1, 2, 3))):
        figure = str(draw.randrange(10 ** draw.choice((1, 2, 3, 4, 6, 9, 14, 19, 22))))
        if draw.random() < 0.4:
            figure = (
                draw.choice((figure, figure, ""))
                + "."
                + draw.choice(("", "0", "5", _digits(draw, draw.choice((3, 9, 25)))))
            )
        parts.append(draw.choice(("", "", "", "0", "000")) + figure + draw.choice(units))
    return changed(draw, draw.choice(("", "", "", "-", "+")) + "".join(parts), 0.1)


def _digits(draw: Random, most: int) -> str:
    return "".join(draw.choice("0123456789") for _ in range(draw.randint(1, most)))


def text_of(draw: Random, layout: str) -> str:
    """A text after the layout, or nearly so."""
    usual = draw.random() < 0.6
    year = (
        draw.randrange(1900, 2100)
        if usual
        else draw.choice((1677, 1900, 2000, 2023, 2024, 2262, draw.randrange(10_000)))
    )
    day = draw.randint(1, 28) if usual else draw.choice((0, 29, 30, 31, 32, draw.randrange(100)))
    month = draw.randint(1, 12) if usual else draw.choice((0, 2, 2, 4, 12, 13))
    clock = [draw.choice((0, most - 1, most, draw.randrange(most), draw.randrange(most))) for most in (24, 60, 60)]
    clock = clock if draw.random() < 0.3 else [min(clock[0], 23), min(clock[1], 59), min(clock[2], 59)]
    second = f"{clock[2]:02}" + draw.choice(("", "", "." + _digits(draw, 12), "," + _digits(draw, 3), "."))
    hours, minutes = (
        (draw.randrange(15), 30) if usual else draw.choice(((0, 0), (draw.randrange(26), draw.randrange(63))))
    )
    sign = draw.choice("+-")
    named = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[month % 12]
    words = (
        ("Monday", draw.choice(("Monday", "Sunday", "friday") if usual else ("Someday", "Mon", ""))),
        ("Mon", draw.choice(("Mon", "Sun", "fri", "SAT") if usual else ("Som", "Mo", ""))),
        (
            "MST",
            draw.choice(
                ("UTC", "GMT") if usual else ("CET", "PDT", "GMT+3", "UTCX", "GMTX", "Z", "MESZ", "+03", "gmt")
            ),
        ),
        ("Jan", draw.choice((named, named, named.upper()))),
        ("-0700", f"{sign}{hours:02}{minutes:02}"),
        ("Z07:00", draw.choice(("Z", f"{sign}{hours:02}:{minutes:02}"))),
        ("2006", f"{year:04}"),
        ("01", f"{month:02}"),
        ("02", f"{day:02}"),
        ("_2", draw.choice((f"{day:2}", str(day), f"{day:02}"))),
        ("04", f"{clock[1]:02}"),
        ("05.999999999", second),
        ("05", second),
        ("06", f"{year % 100:02}"),
        ("15", draw.choice((f"{clock[0]:02}", str(clock[0])))),
    )
    marks = {}
    for number, (word, value) in enumerate(words):
        mark = chr(0xE000 + number)
        layout = layout.replace(word, mark)
        marks[mark] = value
    text = "".join(marks.get(character, character) for character in layout)
    return changed(draw, text, 0.05 if usual else 0.2)


def to_parse(draw: Random) -> list[Value]:
    """A layout, and a text to read after it."""
    layout = draw.choice((*NAMED, *sorted(LAYOUTS)))
    if draw.random() < 0.03:
        return [draw.choice((None, 1, layout, "", "Jan 2 2006")), draw.choice((None, 1, ["x"], text_of(draw, layout)))]
    return [layout, text_of(draw, NAMED.get(layout, layout))]
