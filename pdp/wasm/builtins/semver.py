"""Versions as ``semver.compare`` and ``semver.is_valid`` read them.

Guarantees OPA's reading, which is wider than the specification's: one leading ``v``, zeros before a number, an empty
pre-release or build after its sign. Declined are two pre-releases that differ only in zeros before their numbers (or in
numbers beyond 64 bits): OPA never ends on them.

**Source**: ``semver.org``, items 9 to 11; OPA's ``internal/semver``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Final

from pdp.wasm.builtins.values import Declined, Undefined, Value

_INT64_MAX: Final = 2**63 - 1
_DIGITS: Final = re.compile(r"[0-9]+")
_IDENTIFIERS: Final = re.compile(r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*")

_Version = tuple[tuple[int, ...], str]
"""Major, minor and patch; the pre-release."""


def compare(first: Value, second: Value) -> Value:
    """-1, 0 or 1; raises ``Undefined`` for what is no version, ``Declined`` where OPA does not end."""
    ours, theirs = _read(first), _read(second)
    if ours is None or theirs is None:
        raise Undefined
    if ours[0] != theirs[0]:
        return 1 if ours[0] > theirs[0] else -1
    return _compare_pre_releases(ours[1], theirs[1])


def is_valid(version: Value) -> Value:
    """Whether this is a text that ``compare`` reads."""
    return _read(version) is not None


def _read(version: Value) -> _Version | None:
    if not isinstance(version, str):
        return None
    version, _, build = version.removeprefix("v").partition("+")
    version, _, pre_release = version.partition("-")
    if any(part and not _IDENTIFIERS.fullmatch(part) for part in (build, pre_release)):
        return None
    parts = version.split(".")
    if len(parts) != 3 or not all(map(_DIGITS.fullmatch, parts)):
        return None
    numbers = tuple(map(_number, parts))
    return None if max(numbers) > _INT64_MAX else (numbers, pre_release)


def _number(digits: str) -> int:
    """The number, or one beyond 64 bits for all that are."""
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= 19 else _INT64_MAX + 1


def _compare_pre_releases(ours: str, theirs: str) -> int:
    if ours == theirs:
        return 0
    if not ours or not theirs:
        return 1 if theirs else -1  # one that is no pre-release comes after those that are
    for first, second in zip_longest(ours.split("."), theirs.split(".")):
        if first is None or second is None:
            return 1 if second is None else -1
        left, right = _rank(first), _rank(second)
        if left != right:
            return 1 if left > right else -1
    raise Declined("pre-releases that differ only in how they write a number")


def _rank(identifier: str) -> tuple[bool, int, str]:
    """Numbers in their order, then words in theirs; numbers beyond 64 bits are all the largest one."""
    if _DIGITS.fullmatch(identifier):
        return (False, min(_number(identifier), _INT64_MAX), "")
    return (True, 0, identifier)


BUILTINS: Final[Mapping[str, Callable[..., Value]]] = {"semver.compare": compare, "semver.is_valid": is_valid}
