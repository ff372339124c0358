"""Who owns a store's file: one process at a time.

Guarantees: while a `StoreOwner` stands, no other gate on this machine gets one for the same file; the system takes it back when
every process that holds its descriptor has ended, however they end. Leaves reading (`tidegate ledger`) free.

A second gate that started on the file would take the first one's running calls for lost and mark them unknown.
**Source**: flock(2); the lock lies beside the database, because SQLite locks the database's own bytes.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from gateway.store.port import StoreUnavailable

LOCK_SUFFIX: Final = ".lock"
PATIENCE_SECONDS: Final = 3.0
"""How long a start waits for a gate that has just gone: its store process finishes a last batch before it lets go."""
ASK_EVERY_SECONDS: Final = 0.02


class StoreOwner:
    """The ownership of one store file. Blocks on the disk."""

    def __init__(self, path: Path, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Take it. Errors: `StoreUnavailable` `store_in_use` while another process has it, `store_missing` when the
        lock cannot be made, `store_linked` when `path` is a link: SQLite keeps its log beside the file that it leads to, and
        who names that file directly would look for a lock there."""
        if path.is_symlink():
            raise StoreUnavailable(
                "store_linked", f"{path} is a link; let `store` name the file itself: {os.path.realpath(path)}"
            )
        lock = path.with_name(path.name + LOCK_SUFFIX)
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreUnavailable("store_missing", f"{lock}: {error.strerror}") from error
        until = time.monotonic() + patience_seconds
        while not _locked(descriptor):
            if time.monotonic() >= until:
                os.close(descriptor)
                raise StoreUnavailable("store_in_use", f"another gate runs on {path}; stop it first")
            time.sleep(ASK_EVERY_SECONDS)
        self._descriptor: int | None = descriptor

    @property
    def held(self) -> tuple[int, ...]:
        """The descriptor that holds it; whoever inherits it holds it too."""
        return () if self._descriptor is None else (self._descriptor,)

    def release(self) -> None:
        """Let go. Safe to call again; the lock's file stays, so that nobody locks a file without a name."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
