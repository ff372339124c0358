"""Ranges and amounts: the host gives OPA's numbers, in OPA's spelling, and declines only what is very large or small."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from pdp.wasm.builtins.numbers import BUILTINS
from pdp.wasm.builtins.values import Value
from tests.agreement.builtin_values import Comparison, Operands, by_opa, compare

WRONG: list[Value] = [None, True, False, [], [1], {}, {"a": 1}]

RANGES: dict[str, tuple[Value, Value, Value]] = {
    "upwards": (0, 10, 2),
    "downwards": (0, -10, 2),
    "past the end": (10, 3, 2),
    "a single number": (2, 2, 2),
    "a step beyond the end": (0, 10, 99999999999999999999),
    "a large step": (1024, 4096, 1024),
    "a step of zero": (0, 10, 0),
    "a step below zero": (0, 10, -2),
    "a fraction": (Decimal("0.5"), 10, 1),
    "a step that is a fraction": (0, 10, Decimal("1.5")),
    "an end that is a fraction": (0, Decimal("9.99"), 1),
    "whole numbers with a point": (Decimal("0.0"), Decimal("10.0"), Decimal("5.000")),
    "a whole number with several zeros behind its point": (Decimal("1.00"), 3, 1),
    "around OPA's small numbers": (-3, 2, 1),
    "from one of OPA's small numbers downwards": (3, -1, 1),
    "up to the last of OPA's small numbers": (505, 515, 1),
    "beyond 64 bits": (2**63 - 2, 2**63 + 2, 1),
    "far beyond 64 bits": (-(10**30), 10**30, 10**29),
    "a text": ("0", 1, 1),
    "a truth value": (True, 3, 1),
}

NUMBERS = (
    "0 0.0 .0 0. . 1 12345 007 1.5 1.1 0.1 0.29 0.57 0.001 0.0005 0.0000005 123.456 4.35 9.999 1e3 1E3 1e+3 1e-3 1.e2"
    " 5e 5e+ 5e- e5 1e0000001 1e000001 10e10000000 1e1e1 1e1.5 -1 +1 --1 -+1 1-1 1+1 - + -0 -0.0 -.5 0.0.0 .5.2 1.2.3"
    " 1_000 0x10 0b1 0o7 0e5 1p3 Inf -Inf NaN inf 9223372036854775807 18446744073709551615 18446744073709551616"
    " 18446744073709551617 36893488147419103234 36893488147419103235 123456789012345678901234567890"
    " 0.999999999999999999999 0.33333333333333333333333333333333333333333333333333333"
    " 1.00000000005 1.000000000049999 0.00000000004 0.99999999995 1e22 1e55 1e56 1e-55 1e-56 1e300 1e301 1e-300 1e-301"
).split()
SUFFIXES = (
    " m M k K ki Ki kI KI kb KB Kb kib KiB mi Mi mb MB mib g G gi Gi gb gib GIB t T ti tb tib p P pi pb pib"
    " e E ei Ei EI eb EB eib x kk b B kbb kibb i ib bytes %"
).split(" ")
_LONG_POWER = re.compile('[eE]["+-]*[0-9]["0-9]{2,}')
"""Powers of ten with which OPA's answers have many thousands of digits."""
AMOUNTS = [
    *(number + suffix for number in NUMBERS for suffix in ("", "k", "Mi", "e", "m")),
    *(number + suffix for number in ("1", "1.5", "3.2E2", "0.3", "-7", "1e5", "1000") for suffix in SUFFIXES),
    *('"100TIB" "1 1" "" 1"0"k k"1 "k"'.split()),
    *("100 kb", " 1", "1 ", " ", "1\tk", "1\n", "1\u00a0k", "1\u0000", "\u0000", "1\u0000k"),
    *("1\u212a", "1\u212ai", "1k\u0130", "1\u0130", "1m\u0130B", "1\u212ab", "1\u00b5", "1\u00e9", "1\u00b2", "\u00b2"),
    *("\u0661", "\uff11", "1\uff11", "1\uff2b", "1k\u0131", "1\u017f", "1\u00c5", "\u00e9", "1e\uff11", "1\U0001f600k"),
]


def _draw_amount(source: random.Random) -> str:
    whole = "".join(source.choices("0123456789", k=source.choice((0, 1, 1, 2, 3, 5, 9, 19, 25))))
    places = "".join(source.choices("0123456789", k=source.choice((1, 1, 2, 3, 6, 10, 11, 20))))
    number = whole + source.choice(("", "", ".", "." + places, "." + places, "." + places, ".5"))
    if source.random() < 0.3:
        number += source.choice("eE") + source.choice(("", "", "+", "-")) + str(source.choice((0, 1, 2, 3, 9, 18, 30)))
    number = source.choice(("", "", "", "-", "+")) + number
    text = number + source.choice(SUFFIXES[: -10 if source.random() < 0.9 else None])
    while source.random() < 0.08:
        at = source.randrange(len(text) + 1)
        text = text[:at] + source.choice('"" .eE+-0_iB\u0130\u212a\u00e9\t') + text[at:]
    return _LONG_POWER.sub("e99", text)


