"""Which regular expressions mean the same to Go and to RE2, and how far a search with one can go.

Guarantees that a pattern which is read here is valid for both, that both match alike, and that the bounds of ``Shape``
hold. What else the two accept is refused, proved or not: what is not printable ASCII, classes of Unicode, escapes with
octal digits or beyond ASCII, texts between ``\\Q`` and ``\\E``, ``\\z``, ``\\B`` (which RE2 finds within a character),
repetitions of places, none, over a thousand or a loop over what may be nothing, classes that no character is in.

**Source**: Go's ``regexp/syntax``; RE2's ``parse.cc``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PATTERN_MAX_CHARACTERS: Final = 1_000
STEPS_MAX: Final = 2_000
NESTING_MAX: Final = 50
COPIES_MAX: Final = 1_000
"""How often the innermost part of nested repetitions with counts may stand: both refuse more."""

_FLAGS: Final = re.compile(r"\(\?(?!\))([imsU]*)(?:-([imsU]+))?([:)])")
_NAME: Final = re.compile(r"\(\?P?<([A-Za-z_][A-Za-z0-9_]*)>")
_COUNTS: Final = re.compile(r"\{(0|[1-9][0-9]{0,3})(,(0|[1-9][0-9]{0,3})?)?\}")
_CODE: Final = re.compile(r"\\x(?:([0-7][0-9A-Fa-f])|\{0*([0-7]?[0-9A-Fa-f])\})")
_NAMED_CLASS: Final = re.compile(r"\[:(\^?)([a-z]+):\]")
_CONTROLS: Final = dict(zip("afnrtv", "\a\f\n\r\t\v", strict=True))
_KELVIN: Final = 1 << 128
_LONG_S: Final = 1 << 129
_OTHERS: Final = 1 << 130
"""Sets of characters are numbers: a bit for each of ASCII, for the two beyond it that are cases of k and s, for the rest."""
_ALL: Final = (1 << 131) - 1


class PatternRefused(ValueError):
    """A pattern that is invalid, or of which it is not proved that Go and RE2 read it alike. The text says what."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of a pattern without running it."""

    steps: int
    """Characters and places in the longest way through it that repeats nothing without a count."""
    groups: int
    names: Mapping[str, int]
    characters: int
    """The characters that any part of it takes."""
    loops: int
    """Those that it takes without end where the match cannot end. A search looks on from its match until it has seen
    ``steps`` others."""


def takes(characters: int, byte: int) -> bool:
    """Whether one of these characters has this byte in UTF-8; all beyond ASCII are taken for one."""
    return bool(characters & (1 << byte if byte < 0x80 else _KELVIN | _LONG_S | _OTHERS))


def read_pattern(pattern: str) -> Shape:
    """The shape of a pattern; raises ``PatternRefused``."""
    if len(pattern) > PATTERN_MAX_CHARACTERS:
        raise PatternRefused("a pattern of so many characters")
    if not (pattern.isascii() and pattern.isprintable()):
        raise PatternRefused("a character that is not printable ASCII")
    return _Reader(pattern).whole()


@dataclass(frozen=True, slots=True)
class _Part:
    """What is known of a part of a pattern."""

    steps: int = 0
    copies: int = 1
    empty: bool = True
    """Whether it may match nothing, be it only in some places."""
    free: bool = True
    """Whether it matches nothing anywhere."""
    characters: int = 0
    loops_within: int = 0
    """The characters of its loops, if they all go on before the match can end."""
    loops_last: int = 0
    """Those of them that do so even if what follows is free."""

    def then(self, other: _Part) -> _Part:
        """This part and the other after it."""
        return _Part(
            self.steps + other.steps,
            max(self.copies, other.copies),
            self.empty and other.empty,
            self.free and other.free,
            self.characters | other.characters,
            self.loops_within | other.loops_within,
            other.loops_last | (self.loops_last if other.free else self.loops_within),
        )

    def either(self, other: _Part) -> _Part:
        """This part or the other."""
        return _Part(
            self.steps + other.steps,
            max(self.copies, other.copies),
            self.empty or other.empty,
            self.free or other.free,
            self.characters | other.characters,
            self.loops_within | other.loops_within,
            self.loops_last | other.loops_last,
        )

    def times(self, least: int, most: int | None, *, counted: bool) -> _Part:
        """This part, so many times; raises ``PatternRefused``."""
        if self.empty and most != 1:
            raise PatternRefused("a repetition of what may be nothing")
        count = most or least or 1
        copies = self.copies * (count if counted else 1)
        steps = self.steps * count
        if copies > COPIES_MAX or steps > STEPS_MAX:
            raise PatternRefused("repetitions that come to so many")
        return _Part(
            steps,
            copies,
            self.empty or least == 0,
            self.free or least == 0,
            self.characters,
            self.loops_within if most else self.characters,
            self.loops_last if least <= 1 else self.loops_within,
        )


