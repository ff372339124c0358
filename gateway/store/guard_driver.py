"""Watching the store's files: are they still the ones that were opened, and is there room.

Guarantees: a database or write-ahead log that was replaced or removed, or a database that gained a second name, is noticed at
the next check; below the low-water mark new work is stopped while a reserve takes the last outcomes. Leaves to the driver
when to check.
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
BESIDE: Final = ("-wal", "-shm")
"""What SQLite keeps beside a database for as long as a connection is open, under the same inodes: frames that are flushed and
not yet copied, and who reads them. Who opens the database by its name afterwards looks for them by theirs."""


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
    """Remembers which files were opened. Links are not followed: SQLite keeps its files beside what a link leads to."""

    def __init__(self, path: Path, room: Callable[[Path], DiskRoom] = disk_room) -> None:
        self._path = path
        self._names = (str(path), *(f"{path}{suffix}" for suffix in BESIDE))
        self._room = room
        self._identities: tuple[tuple[int, int], ...] = ()

    def remember(self) -> None:
        """Take the files as they are now, with the database open, for the right ones. Errors: `StoreUnavailable`."""
        self._identities = tuple((found.st_dev, found.st_ino) for found in map(_stat, self._names))

    def check_file(self) -> None:
        """Errors: `StoreUnavailable` `store_replaced` when a name no longer leads to the file that was opened, or the
        database has a second name, by which another gate could open it unseen."""
        if self._check_names(self._names) != 1:
            raise StoreUnavailable("store_replaced", f"{self._path} has a second name")

    def check_written(self) -> None:
        """After a commit, which the database and its log hold. Errors: `StoreUnavailable` `store_replaced`, fatal: what was
        committed is not where anybody looks for it, and it can no longer be taken back."""
        try:
            self._check_names(self._names[:2])
        except StoreUnavailable as error:
            raise StoreUnavailable(error.code, error.detail, fatal=True) from error

    def is_low(self) -> bool:
        """Whether free space is below the low-water mark."""
        try:
            room = self._room(self._path.parent)
        except OSError as error:
            raise StoreUnavailable("store_replaced", f"{self._path.parent}: {error.strerror}") from error
        return room.free_bytes < min(LOW_WATER_BYTES, room.total_bytes // LOW_WATER_SHARE)

    def _check_names(self, names: tuple[str, ...]) -> int:
        """How many names the database has, when each of `names` leads to its file."""
        count = 0
        for name, identity in zip(names, self._identities, strict=False):
            found = _stat(name)
            if (found.st_dev, found.st_ino) != identity:
                raise StoreUnavailable("store_replaced", f"{name} is not the file that was opened")
            count = count or found.st_nlink
        return count


def _stat(name: str) -> os.stat_result:
    try:
        return os.lstat(name)
    except OSError as error:
        raise StoreUnavailable("store_replaced", f"{name}: {error.strerror}") from error
