"""Watching the store's files: are they still the ones that were opened, and is there room.

Guarantees: a database that was replaced, removed or gained a second name is noticed at the next check; below the
low-water mark new work is stopped while a reserve takes the last outcomes. Leaves to the driver when to check.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.store.port import StoreUnavailable

LOW_WATER_BYTES: Final = 256 << 20
LOW_WATER_SHARE: Final = 20
"""One part in so many of the file system; the smaller of both marks counts, so that small volumes work at all."""


@dataclass(frozen=True, slots=True)
class DiskRoom:
    """Free and total bytes of a file system."""

    free_bytes: int
    total_bytes: int


def disk_room(directory: Path) -> DiskRoom:
    """The room of the file system that holds `directory`. Errors: `OSError`."""
    found = os.statvfs(directory)
    return DiskRoom(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


class FileGuard:
    """Remembers which file was opened."""

    def __init__(self, path: Path, room: Callable[[Path], DiskRoom] = disk_room) -> None:
        self._path = path
        self._room = room
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
            room = self._room(self._path.parent)
        except OSError as error:
            raise StoreUnavailable("store_replaced", f"{self._path.parent}: {error.strerror}") from error
        return room.free_bytes < min(LOW_WATER_BYTES, room.total_bytes // LOW_WATER_SHARE)

    def _stat(self) -> os.stat_result:
        try:
            return os.stat(self._path)
        except OSError as error:
            raise StoreUnavailable("store_replaced", f"{self._path}: {error.strerror}") from error
