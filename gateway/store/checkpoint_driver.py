"""Moving the write-ahead log into the database, off the writer's path.

Guarantees: copying is done by a thread and connection of its own with PASSIVE checkpoints, which never block the
writer; when the log has grown past its bound the writer is asked to finish the (by then short) rest between two
batches, so that the log starts over. Leaves durability to the writer's own flush: a checkpoint only tidies.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.store.port import StoreUnavailable
from gateway.store.sqlite_errors_driver import unavailable

INTERVAL_SECONDS: Final = 1.0
COPY_AT_BYTES: Final = 4 << 20
FINISH_AT_BYTES: Final = 32 << 20


class Checkpointer:
    """The thread that copies."""

    def __init__(
        self,
        path: Path,
        connect: Callable[[], sqlite3.Connection],
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        copy_at_bytes: int = COPY_AT_BYTES,
        finish_at_bytes: int = FINISH_AT_BYTES,
    ) -> None:
        self._interval_seconds = interval_seconds
        self._copy_at_bytes = copy_at_bytes
        self._finish_at_bytes = finish_at_bytes
        self._log_path = path.with_name(path.name + "-wal")
        self._connect = connect
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-checkpoint", daemon=True)
        self._connection: sqlite3.Connection | None = None
        self.finish_due = False
        self.failure: StoreUnavailable | None = None

    def start(self) -> None:
        """Open the file, now that it is known to be the right one, and begin. Errors: `StoreUnavailable`."""
        try:
            self._connection = self._connect()
        except sqlite3.Error as error:
            raise unavailable(error) from error
        self._thread.start()

    def stop(self) -> None:
        """End, waiting for a copy under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run(self) -> None:
        connection = self._connection
        try:
            while connection is not None and not self._stop.wait(self._interval_seconds):
                self._copy(connection)
        except sqlite3.Error as error:
            self.failure = unavailable(error)

    def _copy(self, connection: sqlite3.Connection) -> None:
        size = self._log_bytes()
        if size < self._copy_at_bytes:
            return
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            failure = unavailable(error)
            if failure.fatal:
                self.failure = failure
            return
        if size >= self._finish_at_bytes:
            self.finish_due = True

    def _log_bytes(self) -> int:
        try:
            return os.stat(self._log_path).st_size
        except FileNotFoundError:
            return 0
