"""What a store must hold to be opened: its schema's version, the key it is written with, logs whose ends verify.

Guarantees: whoever asks gets the same answer as a gate that starts on the file; nothing is changed. Leaves reading every record
to `offline_driver` and judging one to `gateway.ledger.verify`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any, Final

from gateway.ledger.record import GENESIS_HASH
from gateway.ledger.verify import LogBroken, LogHead, LogVerifier, StoredRow, stored_head
from gateway.store import statements
from gateway.store.port import StoreUnavailable
from gateway.store.sealing import TenantKeys

TAIL_CHECKED_RECORDS: Final = 256
EVERY_NUMBER: Final = float("-inf")
"""Below any number that a tampered row can hold."""


def check_opening(connection: sqlite3.Connection, keys: TenantKeys) -> None:
    """Errors: `StoreUnavailable` `store_version`, `store_key_changed`, `ledger_broken`, all fatal; `sqlite3.Error`."""
    version = meta(connection, "schema_version")
    if version is not None and version != statements.SCHEMA_VERSION:
        raise StoreUnavailable(
            "store_version", f"the file has schema {version}, this is {statements.SCHEMA_VERSION}", fatal=True
        )
    key_check = meta(connection, "key_check")
    if key_check is not None and key_check != keys.key_check():
        raise StoreUnavailable(
            "store_key_changed",
            "the store was written under another key than the one in `ledger.hmac`: put that key file back, or begin with "
            "a new store",
            fatal=True,
        )
    try:
        for row in connection.execute(statements.LIST_LOGS).fetchall():
            _check_tail(connection, row[0], stored_head(*row[1:]))
    except LogBroken as error:
        raise StoreUnavailable("ledger_broken", str(error), fatal=True) from error


def meta(connection: sqlite3.Connection, name: str) -> Any:
    """A value that the store keeps about itself, None without one. Errors: `sqlite3.Error`."""
    found = connection.execute(statements.GET_META, {"name_": name}).fetchone()
    return None if found is None else found[0]


def stored_rows(connection: sqlite3.Connection, log_id: int, first: float = EVERY_NUMBER) -> Iterator[StoredRow]:
    """The rows of a log from number `first` on, streamed, whatever is in them. Errors: `sqlite3.Error`."""
    with closing(connection.execute(statements.CHECK_RECORDS, {"log": log_id, "first": first})) as rows:
        for row in rows:
            yield StoredRow(*row)


def _check_tail(connection: sqlite3.Connection, log_id: int, head: LogHead) -> None:
    first = max(0, head.next_seq - TAIL_CHECKED_RECORDS)
    verifier = LogVerifier(head.log, next_seq=first, prev=GENESIS_HASH if first == 0 else None)
    for row in islice(stored_rows(connection, log_id, first or EVERY_NUMBER), TAIL_CHECKED_RECORDS + 1):
        verifier.feed_row(row)
    verifier.finish(head)
