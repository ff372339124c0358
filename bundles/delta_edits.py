"""Edits that make one byte string out of another: copies of the base between inserted bytes.

Guarantees: applying what :func:`edits_between` found gives the target's bytes exactly; applying edits of anybody costs memory in
proportion to the stated limit and reads nothing outside the base. Leaves to ``bundles.delta`` which files are edited.
**Source**: the idea of Tridgell and Mackerras, "The rsync algorithm" (1996): blocks of the base, looked up in the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bundles.errors import BundleRefused

BLOCK_MIN_BYTES: Final = 24
BLOCKS_MAX_COUNT: Final = 1 << 16
LOOKUPS_MAX_COUNT: Final = 1 << 20
"""Positions of the target at which nothing was found before the rest is inserted as it is; below a second of time."""
COMPARED_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Copy:
    """``size`` bytes of the base, from ``start`` on."""

    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Insert:
    """The next ``size`` bytes of the inserted ones."""

    size: int


Edit = Copy | Insert


@dataclass(frozen=True, slots=True)
class Edits:
    """Edits in the target's order, and all inserted bytes one after another."""

    steps: tuple[Edit, ...]
    inserted: bytes = field(repr=False)


def edits_between(base: bytes, target: bytes) -> Edits:
    """Edits that make ``target`` out of ``base``: short where they have much in common, never wrong."""
    block = max(BLOCK_MIN_BYTES, -(-len(base) // BLOCKS_MAX_COUNT))
    index: dict[bytes, int] = {}
    for start in range(0, len(base) - block + 1, block):
        index.setdefault(base[start : start + block], start)
    steps: list[Edit] = []
    inserted = bytearray()
    done = _same_after(base, 0, target, 0)
    if done:
        steps.append(Copy(0, done))
    position, lookups = done, 0
    while position + block <= len(target) and lookups < LOOKUPS_MAX_COUNT:
        start = index.get(target[position : position + block], -1)
        back = _same_before(base, start, target, position, position - done) if start >= 0 else 0
        size = back + _same_after(base, start, target, position) if start >= 0 else 0
        if size < 2 * block:
            # Nothing, or a phrase that stands everywhere: copying it would lead away from where the texts go on alike.
            position += 1
            lookups += 1
            continue
        _insert(steps, inserted, target[done : position - back])
        steps.append(Copy(start - back, size))
        position = done = position - back + size
    tail = _same_before(base, len(base), target, len(target), len(target) - done)
    _insert(steps, inserted, target[done : len(target) - tail])
    if tail:
        steps.append(Copy(len(base) - tail, tail))
    return Edits(tuple(steps), bytes(inserted))


def apply_edits(base: bytes, steps: Sequence[Edit], inserted: bytes, *, max_bytes: int) -> bytes:
    """The target; raises ``delta_too_large`` past ``max_bytes``, ``delta_edits_invalid`` for edits that do not fit.

    **Security**: the size is added up before a byte is copied, so that many copies of a large base cost nothing.
    """
    if sum(step.size for step in steps) > max_bytes:
        raise BundleRefused("delta_too_large", f"edits make a file of more than {max_bytes} bytes")
    pieces: list[bytes] = []
    taken = 0
    for step in steps:
        if isinstance(step, Insert):
            pieces.append(inserted[taken : taken + step.size])
            taken += step.size
            continue
        if step.start + step.size > len(base):
            raise BundleRefused("delta_edits_invalid", "an edit copies from behind the end of the base")
        pieces.append(base[step.start : step.start + step.size])
    if taken != len(inserted):
        raise BundleRefused("delta_edits_invalid", "edits and inserted bytes do not belong together")
    return b"".join(pieces)


def _insert(steps: list[Edit], inserted: bytearray, piece: bytes) -> None:
    if piece:
        steps.append(Insert(len(piece)))
        inserted += piece


def _same_after(base: bytes, start: int, target: bytes, position: int) -> int:
    """How many bytes are the same from ``start`` and ``position`` on."""
    most = min(len(base) - start, len(target) - position)
    low, step = 0, BLOCK_MIN_BYTES
    while low < most:
        high = min(low + step, most)
        if base[start + low : start + high] != target[position + low : position + high]:
            break
        low, step = high, min(step * 2, COMPARED_MAX_BYTES)
    else:
        return most
    while high - low > 1:
        middle = (low + high) // 2
        same = base[start + low : start + middle] == target[position + low : position + middle]
        low, high = (middle, high) if same else (low, middle)
    return low


def _same_before(base: bytes, start: int, target: bytes, position: int, most: int) -> int:
    """How many bytes are the same right before ``start`` and ``position``, at most ``most``."""
    most = min(most, start)
    low, step = 0, BLOCK_MIN_BYTES
    while low < most:
        high = min(low + step, most)
        if base[start - high : start - low] != target[position - high : position - low]:
            break
        low, step = high, min(step * 2, COMPARED_MAX_BYTES)
    else:
        return most
    while high - low > 1:
        middle = (low + high) // 2
        same = base[start - middle : start - low] == target[position - middle : position - low]
        low, high = (middle, high) if same else (low, middle)
    return low
