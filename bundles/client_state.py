"""The polling side's disk and clocks: the bundle last in force, its lease, and the guard that each call asks.

Guarantees: bundle and lease are each replaced in one step and survive a power cut; a record that cannot be read is no lease;
asking the guard costs two clock readings. Leaves judging statements to ``bundles.lease``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final

from bundles.archive import ArchiveLimits
from bundles.dsse import ENVELOPE_MAX_BYTES, ENVELOPE_SUFFIX
from bundles.errors import BundleUnavailable
from bundles.lease import RECORD_MAX_BYTES, ClockReading, Lease
from bundles.sequence import write_durably

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_seconds() -> float:
    """Seconds since the machine started, sleep included where the system counts it."""
    return time.clock_gettime(_BOOT_CLOCK)


@lru_cache(maxsize=1)
def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""  # No such file on this system: a restart then counts by the wall clock alone.


class SystemClocks:
    """The clocks of this machine. Reading the start's name blocks once: make one in a thread."""

    def __init__(self) -> None:
        self._boot = _boot_id()

    def read(self) -> ClockReading:
        """Both clocks now."""
        return ClockReading(time.time(), boot_seconds(), self._boot)


class LeaseGuard:
    """The lease in force in this process. Replaced as a whole, asked by every call."""

    def __init__(
        self,
        clocks: Callable[[], ClockReading],
        *,
        wall: Callable[[], float] = time.time,
        boot: Callable[[], float] = boot_seconds,
    ) -> None:
        self._clocks = clocks
        self._wall = wall
        self._boot = boot
        self._lease = Lease()
        self._bounds = self._lease.bounds()

    @property
    def lease(self) -> Lease:
        """The lease as it is."""
        return self._lease

    def clocks(self) -> ClockReading:
        """Both clocks now."""
        return self._clocks()

    def replace(self, lease: Lease) -> None:
        """Put ``lease`` in force."""
        self._lease = lease
        self._bounds = lease.bounds()

    def holds(self) -> bool:
        """Whether the bundle may decide now."""
        lowest, ends_wall, ends_boot = self._bounds
        return lowest <= self._wall() < ends_wall and self._boot() < ends_boot

    def remaining_seconds(self) -> float:
        """How long it still may; 0 when it may not."""
        return self._lease.remaining_seconds(self._clocks())


class ClientFiles:
    """``bundle.tar.gz``, its co-signatures and ``lease.json`` in one folder. Its methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._archive = folder / "bundle.tar.gz"
        self._envelope = folder / f"bundle.tar.gz{ENVELOPE_SUFFIX}"
        self._lease = folder / "lease.json"

    def read_bundle(self) -> tuple[bytes, bytes | None] | None:
        """Archive and co-signatures of the bundle last in force; nothing of them is verified."""
        archive = _read(self._archive, ArchiveLimits().archive_max_bytes)
        return None if archive is None else (archive, _read(self._envelope, ENVELOPE_MAX_BYTES))

    def keep_bundle(self, archive: bytes, cosignatures: bytes | None) -> None:
        """Replace them."""
        if cosignatures is None:
            self._envelope.unlink(missing_ok=True)
        else:
            write_durably(self._envelope, cosignatures)
        write_durably(self._archive, archive)

    def read_lease(self) -> bytes | None:
        """The lease's record; ``None`` when there never was one."""
        return _read(self._lease, RECORD_MAX_BYTES)

    def keep_lease(self, lease: Lease) -> None:
        """Replace it."""
        write_durably(self._lease, lease.record(), mode=0o600)


def _read(path: Path, max_bytes: int) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as refused:
        raise BundleUnavailable("state_unavailable", f"{path}: {refused.strerror}") from refused
