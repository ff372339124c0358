"""Kept inputs read from a store file directly, whether or not a gate has it open.

Guarantees: the file is opened read-only; what is read opens only with the store's own key, for its own tenant. An input
whose time has come is not given, even if nobody has removed it yet. Leaves the key file to `keyfile`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

import orjson

from gateway.store import statements
from gateway.store.port import KeptInput, StoreUnavailable
from gateway.store.sealing import Sealer, TenantKeys
from gateway.store.sqlite_errors_driver import unavailable
from gateway.store.sqlite_reads_driver import RECORDS_OF_CALL_MAX, opened_input

READ_TIMEOUT_SECONDS: Final = 5.0
_EVERY: Final = -1


class OfflineInputs:
    """The kept inputs of a store file; a context manager."""

    def __init__(self, path: Path, keys: TenantKeys, now: int) -> None:
        """`now` is wall milliseconds. Errors: `StoreUnavailable` when there is no store at `path`."""
        if not path.is_file():
            raise StoreUnavailable("store_missing", f"{path} does not exist")
        self._sealer = Sealer(keys, _no_bytes)
        self._now = now
        address = f"file:{quote(str(path.resolve()))}?mode=ro"
        try:
            self._connection = sqlite3.connect(address, uri=True, timeout=READ_TIMEOUT_SECONDS, isolation_level=None)
        except sqlite3.Error as error:
            raise unavailable(error) from error

    def __enter__(self) -> OfflineInputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def of_call(self, call_id: str) -> KeptInput | None:
        """What policy was asked about a call. Errors: `StoreUnavailable`, `SealBroken`, `AnswerBroken`."""
        rows = list(self._read(statements.FIND_INPUT, {"call_": call_id, "now": self._now, "count": 1}))
        return opened_input(self._sealer, (rows[0][0], rows[0][1]), rows[0][2:]) if rows else None

    def newest(self, count: int, *, tenant: str | None = None) -> Iterator[KeptInput]:
        """The newest kept inputs, newest first, of every log or of one tenant's. Errors: as `of_call`."""
        values = {"now": self._now, "count": _EVERY if tenant is not None else count}
        with closing(self._read(statements.NEWEST_INPUTS, values)) as rows:
            wanted = (row for row in rows if tenant is None or row[0] == tenant)
            for row in islice(wanted, count):
                yield opened_input(self._sealer, (row[0], row[1]), row[2:])

    def records_of(self, call_id: str) -> tuple[dict[str, Any], ...]:
        """The records of a call, in order. Errors: `StoreUnavailable`."""
        rows = list(self._read(statements.FIND_RECORDS, {"call_": call_id, "count": RECORDS_OF_CALL_MAX}))
        try:
            return tuple(orjson.loads(row[0]) for row in rows)
        except orjson.JSONDecodeError as error:
            raise StoreUnavailable("record_unreadable", "a record is not what was written") from error

    def _read(self, statement: str, values: dict[str, Any]) -> Generator[Any, None, None]:
        try:
            yield from self._connection.execute(statement, values)
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # written by a version that kept none
                return
            raise unavailable(error) from error
        except sqlite3.Error as error:
            raise unavailable(error) from error


def _no_bytes(count: int) -> bytes:
    raise StoreUnavailable("store_read_only", f"nothing is sealed here ({count} bytes asked for)")
