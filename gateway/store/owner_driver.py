"""Who owns a store's file: one process at a time.

Guarantees: while a `StoreOwner` stands, no other gate on this machine gets one for the same file; the system takes it back when
the process ends, however it ends. Leaves reading (`tidegate ledger`) free.

A second gate that started on the file would take the first one's running calls for lost and mark them unknown.
**Source**: flock(2); the lock lies beside the database, because SQLite locks the database's own bytes.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from gateway.store.port import StoreUnavailable

LOCK_SUFFIX: Final = ".lock"


class StoreOwner:
    """The ownership of one store file. Blocks on the disk."""

    def __init__(self, path: Path) -> None:
        """Take it. Errors: `StoreUnavailable` `store_in_use` while another process has it, `store_missing` when the
        lock cannot be made."""
        lock = path.with_name(path.name + LOCK_SUFFIX)
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreUnavailable("store_missing", f"{lock}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StoreUnavailable("store_in_use", f"another gate runs on {path}; stop it first") from error
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let go. Safe to call again; the lock's file stays, so that nobody locks a file without a name."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
