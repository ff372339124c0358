"""Rego values as the host's builtins see them, and the notation in which Wasm hands them over.

Guarantees that a value written and read again is the same value, that a set stays a set, and that a number keeps its
spelling. What has no exact counterpart here is declined, never approximated: objects whose keys are no texts, texts that
are no Unicode, numbers with an exponent or another odd spelling, nesting beyond ``DEPTH_MAX``.

**Source**: OPA's ``opa_value_dump`` and ``opa_value_parse``: JSON, with ``{1, 2}`` and ``set()`` beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import orjson

DEPTH_MAX: Final = 200
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_STRING: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_ATOM: Final = re.compile(r"set\([ ]*\)|null|true|false|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![0-9.])")
_WORDS: Final[dict[str, Value]] = {"null": None, "true": True, "false": False}


class Undefined(Exception):
    """OPA reports an error for these operands, or has no result: the call is undefined."""


class Declined(Exception):
    """It is not proved that OPA would answer alike: the decision ends as ``engine_failed``. The text says for what."""


@dataclass(frozen=True, slots=True)
class RegoSet:
    """A set: every member once, in no order that means anything."""

    members: tuple[Value, ...]

    @staticmethod
    def of(members: Iterable[Value]) -> RegoSet:
        """The set of these, sorted as Rego sorts."""
        return RegoSet(tuple(member for _, member in sorted({order(member): member for member in members}.items())))


Value = None | bool | int | Decimal | str | list[Any] | dict[str, Any] | RegoSet
"""A number is an ``int`` when it is written as one, else a ``Decimal`` with its spelling; an object has texts for keys."""


def _whole(word: str) -> int:
    if word == "-0":
        raise ValueError
    return int(word)


def _fraction(word: str) -> Decimal:
    """**Security**: OPA prints a number by its spelling, which a ``Decimal`` does not keep for an exponent."""
    if "e" in word or "E" in word or word.startswith("-0") and not word.strip("-0."):
        raise ValueError
    return Decimal(word)


def _no_constant(_: str) -> Value:
    raise ValueError


_JSON: Final = json.JSONDecoder(parse_int=_whole, parse_float=_fraction, parse_constant=_no_constant)


def order(value: Value) -> tuple[Any, ...]:
    """A key that sorts values as Rego does, and is equal exactly for values that Rego takes as equal."""
    if value is None:
        return (0,)
    if isinstance(value, bool):
        return (1, value)
    if isinstance(value, (int, Decimal)):
        return (2, value)
    if isinstance(value, str):
        return (3, value)
    if isinstance(value, list):
        return (4, tuple(map(order, value)))
    if isinstance(value, dict):
        return (5, tuple((order(key), order(value[key])) for key in sorted(value)))
    return (6, tuple(sorted(map(order, value.members))))


def read_value(text: bytes) -> Value:
    """The value that ``opa_value_dump`` wrote; raises ``Declined``."""
    try:
        if text.startswith(b'"'):
            return orjson.loads(text)  # type: ignore[no-any-return]
        written = text.decode()
        if "set()" not in written:
            try:
                return _JSON.decode(written)  # type: ignore[no-any-return]
            except json.JSONDecodeError:
                pass  # a set that is not empty: read below
        return _Reader(written).whole()
    except (ValueError, RecursionError) as refused:
        raise Declined("a value that is nested or written as the host does not read it") from refused


def write_value(value: Value) -> bytes:
    """What ``opa_value_parse`` reads as this value; raises ``Declined`` for a text that is no Unicode."""
    try:
        return _written(value, 0)
    except orjson.JSONEncodeError as refused:
        raise Declined("a result that is no Unicode text") from refused


def _written(value: Value, depth: int) -> bytes:
    if depth > DEPTH_MAX:
        raise Declined("a result that is nested too deep")
    if isinstance(value, RegoSet):
        members = [_written(member, depth + 1) for member in value.members]
        return b"{" + b",".join(members) + b"}" if members else b"set()"
    if isinstance(value, list):
        return b"[" + b",".join([_written(item, depth + 1) for item in value]) + b"]"
    if isinstance(value, dict):
        pairs = [orjson.dumps(key) + b":" + _written(item, depth + 1) for key, item in value.items()]
        return b"{" + b",".join(pairs) + b"}"
    if isinstance(value, Decimal):
        return format(value, "f").encode()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value).encode()
    return orjson.dumps(value)


class _Reader:
    """Reads one value with its sets; raises ``ValueError`` and ``Declined``."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def whole(self) -> Value:
        """The one value of the text."""
        value = self._value(0)
        if self._next():
            raise ValueError
        return value

    def _next(self) -> str:
        """The next character that is no space; empty at the end."""
        found = _SPACE.match(self._text, self._at)
        self._at = self._at if found is None else found.end()
        return self._text[self._at : self._at + 1]

    def _value(self, depth: int) -> Value:
        if depth > DEPTH_MAX:
            raise ValueError
        first = self._next()
        if first == '"':
            return self._string()
        if first == "[":
            return self._items(depth)
        if first == "{":
            return self._set_or_object(depth)
        atom = _ATOM.match(self._text, self._at)
        if atom is None:
            raise ValueError
        self._at, word = atom.end(), atom[0]
        if word.startswith("set"):
            return RegoSet(())
        return _WORDS[word] if word in _WORDS else _number(word)

    def _string(self) -> str:
        found = _STRING.match(self._text, self._at)
        if found is None:
            raise ValueError
        self._at = found.end()
        return str(json.loads(found[0]))

    def _items(self, depth: int) -> list[Value]:
        self._at += 1
        items: list[Value] = []
        while self._next() != "]":
            if items:
                self._take(",")
            items.append(self._value(depth + 1))
        self._at += 1
        return items

    def _set_or_object(self, depth: int) -> Value:
        self._at += 1
        if self._next() == "}":
            self._at += 1
            return {}
        first = self._value(depth + 1)
        if self._next() == ":":
            return self._object(first, depth)
        members = [first]
        while self._next() != "}":
            self._take(",")
            members.append(self._value(depth + 1))
        self._at += 1
        return RegoSet(tuple(members))

    def _object(self, key: Value, depth: int) -> dict[str, Value]:
        found: dict[str, Value] = {}
        while True:
            if not isinstance(key, str):
                raise Declined("an object with keys that are no texts")
            self._take(":")
            found[key] = self._value(depth + 1)
            if self._next() == "}":
                self._at += 1
                return found
            self._take(",")
            key = self._value(depth + 1)

    def _take(self, character: str) -> None:
        if self._next() != character:
            raise ValueError
        self._at += 1


def _number(word: str) -> Value:
    return _whole(word) if word.lstrip("-").isdigit() else _fraction(word)
