"""Patterns, texts and templates drawn from grammars, to hold the host's regular expressions against Go's."""

from __future__ import annotations

import random
from dataclasses import dataclass

_CHARACTERS = (
    " ",
    *r'a b c k s K S A 0 1 _ - , @ . { } ] " / \. \* \\ \n \t \x41 \x{6b} \[ \$ \- #'.split(),
)
_CLASSES = r"\d \D \w \W \s \S . [abc] [^abc] [a-c] [^a-c] [k-s] [^k] [[:alpha:]] [[:^word:]] [^[:space:]] [\w.-] [^\W_]".split()
_MEMBERS = (
    *r"a b c k s K - ^ ] [ . , a-c A-Z 0-9 !-/ +-- \] \- \\ \d \D \w \W \s \n \x41-\x{5a}".split(),
    *(f"[:{sign}{name}:]" for sign in ("", "^") for name in "alpha digit punct upper xdigit word cntrl".split()),
)
_FEW = ("a", "a", "b", "c", "[ab]", "[^a]", ".", "ab")
_PLACES = ("^", "$", r"\b", r"\b", r"\A")
_COUNTS = ("*", "+", "?", "{2}", "{1}", "{0,1}", "{1,}", "{2,}", "{1,2}", "{0,3}", "{2,4}", "{0,}")
_FLAGS = ("i", "s", "m", "U", "is", "im", "-i", "i-s", "mU")
_TEXTS = (
    *r'a a a b b c k s K S A B 0 1 9 _ - , @ . { } ] [ # / " \ * $ ab abc aab cab ba'.split(),
    *(" ", "  ", "\n", "\n\n", "\t", "\r", "\x00", "\v", "\x7f"),
    *("\u212a", "\u017f", "\u00e9", "\u0130", "\u0131", "\u00df", "\u03c3", "\u20ac", "\u2028", "\ufffd", "\U0001f600"),
)
_PIECES = (
    r"x - $ $$ $0 $1 $2 $3 ${0} ${1} ${2} ${12} $10 $01 $1x ${1}x $name ${name} ${} ${ ${1 $1_ $999999999 \1 é".split()
)


def draw_pattern(source: random.Random) -> str:
    """A pattern of literals, classes, groups, alternatives, places, repetitions and flags; sometimes a refused one."""
    few = source.random() < 0.5
    flags = f"(?{source.choice(_FLAGS)})" if source.random() < 0.3 else ""
    return flags + _Grammar(source, few).choices(3)


@dataclass(frozen=True, slots=True)
class _Grammar:
    """What patterns are made of: a few characters that often match, or all that is known."""

    source: random.Random
    few: bool

    def choices(self, depth: int) -> str:
        return "|".join(self._sequence(depth) for _ in range(self.source.choice((1, 1, 1, 2, 2, 3))))

    def _sequence(self, depth: int) -> str:
        lengths = (0, 1, 1, 2, 2, 3, 4) if depth < 3 else (1, 2, 3)
        return "".join(self._item(depth) for _ in range(self.source.choice(lengths)))

    def _item(self, depth: int) -> str:
        source, kind = self.source, self.source.random()
        if kind < 0.07:
            return source.choice(_PLACES)
        if kind < 0.1:
            return "" if self.few else f"(?{source.choice(_FLAGS)})"
        if kind < 0.68 or not depth:
            atom = self._simple(kind)
        else:
            opening = source.choice(("(", "(", "(?:", f"(?{source.choice(_FLAGS)}:", "(?P<name>", "(?<n2>"))
            atom = (source.choice(("(", "(?:")) if self.few else opening) + self.choices(depth - 1) + ")"
        if source.random() < 0.4:
            atom += source.choice(_COUNTS) + source.choice(("", "", "?"))
        return atom

    def _simple(self, kind: float) -> str:
        if self.few:
            return self.source.choice(_FEW)
        if kind < 0.45:
            return self.source.choice(_CHARACTERS)
        if kind < 0.6:
            return self.source.choice(_CLASSES)
        members = "".join(self.source.choices(_MEMBERS, k=self.source.randrange(1, 4)))
        return f"[{self.source.choice(('', '', '^'))}{members}]"


def draw_text(source: random.Random, pattern: str = "") -> str:
    """A text of what the patterns are about, of characters that are another's other case, and of others beyond ASCII."""
    few = source.choices(_TEXTS, k=source.choice((1, 2, 3, 5, len(_TEXTS))))
    if source.random() < 0.4:
        few = ["a", "b", "a", "b", "c", "ab", source.choice(_TEXTS)]
    elif pattern and source.random() < 0.6:
        few = [*filter(str.isalnum, pattern), *filter(str.isalnum, pattern), *pattern, source.choice(_TEXTS)]
    return "".join(source.choices(few, k=source.choice((0, 1, 2, 3, 5, 8, 13))))


def draw_template(source: random.Random) -> str:
    """What a match is replaced with: references, good and bad ones, and texts."""
    return "".join(source.choices(_PIECES, k=source.choice((0, 1, 1, 2, 3, 4))))