_PLACE: Final = _Part(steps=1, free=False)


def _bits(text: str) -> int:
    return sum(1 << ord(character) for character in set(text))


def _between(first: int, last: int) -> int:
    return (1 << last + 1) - (1 << first)


_DIGIT: Final = _between(0x30, 0x39)
_UPPER: Final = _between(0x41, 0x5A)
_LOWER: Final = _between(0x61, 0x7A)
_ESCAPED: Final = {"d": _DIGIT, "s": _bits("\t\n\f\r "), "w": _DIGIT | _UPPER | _LOWER | _bits("_")}
_NAMED: Final = {
    "alnum": _DIGIT | _UPPER | _LOWER,
    "alpha": _UPPER | _LOWER,
    "ascii": _between(0, 0x7F),
    "blank": _bits("\t "),
    "cntrl": _between(0, 0x1F) | 1 << 0x7F,
    "digit": _DIGIT,
    "graph": _between(0x21, 0x7E),
    "lower": _LOWER,
    "print": _between(0x20, 0x7E),
    "punct": _between(0x21, 0x7E) & ~(_DIGIT | _UPPER | _LOWER),
    "space": _bits("\t\n\v\f\r "),
    "upper": _UPPER,
    "word": _ESCAPED["w"],
    "xdigit": _DIGIT | _bits("ABCDEFabcdef"),
}


def _folded(characters: int) -> int:
    """These in each of their cases."""
    for others in (_bits("Kk") | _KELVIN, _bits("Ss") | _LONG_S):
        if characters & others:
            characters |= others
    return characters | (characters & _UPPER) << 32 | (characters & _LOWER) >> 32


