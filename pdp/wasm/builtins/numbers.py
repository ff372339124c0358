"""Ranges with steps, and amounts with units: ``numbers.range_step``, ``units.parse``, ``units.parse_bytes``.

Guarantees OPA's numbers with OPA's spelling, from exact arithmetic. Declined are ranges of more than
``RANGE_MEMBERS_MAX`` members or ``RANGE_TEXT_MAX`` characters, amounts of more than ``DIGITS_MAX`` digits, powers of ten
with which OPA's rounding is not proved, and fractions so small that their spelling would change on the way.

**Source**: OPA's ``topdown/numbers.go``, ``parse_units.go`` and ``parse_bytes.go``; Go's ``math/big``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

from pdp.wasm.builtins.values import Declined, Undefined, Value

RANGE_MEMBERS_MAX: Final = 100_000
RANGE_TEXT_MAX: Final = 1_000_000
DIGITS_MAX: Final = 1_000
EXPONENT_MAX: Final = 300
"""How far a power of ten goes in an operand of a range and in ``units.parse``, which are exact."""
FIVES_MAX: Final = 55
"""Up to this power of five OPA's binary numbers are the exact ones, rounded once to 64 bits."""

_FLOAT_BITS: Final = 64
_PLACES: Final = 10
_LEADING: Final = re.compile(r"(?:[0-9.+-]|[eE](?=[0-9+-]))*")
_AMOUNT: Final = re.compile(r"([+-]?)(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(?:[eE]([+-]?[0-9]{1,6}))?")
_LOWER: Final = {
    **{ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"},
    0x130: "i",
    0x212A: "k",
}
"""Lower case as Go has it, as far as it leads to ASCII: a dotted capital I and the sign for kelvin do, too."""

_PREFIXES: Final = "kmgtpe"
_BYTE_UNITS: Final[Mapping[str, int]] = {
    "": 1,
    **{name + "b" * b: 1000**power for power, name in enumerate(_PREFIXES, 1) for b in (0, 1)},
    **{name + "i" + "b" * b: 1024**power for power, name in enumerate(_PREFIXES, 1) for b in (0, 1)},
}
_UNITS: Final[Mapping[str, Fraction]] = {
    "": Fraction(1),
    **{name: Fraction(1000**power) for power, name in enumerate(_PREFIXES, 1)},
    **{name.upper(): Fraction(1000**power) for power, name in enumerate(_PREFIXES, 1)},
    **{name + "i": Fraction(1024**power) for power, name in enumerate(_PREFIXES, 1)},
    **{name.upper() + "i": Fraction(1024**power) for power, name in enumerate(_PREFIXES, 1)},
    "m": Fraction(0.001),  # the binary number, as in OPA: a thousand of them are 1.0000000000
}


def range_step(first: Value, last: Value, step: Value) -> Value:
    """Every ``step``-th whole number from ``first`` towards ``last``, both taken in; raises ``Undefined``, ``Declined``."""
    start, end, width = map(_whole, (first, last, step))
    if width <= 0:
        raise Undefined
    members_count = abs(end - start) // width + 1
    if members_count > RANGE_MEMBERS_MAX:
        raise Declined("a range with too many members")
    if members_count * max(start.bit_length(), end.bit_length()) > 3 * RANGE_TEXT_MAX:
        raise Declined("a range of numbers too large")
    return list(range(start, end + 1, width)) if start <= end else list(range(start, end - 1, -width))


def _whole(value: Value) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise Undefined
    if isinstance(value, Decimal):
        if abs(value.adjusted()) > EXPONENT_MAX:
            raise Declined("a number with a power of ten so large")
        if value != value.to_integral_value():
            raise Undefined
    return int(value)


def parse_units(amount: Value) -> Value:
    """The number of an amount as ``200m``, ``1.5K`` or ``10Gi``; raises ``Undefined`` and ``Declined``."""
    digits, unit = _split(amount)
    factor = _UNITS.get(unit[:1] + unit[1:].translate(_LOWER))
    if factor is None:
        raise Undefined
    number = _Amount.read(digits)
    if abs(number.exponent) > EXPONENT_MAX:
        raise Declined("an amount with a power of ten so large")
    exact = number.exact() * factor
    return int(exact) if exact.denominator == 1 else _spelled(exact)


def parse_bytes(amount: Value) -> Value:
    """The whole number of bytes in an amount as ``10MB`` or ``1.5GiB``; raises ``Undefined`` and ``Declined``."""
    digits, unit = _split(amount)
    factor = _BYTE_UNITS.get(unit.translate(_LOWER))
    if factor is None:
        raise Undefined
    number = _Amount.read(digits)
    if abs(number.exponent) > FIVES_MAX:
        raise Declined("an amount with a power of ten so large")
    return int(_as_float(_as_float(number.exact()) * factor))


def _split(amount: Value) -> tuple[str, str]:
    """What is written of the number and what is left for the unit."""
    if not isinstance(amount, str) or " " in amount:
        raise Undefined
    amount = amount.replace('"', "")
    leading = _LEADING.match(amount)
    end = 0 if leading is None else leading.end()
    return amount[:end], amount[end:]


@dataclass(frozen=True, slots=True)
class _Amount:
    """``whole`` times ten to the power of ``exponent``."""

    whole: int
    exponent: int

    @staticmethod
    def read(digits: str) -> _Amount:
        """The number that is written here; raises ``Undefined`` and ``Declined``."""
        found = _AMOUNT.fullmatch(digits)
        if found is None:
            raise Undefined
        sign, before, after, alone, power = found.groups()
        fraction = after or alone or ""
        significant = ((before or "") + fraction).lstrip("0")
        if not significant:
            return _Amount(0, 0)
        if len(significant) > DIGITS_MAX or len(fraction) > DIGITS_MAX:
            raise Declined("an amount with so many digits")
        return _Amount(int(sign + significant), int(power or "0") - len(fraction))

    def exact(self) -> Fraction:
        """The number itself."""
        return self.whole * Fraction(10) ** self.exponent


def _as_float(value: Fraction) -> Fraction:
    """The nearest number with ``_FLOAT_BITS`` significant bits, of two the even one."""
    if not value:
        return value
    exponent = abs(value.numerator).bit_length() - value.denominator.bit_length() - _FLOAT_BITS
    unit = Fraction(2) ** exponent
    if abs(value) >= unit * 2**_FLOAT_BITS:
        unit *= 2
    return round(value / unit) * unit


def _spelled(value: Fraction) -> Decimal:
    """The number with ten places, halves away from zero; raises ``Declined`` if it would be written otherwise."""
    count, rest = divmod(abs(value.numerator) * 10**_PLACES, value.denominator)
    count += 2 * rest >= value.denominator
    whole, places = divmod(count, 10**_PLACES)
    text = f"{'-' * (value < 0)}{whole}.{places:0{_PLACES}}"
    number = Decimal(text)
    if str(number) != text:
        raise Declined("an amount with so small a fraction")
    return number


BUILTINS: Final[Mapping[str, Callable[..., Value]]] = {
    "numbers.range_step": range_step,
    "units.parse": parse_units,
    "units.parse_bytes": parse_bytes,
}
