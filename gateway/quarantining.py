"""Taking a bundle out of force, and keeping it out until somebody lets it in again or another one takes its place.

Guarantees: from the first moment no call is decided with it, also if the disk fails; from when the entry is on disk no start
and no reload puts it in force; both ways are recorded in the operators' log. Leaves letting it in again to
`tidegate gateway release`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import time
from typing import Final

from bundles.errors import BundleRefused
from bundles.trusted_set import TrustedBundle
from gateway.ledger.record import LogId, RecordDraft, RecordMalformed
from gateway.ledger.writer import LedgerUnavailable, LedgerWriter
from gateway.quarantine import Entry, QuarantineUnreadable
from gateway.quarantine_store import QuarantineStore
from pdp.cross_check import CrossDifference
from pdp.prepared import PolicyPlane

OPERATOR_LOG: Final[LogId] = ("_gate", "_operations")

Say = Callable[[str, dict[str, object]], None]
"""Takes what happened and the fields of its log line."""


class Quarantine:
    """The quarantine of one gate. `is_held` says whether the bundle that should decide is in it."""

    def __init__(self, store: QuarantineStore, policy: PolicyPlane, writer: LedgerWriter, say: Say) -> None:
        self._store = store
        self._policy = policy
        self._writer = writer
        self._say = say
        self._held = ""
        self._unwritten: set[str] = set()

    @property
    def is_held(self) -> bool:
        """Whether nothing decides because the bundle that should is quarantined."""
        return self._held != ""

    async def begin(self, difference: CrossDifference) -> None:
        """Have the difference's bundle decide no more, if it is what decides."""
        digest = difference.bundle
        active = self._policy.current()
        if active is None or active.bundle.digest != digest:
            return
        self._held = digest
        self._unwritten.add(digest)
        await self._policy.withdraw(digest)
        self._say("bundle_quarantined", {"bundle": digest, "call": difference.call})
        at_ms = int(time() * 1000)
        entry = Entry(at_ms, difference.call, difference.input_digest, difference.ours, difference.theirs)
        try:
            await asyncio.to_thread(self._store.add, digest, entry)
            self._unwritten.discard(digest)
        except QuarantineUnreadable as failed:
            self._say("quarantine_unwritten", {"bundle": digest, "error": str(failed)})
        await self._record("quarantine", active.bundle)

    async def keeps_out(self, bundle: TrustedBundle) -> bool:
        """Whether a bundle that is to come into force may not, so that nothing does; raises `QuarantineUnreadable`.

        Raises `BundleRefused` where another one is in force, which then stays.
        """
        digest = bundle.digest
        if digest not in self._unwritten and not await asyncio.to_thread(self._store.holds, digest):
            return False
        if self._policy.current() is not None:
            raise BundleRefused("bundle_quarantined", f"{digest} is quarantined since engines differed about it")
        self._held = digest
        self._say("bundle_quarantined", {"bundle": digest})
        return True

    async def let_in(self, bundle: TrustedBundle) -> None:
        """A bundle came into force; what was held before is so no more."""
        held, self._held = self._held, ""
        if held == bundle.digest:
            self._say("bundle_released", {"bundle": held})
            await self._record("release", bundle)

    async def _record(self, verb: str, bundle: TrustedBundle) -> None:
        draft = RecordDraft(
            log=OPERATOR_LOG,
            kind="bundle",
            ids={},
            subject={},
            action={"name": f"tidegate.cross_check.{verb}"},
            decision=None,
            policy={"bundle": bundle.digest, "revision": bundle.revision[:256], "sequence": bundle.sequence},
            digests={},
            actor="gateway",
        )
        try:
            await self._writer.append(draft)
        except (LedgerUnavailable, RecordMalformed) as failed:
            self._say("quarantine_unrecorded", {"bundle": bundle.digest, "error": failed.detail})
