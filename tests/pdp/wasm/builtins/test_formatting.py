"""What ``sprintf`` prints, refuses and leaves open. The same against OPA: ``tests/agreement``."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pdp.wasm.builtins.formatting import DIGITS_MAX, DIRECTIVES_MAX, RESULT_MAX, sprintf
from pdp.wasm.builtins.values import DEPTH_MAX, Declined, RegoSet, Undefined, Value

PI = Decimal("3.14159")
LARGE = 10**20

PRINTED: dict[str, tuple[str, list[Value], str]] = {
    "texts and numbers": ("%s may not spend %d", ["ann", 250], "ann may not spend 250"),
    "a percent sign": ("%d%% of %v", [12, "it"], "12% of it"),
    "null and booleans": ("%v %s %v", [None, True, False], "null true false"),
    "a boolean that Go gets as a text": ("%t", [True], "%!t(string=true)"),
    "collections": (
        "%v %v %v",
        [[1, "a", None, True], {"b": PI, "a": {}}, RegoSet((3, 1, "x"))],
        '[1, "a", null, true] {"a": {}, "b": 3.14159} {1, 3, "x"}',
    ),
    "an empty set": ("%v", [RegoSet(())], "set()"),
    "a fraction": ("%v %.2f %8.1f| %e %G", [PI] * 5, "3.14159 3.14      3.1| 3.141590e+00 3.14159"),
    "a fraction of a million": ("%v %g %G", [Decimal("1234567.5")] * 3, "1.2345675e+06 1.2345675e+06 1.2345675E+06"),
    "a small fraction": ("%v %v", [Decimal("0.0005"), Decimal("0.00002")], "0.0005 2e-05"),
    "a whole number with a point": ("%v %d", [Decimal("1.0"), Decimal("-2.00")], "1 -2"),
    "signs": ("%+d % d %+d %+.1f % .1f", [1, 1, -1, PI, PI], "+1  1 -1 +3.1  3.1"),
    "a sign that is another flag": ("%+v %+v %+v %+w", [1, PI, LARGE, 1], f"1 3.14159 +{LARGE} %!w(int64=1)"),
    "widths": ("%4d|%-4d|%04d|%-4s|%4s|%08.2f", [7, 7, -7, "é", "é", -PI], "   7|7   |-007|é   |   é|-0003.14"),
    "precisions": ("%.3d %.0d|%.2s %.2d", [7, 0, "héé", LARGE], f"007 |hé {LARGE}"),
    "other bases": ("%x %X %b %o %O %08x", [255, 255, 5, 8, 8, 255], "ff FF 101 10 0o10 000000ff"),
    "a large number": (
        "%s %x %O %024d",
        [LARGE] * 4,
        f"{LARGE} 56bc75e2d63100000 0o12657072742654304000000 000{LARGE}",
    ),
    "hexadecimal texts": ("%x % X %.2x", ["hé", "hé", "hé"], "68c3a9 68 C3 A9 68c3"),
    "a quoted text": (
        "%q %+q %.1q",
        ['"\\\n\x00\x7fé\u200b😀', "é😀\n", "ab"],
        r'"\"\\\n\x00\x7fé\u200b😀" "\u00e9\U0001f600\n" "a"',
    ),
    "a verb that does not fit a text": ("%d %5z", ["hi", "hi"], "%!d(string=hi) %!z(string=   hi)"),
    "a verb that does not fit a number": ("%s %+s %s", [5, 5, PI], "%!s(int64=5) %!s(int64=+5) %!s(float64=3.14159)"),
    "a verb that does not fit a large number": ("%f", [LARGE], f"%!f(big.Int={LARGE})"),
    "types": ("%T %T %T %T", [1, LARGE, PI, None], "int64 *big.Int float64 string"),
    "operands that are missing": ("%s %d", ["a"], "a %!d(MISSING)"),
    "operands left over": ("%s", ["a", 1, PI, "b"], "a%!(EXTRA int64=1, float64=3.14159, string=b)"),
    "a sign at the end": ("100%", [], "100%!(NOVERB)"),
    "places": ("%[2]s %[1]s", ["a", "b"], "b a"),
    "places that are not there": ("%[3]v %[0]v", ["a"], "%!v(BADINDEX) %!v(BADINDEX)"),
    "verbs that look like stars": ("%5* %.5*", [1, 2], "%!*(int64=    1) %!*(int64=00002)"),
}


@pytest.mark.parametrize(("template", "operands", "expected"), PRINTED.values(), ids=PRINTED.keys())
def test_sprintf_prints_when(template: str, operands: list[Value], expected: str) -> None:
    assert sprintf(template, operands) == expected


UNDEFINED: dict[str, tuple[Value, Value]] = {
    "the template is a number": (5, []),
    "the template is null": (None, []),
    "the operands are a text": ("%s", "a"),
    "the operands are an object": ("%s", {"a": 1}),
    "the operands are a set": ("%s", RegoSet(("a",))),
}


@pytest.mark.parametrize(("template", "operands"), UNDEFINED.values(), ids=UNDEFINED.keys())
def test_sprintf_is_undefined_when(template: Value, operands: Value) -> None:
    with pytest.raises(Undefined):
        sprintf(template, operands)


def nested(depth: int) -> Value:
    value: Value = 1
    for _ in range(depth):
        value = [value]
    return value


DECLINED: dict[str, tuple[str, list[Value]]] = {
    "Go's own literals are asked for": ("%#v", ["a"]),
    "zeros stand on the right": ("%-05d", [1]),
    "an operand is a width": ("%*d", [5, 1]),
    "an operand is a precision": ("%.*f", [2, PI]),
    "an operand is a precision after a width": ("%5.*f", [2, PI]),
    "a place is no number": ("%[x]d", [1]),
    "a place comes before a width": ("%[1]5d", [1]),
    "a place has four digits": ("%[0001]d", [1]),
    "a width has four digits": ("%1000d", [1]),
    "a precision has four digits": ("%.1000f", [PI]),
    "zeros stand before a text": ("%05s", ["a"]),
    "a number is a character": ("%c", [65]),
    "a number is a quoted character": ("%q", [65]),
    "a fraction is hexadecimal": ("%x", [PI]),
    "a large number is an address": ("%p", [LARGE]),
    "a number has an exponent": ("%v", [Decimal("1E+3")]),
    "a number has no point, having lost its exponent": ("%v", [Decimal("5E0")]),
    "a number is so small that the input writes an exponent": ("%v", [Decimal("0.0000015")]),
    "a fraction has too many digits": ("%v", [Decimal(f"0.{'3' * (DIGITS_MAX + 1)}")]),
    "a whole number has many zeros after its point": ("%v", [Decimal("1.00000000000000000")]),
    "a zero has many zeros after its point": ("%v", [Decimal("0.000000")]),
    "a fraction within ends in zero": ("%v", [[Decimal("1.50")]]),
    "a value is nested too deep": ("%v", [nested(DEPTH_MAX + 1)]),
    "a quoted character is not assigned": ("%q", ["\u0378"]),
    "a text within is no Unicode": ("%v", [["\ud800"]]),
    "a text is no Unicode": ("%x", ["\ud800"]),
    "there are too many directives": ("%%" * (DIRECTIVES_MAX // 2) + "%", []),
    "the result is too long": ("%s", ["a" * (RESULT_MAX + 1)]),
}


@pytest.mark.parametrize(("template", "operands"), DECLINED.values(), ids=DECLINED.keys())
def test_sprintf_declines_when(template: str, operands: list[Value]) -> None:
    with pytest.raises(Declined):
        sprintf(template, operands)


def test_sprintf_prints_when_everything_is_at_its_limit() -> None:
    assert sprintf("%s", ["a" * RESULT_MAX]) == "a" * RESULT_MAX
    assert sprintf("%v", [nested(DEPTH_MAX)]) == "[" * DEPTH_MAX + "1" + "]" * DEPTH_MAX
    assert sprintf("%v", [Decimal(f"0.{'3' * DIGITS_MAX}")]) == "0.3333333333333333"
    assert sprintf("%v", [Decimal("0.00001")]) == "1e-05"
    assert sprintf("%%" * (DIRECTIVES_MAX // 2), []) == "%" * (DIRECTIVES_MAX // 2)
    assert sprintf("%999d", [1]) == "1".rjust(999)
    assert sprintf("%d", [Decimal("12345678.000000000")]) == "12345678"
    assert sprintf("%d %d", [2**63 - 1, -(2**63)]) == f"{2**63 - 1} {-(2**63)}"
    assert sprintf("%s %s", [2**63, -(2**63) - 1]) == f"{2**63} {-(2**63) - 1}"
