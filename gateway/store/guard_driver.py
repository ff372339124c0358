"""Watching the store's files: are they still the ones that were opened, and is there room.

Guarantees: a database that was replaced, removed or gained a second name is noticed at the next check; below the
low-water mark new work is stopped while a reserve takes the last outcomes. Leaves to the driver when to check.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from gateway.store.port import StoreUnavailable

LOW_WATER_BYTES: Final = 256 << 20
LOW_WATER_SHARE: Final = 20
"""One part in so many of the file system; the smaller of both marks counts, so that small volumes work at all."""


class FileGuard:
    """Remembers which file was opened."""

    def __init__(self, path: Path, *, low_water_bytes: int = LOW_WATER_BYTES) -> None:
        self._path = path
        self._low_water_bytes = low_water_bytes
        self._identity: tuple[int, int] | None = None

    def remember(self) -> None:
        """Take the file as it is now for the right one. Errors: `StoreUnavailable`."""
        found = self._stat()
        self._identity = (found.st_dev, found.st_ino)

    def check_file(self) -> None:
        """Errors: `StoreUnavailable` `store_replaced` when the name no longer leads to the file that was opened."""
        found = self._stat()
        if (found.st_dev, found.st_ino) != self._identity or found.st_nlink != 1:
            raise StoreUnavailable("store_replaced", f"{self._path} is not the file that was opened")

    def is_low(self) -> bool:
        """Whether free space is below the low-water mark."""
        try:
            room = os.statvfs(self._path.parent)
        except OSError as error:
            raise StoreUnavailable("store_replaced", f"{self._path.parent}: {error.strerror}") from error
        mark = min(self._low_water_bytes, room.f_blocks * room.f_frsize // LOW_WATER_SHARE)
        return room.f_bavail * room.f_frsize < mark

    def _stat(self) -> os.stat_result:
        try:
            return os.stat(self._path)
        except OSError as error:
            raise StoreUnavailable("store_replaced", f"{self._path}: {error.strerror}") from error
