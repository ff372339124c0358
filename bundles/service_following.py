"""Looks, again and again, at what other services published on the same storage.

Guarantees: every bundle is looked at, a few at a time; a storage that fails is said once, and once more when it answers again;
nothing here stops serving: a shelf that nobody could look at for too long says so by itself. Leaves the schedule's length
to the configuration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NoReturn, Protocol

from bundles.errors import BundleError
from bundles.s3_shelf import Say

LANES_COUNT: Final = 2
"""Looks at one time: threads that a hanging storage holds, of those that verifying needs as well."""


class Followed(Protocol):
    """A service whose bundles somebody else may publish."""

    @property
    def bundle_ids(self) -> tuple[str, ...]:
        """Every address."""

    async def refresh(self, bundle_id: str) -> bool:
        """Serve what was published elsewhere; raises :class:`BundleError`."""


class StorageFollower:
    """Follows the storage of one service. Belongs to its event loop."""

    def __init__(self, service: Followed, *, refresh_seconds: float, say: Say) -> None:
        self._service = service
        self._seconds = refresh_seconds
        self._say = say
        self._failing: dict[str, str] = {}

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            await self.look()

    async def look(self) -> None:
        """Look at every bundle once."""
        ids = self._service.bundle_ids
        await asyncio.gather(*(self._lane(ids[start::LANES_COUNT]) for start in range(LANES_COUNT)))

    async def _lane(self, bundle_ids: Sequence[str]) -> None:
        for bundle_id in bundle_ids:
            await self._look_at(bundle_id)

    async def _look_at(self, bundle_id: str) -> None:
        try:
            await self._service.refresh(bundle_id)
        except BundleError as fault:
            if self._failing.get(bundle_id) != fault.code:
                self._say("storage_failing", {"bundle": bundle_id, "code": fault.code, "error": fault.detail})
            self._failing[bundle_id] = fault.code
        else:
            if self._failing.pop(bundle_id, None) is not None:
                self._say("storage_back", {"bundle": bundle_id})
