"""The host's ``sprintf`` beside OPA's: a table of cases, and drawn templates and operands."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from pdp.wasm.builtins.formatting import _LATER, sprintf
from pdp.wasm.builtins.values import Declined, RegoSet, Value
from tests.agreement.builtin_values import Operands, compare

Draw = Callable[[random.Random], Value]

TABLE: dict[str, Operands] = {
    "a text": ("user %s", ["ann"]),
    "a number": ("%d of %d", [3, 10]),
    "any value": ("%v %v %v %v", ["a", 1, True, None]),
    "a decimal": ("%.2f", [Decimal("12.345")]),
    "a percent sign": ("%d%% of %v", [12, "all"]),
    "nothing to fill in": ("no directive", []),
    "an empty template": ("", []),
    "one alone, as a conversion to text": ("%d", [7]),
    "one alone that is negative": ("%d", [-7]),
    "a large whole number as a text": ("%s", [123456789123456789123]),
    "the serial number of a certificate": ("%s %d %x", [2**80 - 1, 2**80 - 1, 2**80 - 1]),
    "whole numbers at the ends of 64 bits": ("%v %v %v %v", [2**63 - 1, -(2**63), 2**63, -(2**63) - 1]),
    "their types": ("%T %T %T %T %T", [2**63 - 1, 2**63, Decimal("1.5"), "x", None]),
    "a whole number with a point": ("%v %d %s %f", [Decimal("1.0"), Decimal("2.00"), Decimal("-3.0"), Decimal("4.0")]),
    "zero with a point": ("%v %d %+d", [Decimal("0.0"), Decimal("0.00"), Decimal("0.000")]),
    "half a cent either way": ("%.2f %.2f %.2f", [Decimal("0.125"), Decimal("0.375"), Decimal("1.005")]),
    "halves of one": ("%.0f %.0f %.0f %.0f", [Decimal("0.5"), Decimal("1.5"), Decimal("2.5"), Decimal("-0.5")]),
    "a million and a fraction": ("%v %v", [Decimal("1000000.5"), Decimal("999999.5")]),
    "small fractions": ("%v %v %v", [Decimal("0.0001"), Decimal("0.00012"), Decimal("0.00001")]),
    "seventeen digits": ("%v %g %f", [Decimal("0.12345678901234567")] * 3),
    "fractions in every way": ("%v %g %G %f %F %e %E", [Decimal("-1234.5678")] * 7),
    "fractions cut": ("%.3g %.0g %.10g %.3e %.0f %.20f", [Decimal("1234.5678")] * 6),
    "an array, an object and a set": ("%v %v %v", [[1, "a", None], {"b": [True], "a": {}}, RegoSet.of([3, 1, 2])]),
    "empty ones": ("%v %v %v", [[], {}, RegoSet(())]),
    "sets of everything": (
        "%v",
        [RegoSet.of([None, True, False, 2, Decimal("1.5"), "b", "a", [2], [1, 2], {"a": 1}, RegoSet.of([1])])],
    ),
    "sets of objects": ("%s", [RegoSet.of([{"a": 2}, {"a": 1, "b": 0}, {"a": 1}, {"b": 0}, {}])]),
    "a fraction within": ("%v", [[Decimal("12.5"), -1, Decimal("-0.25")]]),
    "escapes within": ("%v", [['q"\\\a\b\f\n\r\t\v\x00\x1f\x7f\x80\xa0\xad\u200b\u2028\ufeff\ue000 é€\ufffd𝄞']]),
    "emoji within": ("%v", [["😀🎉🇪🇺👍🏽\u200d\ufe0f"]]),
    "keys that are quoted": ("%v", [{'"': 1, "é": 2, "": 3, "z": 4, "Z": 5}]),
    "quoted texts": ("%q %q %+q %.2q|%8q|%-8q|", ['a"b', "é", "é😀\n", "abc", "é", "é"]),
    "hexadecimal texts": ("%x %X % x %.2x %.3x|%8x|%-8x|% X", ["é", "é", "héj", "éé", "éé", "a", "a", ""]),
    "hexadecimal numbers": ("%x %X %+x % x %08x", [255, 255, 255, -255, -255]),
    "other bases": ("%b %o %O %08b %O %+O", [10, 10, 10, -2, -8, 8]),
    "widths": ("%5d|%-5d|%05d|%+5d|% 5d|%+05d|% 05d", [42, 42, -42, 42, 42, 42, 42]),
    "widths with precision": ("%8.3d|%-8.3d|%08.3d|%.0d|%5.0d|%+.0d|%.d|", [7, 7, 7, 0, 0, 0, 0]),
    "widths of texts": ("%6s|%-6s|%.2s|%6.2s|%-6.2s|%6v|%.0s|", ["héé", "héé", "héé", "héé", "héé", "héé", "h"]),
    "widths of fractions": ("%8.2f|%-8.2f|%08.2f|%+.1f|% .1f|%+08.2f|% 08.2f", [Decimal("-3.14159")] * 7),
    "widths of positive fractions": ("%8.2f|%-8.2f|%08.2f|%+.1f|% .1f|%+08.2f|% 08.2f", [Decimal("3.14159")] * 7),
    "widths of large numbers": ("%40d|%-40d|%040d|%+d|% d|%.40d|%045.40d|%+v|%+s|%O|%045O", [10**30] * 11),
    "verbs that do not fit texts": ("%d %f %t %c %5d|%-5d|%+d %e %z %w %+w", ["hi"] * 11),
    "verbs that do not fit whole numbers": ("%s %f %t %5s|%-8s|%+s %05s %.3s %z %w %+w", [5] * 11),
    "verbs that do not fit fractions": ("%s %d %t %5d|%12d|%+s %012d %.3s %z %w %c", [Decimal("1.5")] * 11),
    "verbs that do not fit large numbers": ("%f %q %t %z %c %U %5f %e", [10**20] * 8),
    "verbs that do not fit what is text for Go": ("%d %d %t %d %d", [None, True, False, [1], {"a": 1}]),
    "a verb of another alphabet": ("100% über %é", ["x", "y"]),
    "a verb that is a line's end": ("100%\nof", [5]),
    "an address of nothing": ("%p %p %p", [1, "x", Decimal("1.5")]),
    "a type with flags": ("%10T|%-10T|%.3T", [1, 1, 1]),
    "too few": ("%s and %s and %d", ["a"]),
    "none at all": ("%s %5d %v %z", []),
    "too many": ("%s", ["a", 1, Decimal("1.5"), None, [1], 10**20]),
    "too many without a directive": ("done", ["a", "b"]),
    "a sign at the end": ("100%", []),
    "a sign at the end with one left": ("100%", [1]),
    "flags at the end": ("%-5.2", [1]),
    "a point at the end": ("%5.", [1]),
    "a point before a verb": ("%.d %5.v", [1, "x"]),
    "percent signs with flags": ("%5%|%-%|%.3%|%%%%|% %", []),
    "places": ("%[2]s %[1]s %s", ["a", "b"]),
    "places again and again": ("%[1]v %[1]q %[1]x %v", ["a", "b"]),
    "places after a width": ("%5[2]d|%-5.1[1]s|%.[2]d", ["abc", 7]),
    "places that are not there": ("%[3]v %[0]d %v", [1, 2]),
    "a place of a percent sign": ("%[2]% %v", [1, 2]),
    "a place without a verb": ("%[1]", [1]),
    "stars that are verbs": ("%5* %.5* %5.5*", [1, 2, 3]),
    "a word after a sign": ("50 % done", ["x"]),
    "no operands but a text": ("%s", "a"),
    "no text": (5, ["a"]),
    "null": (None, []),
    "an object of operands": ("%s", {"a": 1}),
}


DECLINED: dict[str, Operands] = {
    "a Go literal": ("%#v", ["a"]),
    "an operand as width": ("%*d", [5, 1]),
    "an operand as precision": ("%.*f", [2, Decimal("1.5")]),
    "an operand as precision after a width": ("%5.*f", [2, Decimal("1.5")]),
    "a place that is no number": ("%[x]d", [1]),
    "a place before a width": ("%[1]5d", [1]),
    "a place before a precision": ("%[1].2f", [Decimal("1.5")]),
    "two places": ("%[1][2]d", [1, 2]),
    "a place of four digits": ("%[0001]d", [1]),
    "a width of four digits": ("%1000d", [1]),
    "a precision of four digits": ("%.1000f", [Decimal("1.5")]),
    "zeros on the right": ("%-05d", [1]),
    "zeros before a text": ("%05s", ["a"]),
    "zeros before a text that does not fit": ("%05d", ["a"]),
    "a number as a character": ("%c", [65]),
    "a number as a quoted character": ("%q", [65]),
    "a number as a code point": ("%U", [65]),
    "a fraction in binary": ("%b", [Decimal("1.5")]),
    "a fraction in hexadecimal": ("%x", [Decimal("1.5")]),
    "an address of a large number": ("%p", [10**20]),
    "an error that is a large number": ("%w", [10**20]),
    "a number that the input writes with an exponent": ("%v", [Decimal("0.000001")]),
    "eighteen digits": ("%v", [Decimal("0.333333333333333333")]),
    "a whole number with a long fraction": ("%v", [Decimal("0.000000000000000000")]),
    "a fraction within that ends in zero": ("%v", [[Decimal("1.50")]]),
    "a whole number with a point within": ("%v", [[Decimal("1.0")]]),
    "a sign of Unicode 16 that is quoted": ("%q", ["\U00010d40"]),
    "a sign that does not exist, within": ("%v", [["\u0378"]]),
    "a result of a million signs": ("%999s" * 1002, ["a"] * 1002),
}


def test_sprintf_answers_as_opa_when_called_as_in_the_table(opa_path: Path) -> None:
    found = compare(opa_path, "sprintf", sprintf, list(TABLE.values()))
    assert found.differing == []
    assert found.declined == []
    assert found.undefined_count == 4


def test_sprintf_declines_when_equality_is_not_proved(opa_path: Path) -> None:
    calls = list(DECLINED.values())
    assert compare(opa_path, "sprintf", sprintf, calls).declined == calls


WORDS = ("", "a", "user ann", 'say "hi"', "Zoë", "日本語", "😀", "a\nb", "\x00", "\xad", "100%", "%d", "é" * 9)
FLAGS = ("", "", "", "", "-", "+", "0", " ", "+0", "- ", "-+", " 0", "++", "00", "#", "-0")
WIDTHS = ("", "", "", "", "1", "4", "9", "12", "33", "70", "999", "1000")
PRECISIONS = ("", "", "", "", ".", ".0", ".1", ".2", ".3", ".9", ".20", ".80", ".*")
VERBS = (*("vvvvvvssssddddf"), *("qxXfFeEgGboOtTcUpwz%!*.[é\n "))


def draw_number(random_: random.Random) -> Value:
    kind = random_.randrange(8)
    if kind < 3:
        return random_.choice((0, 1, -1, 5, 9, 10, 42, 100, 255, -1000, 65536, random_.randrange(-(10**6), 10**6)))
    if kind == 3:
        return random_.choice((2**31, 2**53, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**64, 10**30, -(10**40)))
    if kind == 4:
        return int(random_.uniform(-1, 1) * 10 ** random_.randrange(25))
    if kind == 5:
        return Decimal(repr(round(random_.uniform(-2000, 2000), random_.randrange(4))))
    digits = random_.randrange(1, random_.choice((4, 8, 16, 19)))
    number = Decimal(random_.randrange(10**digits)).scaleb(-random_.randrange(0, digits + 4))
    return -number if random_.random() < 0.3 else number


def draw_value(random_: random.Random, depth: int = 2) -> Value:
    kind = random_.randrange(10 if depth else 7)
    if kind < 3:
        return random_.choice(WORDS) + random_.choice(WORDS) if random_.random() < 0.5 else random_.choice(WORDS)
    if kind < 6:
        return draw_number(random_)
    if kind == 6:
        return random_.choice((None, True, False))
    size = random_.randrange(4)
    if kind == 7:
        return {random_.choice(WORDS): draw_value(random_, depth - 1) for _ in range(size)}
    if kind == 8 and random_.random() < 0.02:
        return RegoSet.of(draw_value(random_, depth - 1) for _ in range(size))
    return [draw_value(random_, depth - 1) for _ in range(size)]


def draw_template(random_: random.Random, operands: int) -> str:
    pieces = []
    for _ in range(max(0, operands + random_.choice((-1, 0, 0, 0, 0, 0, 1)))):
        if random_.random() < 0.3:
            pieces.append(random_.choice(WORDS))
        plain = random_.random() < 0.4
        flags = "" if plain else random_.choice(FLAGS)
        shape = "" if plain else random_.choice(WIDTHS) + random_.choice(PRECISIONS)
        place = f"[{random_.randrange(5)}]" if random_.random() < 0.03 else ""
        pieces.append(f"%{flags}{shape}{place}{random_.choice(VERBS)}")
    if random_.random() < 0.05:
        pieces.append(random_.choice(("%", "%5", "%.", "%+", "%[", "%[1", "%.3", "%[1]")))
    return "".join(pieces)


def draw_call(random_: random.Random) -> Operands:
    operands = [draw_value(random_) for _ in range(random_.choice((0, 1, 1, 1, 1, 2, 2, 3, 4)))]
    return draw_template(random_, len(operands)), operands


def draw_number_call(random_: random.Random) -> Operands:
    verb = random_.choice("vdxXboOgGfFeE")
    flags, width = random_.choice(FLAGS[:-2]), random_.choice(WIDTHS[:-1])
    return f"%{flags}{width}{random_.choice(PRECISIONS[:-1])}{verb}", [draw_number(random_)]


@pytest.mark.parametrize("draw", [draw_call, draw_number_call])
def test_sprintf_answers_as_opa_when_calls_are_drawn(opa_path: Path, draw: Callable[..., Operands]) -> None:
    random_ = random.Random(2024)
    calls = [draw(random_) for _ in range(4000)]
    found = compare(opa_path, "sprintf", sprintf, calls)
    assert found.differing == []
    assert found.agreeing_count > 2000
    assert found.undefined_count == 0


@pytest.mark.soak
@pytest.mark.parametrize("draw", [draw_call, draw_number_call])
def test_sprintf_answers_as_opa_when_many_more_are_drawn(opa_path: Path, draw: Callable[..., Operands]) -> None:
    random_ = random.Random()
    for _ in range(20):
        found = compare(opa_path, "sprintf", sprintf, [draw(random_) for _ in range(4000)])
        assert found.differing == []


def test_sprintf_quotes_as_opa_when_given_any_character(opa_path: Path) -> None:
    edges = {edge >> 4 for block in _LATER for edge in (block[0] - 1, block[0], block[-1], block[-1] + 1)}
    blocks = sorted({code >> 4 for code in range(0x3100)} | edges)
    codes = [code for block in blocks for code in range(block << 4, (block + 1) << 4)]
    assert _quoted_alike(opa_path, codes) > 9_000


@pytest.mark.soak
def test_sprintf_quotes_as_opa_when_given_every_character(opa_path: Path) -> None:
    assert _quoted_alike(opa_path, range(0x110000)) > 230_000


def _quoted_alike(opa_path: Path, codes: Sequence[int]) -> int:
    """How many of these characters the host quotes, all of them as OPA does."""
    quoted = [chr(code) for code in codes if code >> 11 != 0x1B and _is_quoted(chr(code))]
    texts = ["".join(quoted[start : start + 64]) for start in range(0, len(quoted), 64)]
    found = compare(opa_path, "sprintf", sprintf, [("%q %v %+q", [text, [text], text]) for text in texts])
    assert found.differing == []
    assert found.declined == []
    return len(quoted)


def _is_quoted(character: str) -> bool:
    try:
        return bool(sprintf("%q", [character]))
    except Declined:
        return False
