"""What the ledger of a gate says, read from its store file by another process while the gate runs or after it ended."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.ledger.verify import LogVerifier
from gateway.store.offline_driver import OfflineLedger


@dataclass(frozen=True, slots=True)
class End:
    """One record of a call: what kind, and the status and code it names (None where it names none)."""

    kind: str
    status: int | None = None
    code: str | None = None


def store_of(directory: Path) -> Path:
    """The store file of a starter directory."""
    return directory / "state" / "tidegate.db"


def raw_records_of(directory: Path, call: str) -> list[dict[str, Any]]:
    """The records of one call in their order."""
    with closing(sqlite3.connect(f"file:{store_of(directory)}?mode=ro", uri=True, timeout=10.0)) as link:
        rows = link.execute("SELECT data FROM records WHERE call = ? ORDER BY id", (call,)).fetchall()
    return [json.loads(row[0]) for row in rows]


def records_of(directory: Path, call: str) -> list[End]:
    """The records of one call in short."""
    records = raw_records_of(directory, call)
    return [End(record["kind"], record["action"].get("status"), record["action"].get("code")) for record in records]


def verify_store(path: Path) -> int:
    """Verify every log of a store file; how many records it holds. Raises `LogBroken`."""
    count = 0
    with OfflineLedger(path) as ledger:
        for head in ledger.heads():
            verifier = LogVerifier(head.log)
            for seq, data in ledger.records(head.log):
                verifier.feed(data, seq)
                count += 1
            verifier.finish(head)
    return count
