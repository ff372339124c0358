"""Reading a store file directly, read-only, whether or not a gate has it open.

Guarantees: one snapshot per reader, so that heads and records fit together while a gate writes; nothing is ever
changed; no key is needed, since records hold no sealed values. Leaves judging to `gateway.ledger.verify`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final
from urllib.parse import quote

from gateway.ledger.record import LogId
from gateway.ledger.verify import LogHead
from gateway.store import statements
from gateway.store.port import StoredRecord, StoreUnavailable
from gateway.store.sqlite_errors_driver import unavailable

READ_TIMEOUT_SECONDS: Final = 5.0
EVERY_RECORD: Final = 2**62


class OfflineLedger:
    """An open snapshot of the ledger in a store file; a context manager."""

    def __init__(self, path: Path) -> None:
        """Errors: `StoreUnavailable` when there is no store at `path`."""
        if not path.is_file():
            raise StoreUnavailable("store_missing", f"{path} does not exist")
        address = f"file:{quote(str(path.resolve()))}?mode=ro"
        try:
            self._connection = sqlite3.connect(address, uri=True, timeout=READ_TIMEOUT_SECONDS, isolation_level=None)
            self._connection.text_factory = _text
            self._connection.execute("BEGIN")
            self._rows = self._connection.execute(statements.LIST_LOGS).fetchall()
        except sqlite3.Error as error:
            raise unavailable(error) from error

    def __enter__(self) -> OfflineLedger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def heads(self) -> tuple[LogHead, ...]:
        """What the store says about each log."""
        return tuple(LogHead((row[1], row[2]), row[3], row[4]) for row in self._rows)

    def records(self, log: LogId) -> Iterator[tuple[int, bytes]]:
        """All records of a log in order, streamed: stored number and bytes. Errors: `StoreUnavailable`."""
        log_id = next((row[0] for row in self._rows if (row[1], row[2]) == log), -1)
        values = {"log": log_id, "first": 0, "count": EVERY_RECORD}
        try:
            for seq, data in self._connection.execute(statements.LIST_RECORDS, values):
                yield int(seq), bytes(data)
        except sqlite3.Error as error:
            raise unavailable(error) from error

    def newest(self, count: int) -> tuple[StoredRecord, ...]:
        """The last `count` records over all logs, oldest of them first."""
        return self._read(statements.NEWEST_RECORDS, {"count": count})[::-1]

    def after(self, position: int, count: int) -> tuple[StoredRecord, ...]:
        """Records that were written after row `position`, in order, as of now."""
        self._connection.execute("COMMIT")
        self._connection.execute("BEGIN")
        return self._read(statements.RECORDS_AFTER, {"position": position, "count": count})

    def position(self) -> int:
        """The row of the newest record in the snapshot."""
        found = self._connection.execute(statements.LAST_POSITION).fetchone()
        return int(found[0] or 0)

    def _read(self, statement: str, values: dict[str, int]) -> tuple[StoredRecord, ...]:
        try:
            rows = self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise unavailable(error) from error
        return tuple(StoredRecord((row[0], row[1]), row[2], "", bytes(row[3])) for row in rows)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
