"""The service's deltas: earlier archives, and for each the way to what is served now, made when first asked for.

Guarantees: earlier archives and what was made of them stay within a count and a number of bytes; one delta is made at a time, in a
thread, and nobody waits longer for it than ``MAKE_SECONDS``; what is offered was tried and is much smaller than the whole. Leaves
to ``bundles.service`` whether what it leads to is still served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bundles.delta import make_delta
from bundles.delta_envelope import DELTA_MAX_BYTES, DeltaHead, SealedDelta, seal_delta
from bundles.errors import BundleError
from bundles.freshness import BundleIdentity, OnlineKey
from bundles.service_config import ServedBundle
from bundles.service_protocol import digests_in
from bundles.service_shelf import Shelved

BASES_MAX_COUNT: Final = 8
"""Earlier archives kept for each bundle."""
KEPT_MAX_BYTES: Final = 64 << 20
"""Earlier archives and deltas of all bundles together."""
MAKE_SECONDS: Final = 5.0
ENVELOPE_BYTES: Final = 2048
SHARE_OF_WHOLE: Final = 2
"""A delta that is not below half of the whole archive is not worth two ways to fail."""


@dataclass(frozen=True, slots=True)
class OfferedDelta:
    """A sealed delta and the digest of the archive it begins at."""

    base: str
    envelope: bytes = field(repr=False)


@dataclass(slots=True)
class _Base:
    """An earlier archive, and the delta from it to ``target``."""

    bundle_id: str
    shelved: Shelved
    target: str = ""
    making: asyncio.Task[bytes | None] | None = None
    made_bytes: int = 0
    sealed: bytes = b""
    sealed_at: float = 0.0

    @property
    def kept_bytes(self) -> int:
        return len(self.shelved.archive) + self.made_bytes + len(self.sealed)


class DeltaDesk:
    """Makes and seals deltas for one service. Belongs to one event loop."""

    def __init__(
        self,
        online: OnlineKey,
        clock: Callable[[], float],
        say: Callable[[str, Mapping[str, object]], None],
        *,
        kept_max_bytes: int = KEPT_MAX_BYTES,
        make: Callable[[bytes, bytes], bytes | None] | None = None,
        make_seconds: float = MAKE_SECONDS,
    ) -> None:
        self._online = online
        self._clock = clock
        self._say = say
        self._kept_max_bytes = kept_max_bytes
        self._make = make if make is not None else _small_delta
        self._make_seconds = make_seconds
        self._bases: list[_Base] = []
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[bytes | None]] = set()

    @property
    def kept_bytes(self) -> int:
        """What earlier archives and deltas take."""
        return sum(base.kept_bytes for base in self._bases)

    def remember(self, served: ServedBundle, earlier: Shelved) -> None:
        """Keep what is served no more, as a base; the oldest go when there are too many."""
        ours = [base for base in self._bases if base.bundle_id == served.id]
        for base in ours[: max(0, len(ours) - BASES_MAX_COUNT + 1)]:
            self._bases.remove(base)
        self._bases.append(_Base(served.id, earlier))
        self._trim()

    async def offered(self, served: ServedBundle, condition: str, target: Shelved) -> OfferedDelta | None:
        """The delta from a bundle that ``condition`` names to ``target``, if there is one worth its while by now."""
        base = self._base(served.id, digests_in(condition), target)
        if base is None:
            return None
        if base.target != target.publication.digest or base.making is None:
            base.target, base.sealed, base.made_bytes = target.publication.digest, b"", 0
            base.making = asyncio.create_task(self._made(base, target), name="bundle-delta")
            self._tasks.add(base.making)
            base.making.add_done_callback(self._tasks.discard)
        making = base.making
        done, _ = await asyncio.wait({making}, timeout=self._make_seconds)
        delta = making.result() if done and not making.cancelled() else None
        if delta is None:
            return None
        return OfferedDelta(base.shelved.publication.digest, await self._sealed(base, served.name, target, delta))

    def close(self) -> None:
        """Make no more."""
        for task in self._tasks:
            task.cancel()

    def _base(self, bundle_id: str, digests: tuple[str, ...], target: Shelved) -> _Base | None:
        """An archive that the client has, from which sequences rise to ``target``."""
        for base in reversed(self._bases):
            known = base.shelved.publication
            rises = known.epoch == target.publication.epoch and known.sequence < target.publication.sequence
            if base.bundle_id == bundle_id and rises and known.digest in digests:
                return base
        return None

    async def _made(self, base: _Base, target: Shelved) -> bytes | None:
        about = {"bundle": base.bundle_id, "base": base.shelved.publication.digest, "digest": target.publication.digest}
        async with self._turn:
            try:
                delta = await asyncio.to_thread(self._make, base.shelved.archive, target.archive)
            except Exception as fault:
                # Whatever it is: who asked for a delta still gets the bundle.
                code = fault.code if isinstance(fault, BundleError) else "delta_unmakeable"
                self._say("delta_failed", {**about, "code": code, "error": str(fault)})
                return None
        if delta is None or len(delta) > _worthwhile_bytes(target.archive):
            self._say("delta_not_offered", about)
            return None
        if base.target == target.publication.digest:
            base.made_bytes = len(delta)
            self._trim()
        self._say("delta_made", {**about, "size_bytes": len(delta), "whole_bytes": len(target.archive)})
        return delta

    async def _sealed(self, base: _Base, name: str, target: Shelved, delta: bytes) -> bytes:
        """The envelope, signed anew when half of its time is over."""
        now = self._clock()
        if base.sealed and base.target == target.publication.digest:
            if 0 <= now - base.sealed_at < self._online.ttl_seconds / 2:
                return base.sealed
        publication = target.publication
        about = BundleIdentity(name, publication.digest, publication.sequence)
        head = DeltaHead(
            about, base.shelved.publication.digest, publication.epoch, int(now), int(now) + self._online.ttl_seconds
        )
        envelope = await asyncio.to_thread(
            seal_delta, SealedDelta(head, delta), key=self._online.key, keyid=self._online.keyid
        )
        if base.target == publication.digest:
            base.sealed, base.sealed_at = envelope, now
            self._trim()
        return envelope

    def _trim(self) -> None:
        """Drop the oldest bases until the rest fits."""
        while self._bases and self.kept_bytes > self._kept_max_bytes:
            self._bases.pop(0)


def _small_delta(base: bytes, target: bytes) -> bytes | None:
    """The delta, if there is one that is worth sending."""
    return make_delta(base, target, max_bytes=_worthwhile_bytes(target))


def _worthwhile_bytes(whole: bytes) -> int:
    """How large a delta may be for its envelope, in base64, to be worth sending."""
    encoded = min((len(whole) - 1) // SHARE_OF_WHOLE, DELTA_MAX_BYTES)
    return max(0, encoded - ENVELOPE_BYTES) * 3 // 4
