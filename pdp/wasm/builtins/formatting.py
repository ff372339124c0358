"""``sprintf`` as Go's formatter writes.

Guarantees Go's text for the verbs ``v s d q x X f F e E g G b o O t T``, for the flags ``- + 0`` and space, for width,
precision and ``%[1]v``; and Go's own remarks, such as ``%!d(string=hi)``, for verbs that do not fit, for operands that
are missing or left over. Declined is what nobody writes, or what Go's version decides: ``#``, ``*``, a number as a
character (``c q U``) or in binary exponents, zeros before a text, more than ``WIDTH_DIGITS`` digits of width or
precision, characters newer than ``_LATER`` in a quoted text; more than ``DIRECTIVES_MAX`` percent signs, results beyond
``RESULT_MAX`` characters.

**Security**: what Go prints of a number depends on its spelling, and Wasm does not always keep OPA's. Declined are
numbers with an exponent, or as small as those that the input writes with one; with more than ``DIGITS_MAX`` digits; and,
within an array, object or set, with a zero at their fraction's end.
**Source**: Go's ``fmt`` and ``strconv``; OPA's ``v1/topdown/strings.go`` for what becomes of an operand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import Final
from unicodedata import ucd_3_2_0

from pdp.wasm.builtins.values import DEPTH_MAX, Declined, RegoSet, Undefined, Value, order

DIRECTIVES_MAX: Final = 10_000
RESULT_MAX: Final = 1_000_000
WIDTH_DIGITS: Final = 3
DIGITS_MAX: Final = 17

_INT64: Final = range(-(2**63), 2**63)
_SMALLEST_POWER: Final = -5
"""Smaller numbers are handed over as ``1e-6``, which Go takes for a text; ``1.5e-6`` is a fraction."""

_DIRECTIVE: Final = re.compile(
    r"%(?P<flags>[-+ 0#]*)(?P<width>[0-9]*)(?:\.(?=.)(?P<precision>[0-9]*))?(?:\[(?P<index>[0-9]+)\])?(?P<verb>.?)",
    re.DOTALL,
)
_AFTER_INDEX: Final = frozenset("0123456789*.[")
_BASES: Final = {"v": "d", "d": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}

_ESCAPED: Final = re.compile(r'["\\\x00-\x1f\x7f-\U0010ffff]')
_SHORT: Final = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}
_ESCAPED_KEPT: Final = 4_096
_LATER: Final = tuple(
    range(int(first, 16), int(last, 16) + 1)
    for first, last in (
        block.split("-")
        for block in (
            "0234-0377 04cf-052f 1d00-1eff 2053-205e 20b2-20c0 2190-2426 2460-2b73 2e00-2e5d 3400-9fff a640-a6f7 "
            "a700-a7ca 1f100-1f1ad 1f1e6-1f202 1f300-1f6d7 1f6e0-1f6ec 1f6f0-1f6fc 1f7e0-1f7eb 1f900-1fa53 "
            "1fa70-1fa74 1fa78-1fa7c 1fa80-1fa86 1fa90-1faac 1fab0-1faba 1fac0-1fac5 1fad0-1fad9 1fae0-1fae7 "
            "1faf0-1faf6"
        ).split()
    )
)
"""Blocks without a gap since Unicode 14, all of signs that print. What Unicode 3.2 has is known without them."""

_Operand = int | float | str


@dataclass(frozen=True, slots=True)
class _Format:
    """What stands between ``%`` and the verb; zero is no width."""

    minus: bool = False
    plus: bool = False
    space: bool = False
    zero: bool = False
    width: int = 0
    precision: int | None = None

    def padded(self, text: str) -> str:
        """The text in its width; what may have zeros before it has them already."""
        return text.ljust(self.width) if self.minus else text.rjust(self.width)

    def sign(self, *, negative: bool) -> str:
        """What stands before a number's digits."""
        return "-" if negative else "+" if self.plus else " " if self.space else ""


_PLAIN: Final = _Format()


def sprintf(template: Value, operands: Value) -> Value:
    """The text of Go's ``Sprintf``; raises ``Undefined`` unless given a text and an array, and ``Declined``."""
    if not isinstance(template, str) or not isinstance(operands, list):
        raise Undefined
    if template.count("%") > DIRECTIVES_MAX:
        raise Declined("sprintf with too many directives")
    return "".join(_Printer(template, [_operand(operand) for operand in operands]).pieces())


