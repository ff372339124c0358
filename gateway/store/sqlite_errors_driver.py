"""What an SQLite error means for the gateway."""

from __future__ import annotations

import sqlite3
from typing import Final

from gateway.store.port import StoreUnavailable

_FATAL: Final = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_CODES: Final = {
    sqlite3.SQLITE_FULL: "disk_full",
    sqlite3.SQLITE_BUSY: "store_busy",
    sqlite3.SQLITE_LOCKED: "store_busy",
    sqlite3.SQLITE_READONLY: "store_readonly",
    sqlite3.SQLITE_IOERR: "store_io_error",
    sqlite3.SQLITE_CORRUPT: "store_corrupt",
    sqlite3.SQLITE_NOTADB: "store_corrupt",
    sqlite3.SQLITE_CANTOPEN: "store_missing",
}


def unavailable(error: sqlite3.Error) -> StoreUnavailable:
    """The port's form of an SQLite error. A flush or I/O error and a corrupt file are fatal: what the disk holds is no
    longer known, and trying again could acknowledge what was never written."""
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return StoreUnavailable(_CODES.get(primary, "store_failed"), f"{name}: {error}", fatal=primary in _FATAL)
