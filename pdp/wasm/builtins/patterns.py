"""Regular expressions: ``regex.find_n``, ``regex.replace``, ``regex.split``.

Guarantees what Go's expressions find, in time that grows with the text and not with what it is made of. Declined are
patterns that ``bundles.pattern_syntax`` does not read, what needs more than ``SEARCHES_MAX`` searches or ``WORK_MAX``
work, results beyond ``RESULT_MAX_BYTES``, templates with over ``REFERENCES_MAX`` references or with a name beyond ASCII behind
a ``$``. An invalid pattern is declined, too.

**Security**: patterns are judged at build and here again; RE2 never tries a text twice, whatever the pattern. It is
loaded with this module, and policies that use none of the three never load it.
**Source**: OPA's ``topdown/regex.go``; Go's ``regexp``.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import compress, count, islice
from typing import Any, Final

import re2

from bundles.pattern_syntax import PatternRefused, Shape, read_pattern, takes
from pdp.wasm.builtins.values import Declined, Undefined, Value

PATTERNS_MAX: Final = 64
PATTERN_MEMORY_MAX_BYTES: Final = 1 << 20
SEARCHES_MAX: Final = 2_000
WORK_MAX: Final = 5_000_000
"""Instructions of the pattern times bytes that they may see: 25 ms, if RE2 has to take its slow way."""
RESULT_MAX_BYTES: Final = 100_000
REFERENCES_MAX: Final = 100
"""In a template."""

_INT64: Final = range(-(2**63), 2**63)
_REFERENCE: Final = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<doubtful>\{?\w*[^\x00-\x7f])|(?P<name>\w+)|\{(?P<braced>\w+)\})", re.ASCII
)
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,7}")


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A pattern that was read, ready to search with."""

    regexp: Any
    program_size: int
    shape: Shape
    ends: bytes
    """For each byte of a text a 1 if no part of the pattern takes it, else a 0."""
    stops: bytes
    """Likewise for its loops, as far as they go on before a match can end."""


def find_n(pattern: Value, text: Value, number: Value) -> Value:
    """The first ``number`` matches, all if it is negative; raises ``Undefined`` and ``Declined``."""
    expression, searched = _operands(pattern, text)
    most = _count(number)
    matches = islice(_matches(expression, searched), most if most >= 0 else None)
    return [match.group().decode() for match in matches]


def split(pattern: Value, text: Value) -> Value:
    """What stands between the matches; raises ``Undefined`` and ``Declined``."""
    expression, searched = _operands(pattern, text)
    if pattern and not searched:
        return [""]
    parts: list[Value] = []
    begin = end = 0
    for match in _matches(expression, searched):
        end, after = match.span()
        if after:
            parts.append(searched[begin:end].decode())
        begin = after
    if end != len(searched):
        parts.append(searched[begin:].decode())
    return parts


def replace(text: Value, pattern: Value, template: Value) -> Value:
    """The text with what the template gives for each match; raises ``Undefined`` and ``Declined``."""
    if not isinstance(template, str):
        raise Undefined
    expression, searched = _operands(pattern, text)
    pieces = _pieces(template, expression.shape)
    written: list[bytes] = []
    begin = size = 0
    for match in _matches(expression, searched):
        start, end = match.span()
        given = [piece if isinstance(piece, bytes) else match.group(piece) or b"" for piece in pieces]
        size += start - begin + sum(map(len, given))
        if size > RESULT_MAX_BYTES:
            raise Declined("a text that replacing makes so long")
        written += searched[begin:start], *given
        begin = end
    if size + len(searched) - begin > RESULT_MAX_BYTES:
        raise Declined("a text that replacing makes so long")
    return b"".join((*written, searched[begin:])).decode()


def _operands(pattern: Value, text: Value) -> tuple[_Pattern, bytes]:
    if not isinstance(pattern, str) or not isinstance(text, str):
        raise Undefined
    return _compiled(pattern), _encoded(text)