class _Printer:
    """One pass through a template."""

    def __init__(self, template: str, operands: Sequence[_Operand]) -> None:
        self._template = template
        self._operands = operands
        self._next = 0
        self._reordered = False
        self._room = RESULT_MAX

    def pieces(self) -> list[str]:
        """All that is printed, in order."""
        found: list[str] = []
        at = 0
        for match in _DIRECTIVE.finditer(self._template):
            found.append(self._fitting(self._template[at : match.start()]))
            found.append(self._fitting(self._directive(match)))
            at = match.end()
        found.append(self._fitting(self._template[at:]))
        if not self._reordered and self._next < len(self._operands):
            left = [f"{_type_of(operand)}={_printed('v', operand, _PLAIN)}" for operand in self._operands[self._next :]]
            found.append(self._fitting(f"%!(EXTRA {', '.join(left)})"))
        return found

    def _fitting(self, text: str) -> str:
        self._room -= len(text)
        if self._room < 0:
            raise Declined("a result that is too long")
        return text

    def _directive(self, match: re.Match[str]) -> str:
        verb = match["verb"]
        form = _format(match)
        known = True
        if match["index"] is not None:
            self._reordered = True
            index = int(match["index"]) - 1
            known = 0 <= index < len(self._operands)
            self._next = index if known else self._next
        if not verb:
            return "%!(NOVERB)"
        if verb == "%":
            return "%"
        if not known:
            return f"%!{verb}(BADINDEX)"
        if self._next >= len(self._operands):
            return f"%!{verb}(MISSING)"
        operand = self._operands[self._next]
        self._next += 1
        if verb in ("v", "w") and not _is_large(operand):
            form = replace(form, plus=False)  # Go reads another flag, which shows in nothing that OPA hands to it
        return _printed(verb, operand, form)


def _format(match: re.Match[str]) -> _Format:
    """What a directive asks for; raises ``Declined`` for the parts that are not done here."""
    flags, width, precision, index, verb = match.group("flags", "width", "precision", "index", "verb")
    if "#" in flags or ("0" in flags and "-" in flags):
        raise Declined("sprintf with the flag # or with 0 and -")
    if verb == "[" or (verb == "*" and not (precision or (width and precision is None))):
        raise Declined("sprintf with an operand as width or precision, or an index that is no number")
    if index is not None and (verb in _AFTER_INDEX or len(index) > WIDTH_DIGITS):
        raise Declined("sprintf with an index before its width")
    if len(width) > WIDTH_DIGITS or len(precision or "") > WIDTH_DIGITS:
        raise Declined("sprintf with a width or precision that is too large")
    return _Format(
        minus="-" in flags,
        plus="+" in flags,
        space=" " in flags,
        zero="0" in flags,
        width=int(width or "0"),
        precision=None if precision is None else int(precision or "0"),
    )


def _operand(value: Value) -> _Operand:
    """What OPA hands to Go: a whole number, a fraction, or the text of anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return value
    return _number(value) if isinstance(value, Decimal) else _rego_text(value, 0)


def _number(value: Decimal) -> int | float:
    """A number with a point is whole for OPA when only zeros follow, and not more than 17 of them."""
    spelling = _spelling(value)
    return int(value) if value == value.to_integral_value() else float(spelling)


def _spelling(value: Decimal) -> str:
    """The number with its point; raises ``Declined`` where OPA may have another spelling."""
    spelling = str(value)
    if "." not in spelling or "E" in spelling or value.adjusted() < _SMALLEST_POWER:
        raise Declined("sprintf of a number with an exponent, or of one as small")
    if len(value.as_tuple().digits) > DIGITS_MAX:
        raise Declined("sprintf of a fraction with many digits")
    return spelling


def _rego_text(value: Value, depth: int) -> str:
    """A value as Rego writes it; raises ``Declined``."""
    if depth > DEPTH_MAX:
        raise Declined("sprintf of a value that is nested too deep")
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Decimal):
        return _inner_fraction(value)
    if isinstance(value, list):
        return f"[{_all_texts(value, depth)}]"
    if isinstance(value, RegoSet):
        return f"{{{_all_texts(sorted(value.members, key=order), depth)}}}" if value.members else "set()"
    pairs = [f"{_quoted(key)}: {_rego_text(value[key], depth + 1)}" for key in sorted(value)]
    return f"{{{', '.join(pairs)}}}"


def _all_texts(values: Sequence[Value], depth: int) -> str:
    return ", ".join([_rego_text(value, depth + 1) for value in values])


def _inner_fraction(value: Decimal) -> str:
    spelling = _spelling(value)
    if spelling.endswith("0"):
        raise Declined("sprintf of an array, object or set with a fraction that ends in zero")
    return spelling


def _quoted(text: str, *, ascii_only: bool = False) -> str:
    """The text as a Go literal; raises ``Declined`` for a character that Go may or may not escape."""
    escape = _escaped_beyond_ascii if ascii_only else _escaped
    return f'"{text.translate({ord(character): escape(character) for character in set(_ESCAPED.findall(text))})}"'


@lru_cache(maxsize=_ESCAPED_KEPT)
def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x80:
        return _SHORT.get(character) or f"\\x{code:02x}"
    if any(code in block for block in _LATER):
        return character
    if ucd_3_2_0.category(character) in ("Cn", "Cs"):
        raise Declined("a quoted text with a character that Unicode added lately")
    return character if character.isprintable() else _escaped_beyond_ascii(character)


def _escaped_beyond_ascii(character: str) -> str:
    code = ord(character)
    if code < 0x80:
        return _escaped(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _is_large(operand: _Operand) -> bool:
    return isinstance(operand, int) and operand not in _INT64


def _type_of(operand: _Operand) -> str:
    if isinstance(operand, str):
        return "string"
    if isinstance(operand, float):
        return "float64"
    return "*big.Int" if _is_large(operand) else "int64"


def _printed(verb: str, operand: _Operand, form: _Format) -> str:
    """One operand; raises ``Declined``."""
    if verb == "T":
        return _of_text("s", _type_of(operand), form)
    if isinstance(operand, str):
        return _of_text(verb, operand, form)
    if isinstance(operand, float):
        return _of_fraction(verb, operand, form)
    return _of_large(verb, operand, form) if _is_large(operand) else _of_whole(verb, operand, form)


def _misfit(verb: str, operand: _Operand, form: _Format) -> str:
    """Go's remark on a verb that does not fit: the operand as ``%v``, with the flags the verb had."""
    return f"%!{verb}({_type_of(operand)}={_printed('v', operand, form)})"