class _Reader:
    """Reads one pattern from left to right; raises ``PatternRefused``."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._groups = 0
        self._names: dict[str, int] = {}
        self._flags = frozenset[str]()

    def whole(self) -> Shape:
        part = self._choices(0)
        if self._at < len(self._pattern):
            raise PatternRefused("a closing parenthesis too many")
        if part.steps > STEPS_MAX:
            raise PatternRefused("repetitions that come to so many")
        return Shape(part.steps, self._groups, self._names, part.characters, part.loops_last)

    def _next(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self, expression: re.Pattern[str]) -> re.Match[str] | None:
        found = expression.match(self._pattern, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _choices(self, depth: int) -> _Part:
        """What stands between two parentheses, or all of it."""
        if depth > NESTING_MAX:
            raise PatternRefused("so many groups within one another")
        part = self._sequence(depth)
        while self._next() == "|":
            self._at += 1
            part = part.either(self._sequence(depth))
        return part

    def _sequence(self, depth: int) -> _Part:
        part = _Part()
        while self._next() not in ("", "|", ")"):
            atom, repeatable = self._atom(depth)
            part = part.then(self._repeated(atom, repeatable))
        return part

    def _repeated(self, atom: _Part, repeatable: bool) -> _Part:
        bounds = self._counts()
        if bounds is None:
            return atom
        if not repeatable:
            raise PatternRefused("a repetition of nothing or of a place")
        part = atom.times(bounds[0], bounds[1], counted=bounds[2])
        if self._next() == "?":
            self._at += 1
        if self._counts() is not None:
            raise PatternRefused("a repetition of a repetition")
        return part

    def _counts(self) -> tuple[int, int | None, bool] | None:
        """Least and most of a repetition, and whether it is written with numbers."""
        first = self._next()
        if first and first in "*+?":
            self._at += 1
            return (int(first == "+"), 1 if first == "?" else None, False)
        if first != "{" or not self._pattern[self._at + 1 : self._at + 2].isdigit():
            return None
        found = self._take(_COUNTS)
        if found is None:
            raise PatternRefused("a repetition that is written oddly")
        least = int(found[1])
        most = least if not found[2] else int(found[3]) if found[3] else None
        if most == 0 or max(least, most or 0) > COPIES_MAX or (most is not None and most < least):
            raise PatternRefused("a repetition with such counts")
        return (least, most, True)

    def _atom(self, depth: int) -> tuple[_Part, bool]:
        """One character, class, group or place, and whether it may be repeated."""
        first = self._next()
        if first == "(":
            return self._group(depth)
        if first in "*+?":
            raise PatternRefused("a repetition of nothing or of a place")
        if first in "^$":
            self._at += 1
            return (_PLACE, False)
        if first == "\\" and self._pattern[self._at + 1 : self._at + 2] in ("A", "b"):
            self._at += 2
            return (_PLACE, False)
        if first == ".":
            self._at += 1
            taken = _ALL if "s" in self._flags else _ALL ^ _bits("\n")
        elif first == "[":
            taken = self._class()
        elif first == "{" and self._counts() is not None:
            raise PatternRefused("a repetition of nothing or of a place")
        else:
            taken = self._cased(self._escaped_class() or 1 << self._character())
        return (_Part(steps=1, empty=False, free=False, characters=taken), True)

    def _group(self, depth: int) -> tuple[_Part, bool]:
        outside = self._flags
        flags = self._take(_FLAGS)
        if flags is not None:
            self._flags = (outside | set(flags[1])) - set(flags[2] or "")
            if flags[3] == ")":
                return (_Part(), False)
        else:
            self._groups += 1
            name = self._take(_NAME)
            if name is not None:
                if name[1] in self._names:
                    raise PatternRefused("two groups of one name")
                self._names[name[1]] = self._groups
            elif self._pattern.startswith("(?", self._at):
                raise PatternRefused("a group of another kind")
            else:
                self._at += 1
        part = self._choices(depth + 1)
        if self._next() != ")":
            raise PatternRefused("a closing parenthesis too few")
        self._at += 1
        self._flags = outside
        return (part, True)

    def _cased(self, characters: int) -> int:
        return _folded(characters) if "i" in self._flags else characters

    def _character(self) -> int:
        """The character that stands or is escaped here."""
        first = self._next()
        if first != "\\":
            self._at += 1
            return ord(first)
        code = self._take(_CODE)
        if code is not None:
            number = int(code[1] or code[2], 16)
            if number:
                return number
            raise PatternRefused("a NUL")
        escaped = self._pattern[self._at + 1 : self._at + 2]
        if not escaped or (escaped.isalnum() and escaped not in _CONTROLS):
            raise PatternRefused("such an escape")
        self._at += 2
        return ord(_CONTROLS.get(escaped, escaped))

    def _escaped_class(self) -> int:
        """The characters of a class as ``\\d``, before their cases; none where there is none."""
        if self._next() != "\\":
            return 0
        letter = self._pattern[self._at + 1 : self._at + 2]
        found = _ESCAPED.get(letter.lower(), 0)
        if not found:
            return 0
        self._at += 2
        return found if letter in _ESCAPED else _ALL ^ self._cased(found)

    def _class(self) -> int:
        """The characters of a class in brackets."""
        self._at += 1
        inverted = self._next() == "^"
        self._at += inverted
        found = self._members()
        while self._next() != "]":
            found |= self._members()
        self._at += 1
        found = self._cased(found) ^ (_ALL if inverted else 0)
        if not found:
            raise PatternRefused("a class without characters")
        return found

    def _members(self) -> int:
        """The characters of one member of a class: of a class within, a range or a character."""
        if not self._next():
            raise PatternRefused("a closing bracket too few")
        if self._pattern.startswith("[:", self._at):
            named = self._take(_NAMED_CLASS)
            if named is None or named[2] not in _NAMED:
                raise PatternRefused("such a named class")
            return _ALL ^ self._cased(_NAMED[named[2]]) if named[1] else _NAMED[named[2]]
        escaped = self._escaped_class()
        if escaped:
            return escaped
        first = self._character()
        if self._next() != "-" or self._pattern[self._at + 1 : self._at + 2] in ("", "]"):
            return 1 << first
        self._at += 1
        if self._pattern.startswith("[:", self._at) or self._escaped_class():
            raise PatternRefused("a range that ends with a class")
        last = self._character()
        if last < first:
            raise PatternRefused("a range that goes down")
        return _between(first, last)
