"""The polling side of deltas: from the archive on disk and a delta to the archive that is served, or a refusal.

Guarantees: what comes back has the digest that a signed statement of the same answer names; nothing on disk or in force is
touched; after refusals deltas are asked for ever more rarely. Leaves the checks of every bundle to ``bundles.client``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from bundles.canonical import sha256_hex
from bundles.client_protocol import ClientTrust, Fetched, content_type, statement_in
from bundles.client_state import ClientFiles
from bundles.delta import ApplyDelta, apply_delta
from bundles.delta_envelope import open_delta
from bundles.errors import BundleError, BundleRefused
from bundles.freshness import BundleIdentity, verify_statement
from bundles.service_protocol import BUNDLE_TYPE, DELTA_TYPE

PAUSE_FIRST_SECONDS: Final = 60.0
PAUSE_MAX_SECONDS: Final = 86_400.0
"""A gate whose zlib packs differently never rebuilds the target: it tries once a day, after a software update too."""


class DeltaTaker:
    """Takes deltas for one bundle. Belongs to one event loop."""

    def __init__(
        self, trust: ClientTrust, files: ClientFiles, steady: Callable[[], float], rebuild: ApplyDelta = apply_delta
    ) -> None:
        """``rebuild`` is called in threads."""
        self._trust = trust
        self._rebuild = rebuild
        self._files = files
        self._steady = steady
        self._in_a_row = 0
        self._not_before = float("-inf")
        self.refused_count = 0
        self.refusal: str | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether a delta may be asked for now."""
        return self._steady() >= self._not_before

    async def whole(self, fetched: Fetched, held: BundleIdentity, *, now: float) -> Fetched:
        """The answer as if the whole bundle had come; ``held`` is in force, ``now`` in Unix seconds.

        Raises what ``open_delta``, ``verify_statement`` and ``apply_delta`` raise, and ``delta_answer`` (something else
        came), ``delta_base_missing`` (the archive in force is not on disk), ``delta_digest_mismatch``.

        **Security**: signature and statement come before the first edit, the digest before anybody else sees the result.
        """
        if content_type(fetched) != DELTA_TYPE:
            raise BundleRefused("delta_answer", f"a delta was said to come, {content_type(fetched) or 'nothing'} came")
        archive = await asyncio.to_thread(self._rebuilt, fetched, held, now)
        self._in_a_row = 0
        headers = {**fetched.unverified_headers, "content-type": BUNDLE_TYPE}
        return replace(fetched, status=200, unverified_headers=headers, unverified_body=archive)

    def refused(self, fault: BundleError) -> None:
        """Count a refusal, and ask for none for a while."""
        self.refused_count += 1
        self.refusal = fault.code
        pause = PAUSE_FIRST_SECONDS * 2.0 ** min(self._in_a_row, 30)
        self._not_before = self._steady() + min(pause, PAUSE_MAX_SECONDS)
        self._in_a_row += 1

    def _rebuilt(self, fetched: Fetched, held: BundleIdentity, now: float) -> bytes:
        keys, trust = self._trust.freshness_keys, self._trust.bundle
        sealed = open_delta(fetched.unverified_body, keys, held, epoch=trust.epoch, now=now)
        target = sealed.head.target
        verify_statement(statement_in(fetched), keys, target, now=now)
        kept = self._files.read_bundle()
        if kept is None or f"sha256:{sha256_hex(kept[0])}" != held.digest:
            raise BundleRefused("delta_base_missing", "the archive in force is not on disk")
        archive = self._rebuild(kept[0], sealed.archive, trust.limits)
        if f"sha256:{sha256_hex(archive)}" != target.digest:
            raise BundleRefused("delta_digest_mismatch", f"the edits do not lead to {target.digest}")
        return archive