def _of_text(verb: str, text: str, form: _Format) -> str:
    if form.zero and form.width:
        raise Declined("sprintf with zeros before a text")
    if verb not in ("v", "s", "q", "x", "X"):
        return _misfit(verb, text, form)
    shown = text if form.precision is None else text[: form.precision]
    if verb == "q":
        shown = _quoted(shown, ascii_only=form.plus)
    elif verb in ("x", "X"):
        octets = _octets(shown)[: form.precision]
        shown = octets.hex(" ") if form.space else octets.hex()
        shown = shown.upper() if verb == "X" else shown
    return form.padded(shown)


def _octets(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as refused:
        raise Declined("sprintf of a text that is no Unicode") from refused


def _of_whole(verb: str, number: int, form: _Format) -> str:
    if verb in ("c", "q", "U"):
        raise Declined("sprintf of a number as a character")
    if verb not in _BASES:
        return _misfit(verb, number, form)
    if number == 0 and form.precision == 0:
        return form.padded("")
    sign = form.sign(negative=number < 0)
    digits = format(abs(number), _BASES[verb])
    if form.precision is not None:
        digits = digits.rjust(form.precision, "0")
    elif form.zero:
        digits = digits.rjust(form.width - len(sign), "0")
    return form.padded(f"{sign}{'0o' if verb == 'O' else ''}{digits}")


def _of_large(verb: str, number: int, form: _Format) -> str:
    """A whole number beyond 64 bits prints itself: ``%s`` fits it, and ``%+v`` shows its sign."""
    if verb in ("p", "w"):
        raise Declined("sprintf of a large number with the verb p or w")
    if verb != "s" and verb not in _BASES:
        return f"%!{verb}(big.Int={number})"
    sign = form.sign(negative=number < 0) + ("0o" if verb == "O" else "")
    digits = format(abs(number), _BASES.get(verb, "d"))
    if form.precision is not None:
        digits = digits.rjust(form.precision, "0")
    elif form.zero:
        digits = digits.rjust(form.width - len(sign), "0")
    return form.padded(sign + digits)


def _of_fraction(verb: str, number: float, form: _Format) -> str:
    if verb in ("b", "x", "X"):
        raise Declined("sprintf of a fraction in binary exponents")
    if verb not in ("v", "g", "G", "f", "F", "e", "E"):
        return _misfit(verb, number, form)
    sign = form.sign(negative=number < 0)
    digits = _digits_of(verb, abs(number), form.precision)
    if form.zero:
        digits = digits.rjust(form.width - len(sign), "0")
    return form.padded(sign + digits)


def _digits_of(verb: str, number: float, precision: int | None) -> str:
    kind = {"v": "g", "F": "f"}.get(verb, verb)
    if precision is not None or kind not in ("g", "G"):
        return f"{number:.{6 if precision is None else precision}{kind}}"
    shortest = Decimal(repr(number)).normalize()
    power = shortest.adjusted()
    if -4 <= power < _POWER_SHOWN:
        return f"{shortest:f}"
    digits = "".join(map(str, shortest.as_tuple().digits))
    fraction = f".{digits[1:]}" if digits[1:] else ""
    return f"{digits[0]}{fraction}{'e' if kind == 'g' else 'E'}{power:+03d}"


_POWER_SHOWN: Final = 6
"""From a million on, ``%v`` writes a fraction with an exponent."""

BUILTINS: Final[Mapping[str, Callable[..., Value]]] = {"sprintf": sprintf}
