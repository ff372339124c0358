"""Ranges and amounts without OPA: what they come to, how it is written, and where no answer is given."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pdp.wasm.builtins.numbers import DIGITS_MAX, RANGE_MEMBERS_MAX, parse_bytes, parse_units, range_step
from pdp.wasm.builtins.values import Declined, RegoSet, Undefined, Value

RANGES: dict[str, tuple[tuple[Value, Value, Value], Value]] = {
    "upwards": ((0, 10, 5), [0, 5, 10]),
    "upwards past the end": ((0, 11, 5), [0, 5, 10]),
    "downwards": ((10, 0, 4), [10, 6, 2]),
    "a single number": ((3, 3, 7), [3]),
    "a step beyond the end": ((0, 10, 10**20), [0]),
    "through zero": ((-2, 2, 2), [-2, 0, 2]),
    "whole numbers written as fractions": ((Decimal("1.0"), Decimal("2e0"), Decimal("1e0")), [1, 2]),
    "beyond 64 bits": ((2**64, 2**64 + 2, 2), [2**64, 2**64 + 2]),
}

NO_RANGES: dict[str, tuple[Value, Value, Value]] = {
    "a step of zero": (0, 10, 0),
    "a step below zero": (0, 10, -1),
    "a step below zero and a range too long": (0, 10**9, -1),
    "a fraction": (0, Decimal("1.5"), 1),
    "a text": ("0", 1, 1),
    "a truth value": (0, True, 1),
    "null": (0, 1, None),
    "a list": ([0], 1, 1),
}

LONG_RANGES: dict[str, tuple[Value, Value, Value]] = {
    "one member too many": (1, RANGE_MEMBERS_MAX + 1, 1),
    "far too many members": (0, -(10**30), 1),
    "members of many digits": (10**1000, 10**1000 + 5000, 1),
    "a large power of ten": (Decimal("1e301"), 1, 1),
    "a small power of ten": (Decimal("1e-301"), 1, 1),
}

BYTES = {
    "a plain number": ("1024", 1024),
    "a fraction is cut off": ("1.9", 1),
    "a fraction below zero is cut off": ("-1.9", -1),
    "a thousand": ("10KB", 10_000),
    "a thousand without b": ("10k", 10_000),
    "a binary thousand": ("10KiB", 10_240),
    "a binary thousand without b": ("10Ki", 10_240),
    "mega is not milli": ("1m", 1_000_000),
    "the largest unit": ("10eib", 10 * 2**60),
    "e is a unit": ("5e", 5 * 10**18),
    "e is a power": ("5e3", 5000),
    "a power and a unit": ("1.5e1E", 15 * 10**18),
    "a power with its sign": ("1e+3kb", 1_000_000),
    "a point before": (".5kb", 500),
    "a point after": ("5.kb", 5000),
    "a sign": ("+5", 5),
    "quotes": ('"5"kb', 5000),
    "zero with a power": ("0e999999", 0),
    "the sign for kelvin": ("1\u212a", 1000),
    "a dotted capital I": ("1k\u0130", 1024),
    "a binary fraction that is a little less": ("0.29kb", 290),
    "rounding to 64 bits, up": ("18446744073709551617.5", 2**64 + 2),
    "rounding to 64 bits, to even": ("36893488147419103234", 2**65),
}

UNITS = {
    "a plain number": ("1024", "1024"),
    "a fraction": ("0.5", "0.5000000000"),
    "a thousand": ("10K", "10000"),
    "a binary thousand": ("10ki", "10240"),
    "a whole number from a fraction": ("1.5k", "1500"),
    "mega": ("1M", "1000000"),
    "milli": ("500m", "0.5000000000"),
    "a thousand of a thousandth": ("1000m", "1.0000000000"),
    "below zero": ("-1.25", "-1.2500000000"),
    "halves go away from zero": ("1.00000000005", "1.0000000001"),
    "halves go away from zero below it": ("-1.00000000005", "-1.0000000001"),
    "a third place up": ("0.99999999999", "1.0000000000"),
    "zero": ("0m", "0"),
    "quotes": ('"1"Gi', "1073741824"),
    "the rest of a unit in capitals": ("1GI", "1073741824"),
    "the smallest that is written plainly": ("0.000001", "0.0000010000"),
    "a large power": ("1e300", "1" + "0" * 300),
}

NO_AMOUNTS: dict[str, Value] = {
    "an empty text": "",
    "only a unit": "G",
    "only an e": "e",
    "only a sign": "-",
    "only a point": ".",
    "only quotes": '""',
    "only a power": "e5",
    "a space": "1 k",
    "a tab": "1\tk",
    "two points": "1.2.3",
    "two signs": "--1",
    "a sum": "1+1",
    "a power without digits": "1e+",
    "a power of seven digits": "1e0000001",
    "two powers": "1e1e1",
    "an unknown unit": "1kk",
    "an unknown unit of one letter": "1x",
    "a hexadecimal number": "0x10",
    "an underscore": "1_0",
    "infinity": "Inf",
    "digits that are not ASCII": "\uff11",
    "a number": 1,
    "null": None,
    "a truth value": True,
    "a list": ["1"],
    "a set": RegoSet(("1",)),
}

LONG_AMOUNTS = {
    "many digits": "1" * (DIGITS_MAX + 1),
    "many places": "0." + "0" * DIGITS_MAX + "1",
    "a large power of ten": "1e301",
    "a small power of ten": "1e-301",
}


@pytest.mark.parametrize(("operands", "members"), RANGES.values(), ids=RANGES.keys())
def test_range_step_gives_members_when_going(operands: tuple[Value, Value, Value], members: Value) -> None:
    assert range_step(*operands) == members


def test_range_step_gives_all_members_when_they_are_as_many_as_may_be() -> None:
    assert range_step(RANGE_MEMBERS_MAX, 1, 1) == list(range(RANGE_MEMBERS_MAX, 0, -1))


@pytest.mark.parametrize("operands", NO_RANGES.values(), ids=NO_RANGES.keys())
def test_range_step_is_undefined_when_given(operands: tuple[Value, Value, Value]) -> None:
    with pytest.raises(Undefined):
        range_step(*operands)


@pytest.mark.parametrize("operands", LONG_RANGES.values(), ids=LONG_RANGES.keys())
def test_range_step_declines_when_there_would_be(operands: tuple[Value, Value, Value]) -> None:
    with pytest.raises(Declined):
        range_step(*operands)


@pytest.mark.parametrize(("amount", "count"), BYTES.values(), ids=BYTES.keys())
def test_parse_bytes_gives_a_whole_number_when_given(amount: str, count: int) -> None:
    assert parse_bytes(amount) == count


@pytest.mark.parametrize(("amount", "written"), UNITS.values(), ids=UNITS.keys())
def test_parse_units_gives_the_number_as_written_when_given(amount: str, written: str) -> None:
    assert str(parse_units(amount)) == written


@pytest.mark.parametrize("amount", NO_AMOUNTS.values(), ids=NO_AMOUNTS.keys())
def test_amounts_are_undefined_when_given(amount: Value) -> None:
    with pytest.raises(Undefined):
        parse_bytes(amount)
    with pytest.raises(Undefined):
        parse_units(amount)


@pytest.mark.parametrize("amount", LONG_AMOUNTS.values(), ids=LONG_AMOUNTS.keys())
def test_amounts_decline_when_given(amount: str) -> None:
    with pytest.raises(Declined):
        parse_bytes(amount)
    with pytest.raises(Declined):
        parse_units(amount)


@pytest.mark.parametrize("amount", ["1e56", "1e-56", "0." + "1" * 56])
def test_parse_bytes_declines_when_a_power_of_five_is_not_exact(amount: str) -> None:
    with pytest.raises(Declined):
        parse_bytes(amount)


@pytest.mark.parametrize("amount", ["0.0000009999", "0.00000000001", "-0.00000000001", "0.0001m"])
def test_parse_units_declines_when_the_fraction_is_below_a_millionth(amount: str) -> None:
    with pytest.raises(Declined):
        parse_units(amount)


def test_units_of_one_builtin_are_none_of_the_other_when_written_its_way() -> None:
    assert (parse_bytes("1kib"), parse_units("1KI")) == (1024, 1024)
    with pytest.raises(Undefined):
        parse_units("1kib")
