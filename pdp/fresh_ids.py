"""Identifiers nobody can guess, without one system call for each.

Guarantees: every identifier is 128 bits of the operating system's random source, given out once; a forked child never
repeats its parent's. Belongs to one thread.
"""

from __future__ import annotations

import os
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


_living: weakref.WeakSet[FreshIds] = weakref.WeakSet()


def _forget_all() -> None:
    for ids in _living:
        ids.forget()


os.register_at_fork(after_in_child=_forget_all)