def _count(value: Value) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise Undefined
    if isinstance(value, Decimal):
        if value == value.to_integral_value():
            raise Declined("a count that is not written as a whole number")
        raise Undefined
    if value not in _INT64:
        raise Undefined
    return value


@lru_cache(maxsize=PATTERNS_MAX)
def _compiled(pattern: str) -> _Pattern:
    try:
        shape = read_pattern(pattern)
        options = re2.Options()
        options.log_errors = False
        options.max_mem = PATTERN_MEMORY_MAX_BYTES
        regexp = re2.compile(pattern, options)
    except PatternRefused as refused:
        raise Declined(f"a pattern outside the profile: {refused}") from refused
    except re2.error as refused:
        raise Declined("a pattern that RE2 finds too large") from refused
    re2.purge()  # its own store of patterns would keep twice as many for longer
    return _Pattern(regexp, regexp.programsize, shape, _others(shape.characters), _others(shape.loops))


def _others(characters: int) -> bytes:
    return bytes(not takes(characters, byte) for byte in range(256))


def _matches(pattern: _Pattern, text: bytes) -> Iterator[Any]:
    """The matches from left to right, but none of nothing right behind another; raises ``Declined``."""
    horizon = _Horizon(pattern, text)
    work = len(text) * pattern.program_size  # the search that finds no more
    position, before = 0, -1
    for _ in range(SEARCHES_MAX):
        if work > WORK_MAX:
            raise Declined("a pattern with so much work for this text")
        match = pattern.regexp.search(text, position)
        if match is None:
            return
        start, end = match.span()
        work += (horizon.behind(end) - position) * pattern.program_size
        if end > position or start != before:
            yield match
        before = end
        position = end if end > position else position + _width(text, position)
        if position > len(text):
            return
    raise Declined("a text with so many matches")


class _Horizon:
    """How far searches look behind their matches, asked from left to right."""

    def __init__(self, pattern: _Pattern, text: bytes) -> None:
        self._length = len(text)
        self._ends = text.translate(pattern.ends)
        self._end = -1
        self._steps = 4 * pattern.shape.steps
        self._stops = list(compress(count(), text.translate(pattern.stops))) if pattern.shape.loops else None

    def behind(self, position: int) -> int:
        """No search whose match ends here looks further than there."""
        if self._end < position:
            found = self._ends.find(1, position)
            self._end = self._length if found < 0 else found
        if self._stops is None:
            return min(self._end, position + self._steps)
        number = bisect_left(self._stops, position) + self._steps
        return min(self._end, self._stops[number]) if number < len(self._stops) else self._end


def _width(text: bytes, position: int) -> int:
    """How many bytes the character here has; one past the end."""
    lead = text[position] if position < len(text) else 0
    return 1 + (lead >= 0xC0) + (lead >= 0xE0) + (lead >= 0xF0)


def _pieces(template: str, shape: Shape) -> list[bytes | int]:
    """Texts and numbers of groups; a reference to no group gives nothing, a ``$`` without one stays."""
    pieces: list[bytes | int] = []
    begin = 0
    for number, found in enumerate(_REFERENCE.finditer(template)):
        if number >= REFERENCES_MAX:
            raise Declined("a template with so many references")
        pieces.append(_encoded(template[begin : found.start()]))
        begin = found.end()
        name = found["name"] or found["braced"]
        if found["doubtful"]:
            raise Declined("a name beyond ASCII behind a $")
        if found["dollar"]:
            pieces.append(b"$")
        elif name in shape.names:
            pieces.append(shape.names[name])
        elif _NUMBER.fullmatch(name) and int(name) <= shape.groups:
            pieces.append(int(name))
    return [*pieces, _encoded(template[begin:])]


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as refused:
        raise Declined("a text that is no Unicode") from refused


BUILTINS: Final[Mapping[str, Callable[..., Value]]] = {
    "regex.find_n": find_n,
    "regex.replace": replace,
    "regex.split": split,
}