def _draw_range(source: random.Random) -> Operands:
    def number() -> Value:
        if source.random() < 0.02:
            return source.choice(WRONG)
        value = source.choice((0, 1, 509, 2**31, 2**63, -(2**63), 10**25)) + source.randrange(-40, 40)
        if source.random() < 0.1:
            return Decimal(f"{value}{source.choice(('.0', 'e0', '.00', '.5', '0e-1'))}")
        return value

    first = number()
    last = number()
    if isinstance(first, int) and source.random() < 0.7:
        last = first + source.randrange(-300, 300)
    step = source.choice((source.randrange(1, 60), source.randrange(1, 10**30), source.randrange(-1, 3), number()))
    if isinstance(first, (int, Decimal)) and isinstance(last, (int, Decimal)) and abs(int(first) - int(last)) > 1000:
        step = abs(int(first) - int(last)) // source.randrange(1, 40) + source.randrange(3)
    return (first, last, step)


def _compared(opa: Path, name: str, calls: Sequence[Operands]) -> Comparison:
    """The comparison, which minds spelling besides: what is answered is written as OPA writes it."""
    found = compare(opa, name, BUILTINS[name], calls)
    declined = {repr(operands) for operands in found.declined}
    answered = [operands for operands in calls if repr(operands) not in declined]
    for operands, theirs in zip(answered, by_opa(opa, name, answered), strict=True):
        if not isinstance(theirs, str):
            assert str(BUILTINS[name](*operands)) == str(theirs)
    return found


def test_range_step_answers_as_opa_when_given_anything(opa_path: Path) -> None:
    calls = [*RANGES.values(), *((value, 1, 1) for value in WRONG), *((1, value, 1) for value in WRONG)]
    calls += [(1, 1, value) for value in WRONG]
    found = _compared(opa_path, "numbers.range_step", calls)
    assert (found.differing, found.declined) == ([], [])
    assert found.undefined_count == 7 + 3 * len(WRONG)


def test_range_step_agrees_with_opa_when_drawn(opa_path: Path) -> None:
    source = random.Random(41)
    found = _compared(opa_path, "numbers.range_step", [_draw_range(source) for _ in range(2000)])
    assert (found.differing, found.declined) == ([], [])
    assert found.agreeing_count > 1500


@pytest.mark.parametrize("name", ["units.parse", "units.parse_bytes"])
def test_amounts_answer_as_opa_when_given_anything(opa_path: Path, name: str) -> None:
    calls: list[Operands] = [(amount,) for amount in AMOUNTS] + [(value,) for value in [*WRONG, 1, Decimal("1.5")]]
    found = _compared(opa_path, name, calls)
    assert found.differing == []
    assert found.agreeing_count > 250
    assert all(_is_far(str(operands[0])) for operands in found.declined)


def _is_far(amount: str) -> bool:
    """Whether a power of ten in the amount is beyond a limit, or what it comes to below a millionth."""
    words = "1e56 1e-55 1e-56 1e300 1e301 1e-300 1e-301 0.00000000004 0.0000005 0.0005m"
    return any(amount.startswith(word) for word in words.split())


def _draw_amounts(seed: int, count: int) -> list[Operands]:
    source = random.Random(seed)
    return [(_draw_amount(source),) for _ in range(count)]


@pytest.mark.parametrize("name", ["units.parse", "units.parse_bytes"])
def test_amounts_agree_with_opa_when_drawn(opa_path: Path, name: str) -> None:
    calls = _draw_amounts(43, 4000)
    found = _compared(opa_path, name, calls)
    assert found.differing == []
    assert found.agreeing_count > 2000
    assert len(found.declined) < len(calls) // 20


@pytest.mark.parametrize("name", ["units.parse", "units.parse_bytes"])
def test_amounts_are_answered_when_they_are_ordinary(opa_path: Path, name: str) -> None:
    numbers = [
        f"{whole}{places}" for whole in (0, 1, 7, 64, 999, 1500, 10**6) for places in ("", ".5", ".25", ".1", ".123")
    ]
    suffixes = ("", "k", "K", "ki", "Ki", "M", "Mi", "g", "G", "gi", "Gi", "t", "Ti", "P", "Pi", "E", "Ei", "m")
    calls = [(number + suffix,) for number in numbers for suffix in suffixes]
    found = _compared(opa_path, name, calls)
    assert (found.differing, found.declined, found.agreeing_count) == ([], [], len(calls))


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_numbers_agree_with_opa_when_many_are_drawn(opa_path: Path) -> None:
    for seed in range(44, 64):
        source = random.Random(seed)
        ranges = _compared(opa_path, "numbers.range_step", [_draw_range(source) for _ in range(2000)])
        assert (ranges.differing, ranges.declined) == ([], [])
        for name in ("units.parse", "units.parse_bytes"):
            amounts = _compared(opa_path, name, _draw_amounts(seed, 4000))
            assert amounts.differing == []
