"""Identifiers nobody can guess, without one system call for each.

Guarantees: an identifier is 128 bits of the operating system's random source, or 74 of them behind the time, given out
once; a forked child never repeats its parent's. Belongs to one thread.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from typing import Final

HEX_CHARACTERS: Final = 32
_POOL_BYTES: Final = 4_096


class FreshIds:
    """Gives out 32 hexadecimal characters at a time from a pool of random bytes."""

    __slots__ = ("__weakref__", "_at", "_pool", "_random_bytes")

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._random_bytes = random_bytes
        self._pool = ""
        self._at = 0
        _living.add(self)

    def __call__(self) -> str:
        """The next identifier."""
        at = self._at
        if at >= len(self._pool):
            self._pool, at = self._random_bytes(_POOL_BYTES).hex(), 0
        self._at = at + HEX_CHARACTERS
        return self._pool[at : at + HEX_CHARACTERS]

    def forget(self) -> None:
        """Drop what is left of the pool."""
        self._pool = ""


class TimedIds:
    """Gives out UUIDs of version 7 without their hyphens: 48 bits of Unix time in ms, then 74 random ones.

    What is made soon after one another lies close together in an index, so that storing many touches few of its pages.

    **Source**: RFC 9562 §5.7.
    """

    __slots__ = ("_fresh", "_now_ns")

    def __init__(self, fresh: Callable[[], str] | None = None, now_ns: Callable[[], int] = time.time_ns) -> None:
        """``fresh`` gives 32 random hexadecimal characters, ``now_ns`` the Unix time in ns."""
        self._fresh = fresh if fresh is not None else FreshIds()
        self._now_ns = now_ns

    def __call__(self) -> str:
        """The next identifier."""
        random = self._fresh()
        return f"{self._now_ns() // 1_000_000:012x}7{random[:3]}{_VARIANT[random[3]]}{random[4:19]}"


_VARIANT: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
"""Two random bits of four, behind the two that say whose layout it is."""

_living: weakref.WeakSet[FreshIds] = weakref.WeakSet()


def _forget_all() -> None:
    for ids in _living:
        ids.forget()


os.register_at_fork(after_in_child=_forget_all)
