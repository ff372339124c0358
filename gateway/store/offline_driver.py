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
from gateway.ledger.verify import LogBroken, LogHead, StoredRow, stored_head
from gateway.store import statements
from gateway.store.opening_driver import check_opening, stored_rows
from gateway.store.port import StoredRecord, StoreUnavailable
from gateway.store.sealing import TenantKeys
from gateway.store.sqlite_errors_driver import unavailable

READ_TIMEOUT_SECONDS: Final = 5.0
UNLISTED_MAX_LOGS: Final = 100


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
        """What the store says about each log. Errors: `LogBroken`."""
        return tuple(stored_head(*row[1:]) for row in self._rows)

    def logs(self) -> tuple[LogHead | LogBroken, ...]:
        """Each log that the store lists, and what is wrong with it; then those it holds records of and does not list, at most
        `UNLISTED_MAX_LOGS`. Errors: `StoreUnavailable`."""
        try:
            unlisted = self._connection.execute(statements.UNLISTED_RECORDS, {"count": UNLISTED_MAX_LOGS}).fetchall()
        except sqlite3.Error as error:
            raise unavailable(error) from error
        found: list[LogHead | LogBroken] = []
        for row in self._rows:
            try:
                found.append(stored_head(*row[1:]))
            except LogBroken as broken:
                found.append(broken)
        for log_id, count in unlisted:
            found.append(LogBroken("log_missing", ("", ""), 0, f"{count} records of log {log_id}, which is not listed"))
        return tuple(found)

    def rows(self, log: LogId) -> Iterator[StoredRow]:
        """All rows of a log in order, streamed, whatever is in them. Errors: `StoreUnavailable`."""
        log_id = next((row[0] for row in self._rows if (row[1], row[2]) == log), -1)
        try:
            yield from stored_rows(self._connection, log_id)
        except sqlite3.Error as error:
            raise unavailable(error) from error

    def records(self, log: LogId) -> Iterator[tuple[int, bytes]]:
        """All records of a log in order, streamed: stored number and bytes. Errors: `StoreUnavailable`, `LogBroken`."""
        for row in self.rows(log):
            if not isinstance(row.unverified_seq, int):
                raise LogBroken("record_row", log, 0, "a record's number is none")
            yield row.unverified_seq, _data(log, row.unverified_seq, row.unverified_data)

    def check_opening(self, keys: TenantKeys) -> None:
        """Whether a gate would start on this file. Errors: `StoreUnavailable`, as its start would raise it."""
        try:
            check_opening(self._connection, keys)
        except sqlite3.Error as error:
            raise unavailable(error) from error

    def newest(self, count: int) -> tuple[StoredRecord, ...]:
        """The last `count` records over all logs, oldest of them first. Errors: `StoreUnavailable`, `LogBroken`."""
        return self._read(statements.NEWEST_RECORDS, {"count": count})[::-1]

    def end_snapshot(self) -> None:
        """Hold the snapshot no longer: the gate's log cannot start over while somebody reads in it. What is read afterwards is
        as of then."""
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")

    def after(self, position: int, count: int) -> tuple[StoredRecord, ...]:
        """Records that were written after row `position`, in order, as of now; holds nothing afterwards. Errors:
        `StoreUnavailable`, `LogBroken`."""
        self.end_snapshot()
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
        logs = (((str(row[0]), str(row[1])), row) for row in rows)
        return tuple(StoredRecord(log, row[2], "", _data(log, row[2], row[3])) for log, row in logs)


def _data(log: LogId, seq: int, unverified_data: object) -> bytes:
    if not isinstance(unverified_data, bytes):
        raise LogBroken("record_row", log, seq, "a record's bytes are none")
    return unverified_data


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
