"""Patterns of path parameters: an author's expressions over texts that anybody sends.

Guarantees: a pattern is matched in time that grows with the text and not with what it is made of, or it does not build.
Leaves to `manifest` which parameter has which pattern, to `gateway.connectors.classify` the texts.

**Security**: paths are matched before the caller is identified, because what a request means can say where its token
stands. A pattern with one part of variable length is linear in any engine and stays with the one that is quick on short
texts; every other one is matched by RE2, which never tries a text twice.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Protocol

from bundles.errors import BundleRefused

PATTERN_MAX_CHARACTERS: Final = 256
PATTERN_MEMORY_MAX_BYTES: Final = 1 << 20
REMEMBERED_MAX: Final = 1_024

_ESCAPE = r"\\(?:[^\w\s]|[dDwWsS])"
_CLASS = rf"\[\^?(?:[^\[\]\\]|{_ESCAPE})++\]"
_PIECES = rf"(?:(?:[^\[\](){{}}\\*+?|^$]|{_ESCAPE}|{_CLASS})(?:\{{[0-9]++\}})?+)*+"
_ONE_VARIABLE_PART: Final = re.compile(rf"{_PIECES}(?:(?:[*+?]|\{{[0-9]*+,[0-9]*+\}}){_PIECES})?+")


class PathPattern(Protocol):
    """What a path parameter must match."""

    def fullmatch(self, text: str, /) -> object | None:
        """None if `text` as a whole does not fit."""


@lru_cache(maxsize=REMEMBERED_MAX)
def path_pattern(pattern: str) -> PathPattern:
    """Compile `pattern`.

    Raises `BundleRefused` ``manifest_invalid`` for one that is none, is too long, or can only be matched by trying (with
    references back or looks around).
    """
    if len(pattern) > PATTERN_MAX_CHARACTERS:
        raise BundleRefused(
            "manifest_invalid", f"a path parameter's pattern has at most {PATTERN_MAX_CHARACTERS} characters"
        )
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise BundleRefused("manifest_invalid", f"parameter pattern {pattern!r}: {error}") from error
    return compiled if _ONE_VARIABLE_PART.fullmatch(pattern) is not None else _linear(pattern)


def _linear(pattern: str) -> PathPattern:
    import re2  # few manifests need it, and it takes its time to load

    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_MEMORY_MAX_BYTES
    try:
        compiled: PathPattern = re2.compile(pattern, options)
    except re2.error as error:
        raise BundleRefused("manifest_invalid", f"parameter pattern {pattern!r} has no linear matching") from error
    return compiled
