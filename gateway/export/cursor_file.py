"""How far an exporter has come in each log, on disk.

Guarantees: what `advance` returned from is still there after a crash; a file that is damaged raises and is never taken for
an empty one. Leaves to the exporter what a position means.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final, NamedTuple

from gateway.errors import GateMisuse
from gateway.ledger.record import LogId

CURSOR_MAX_BYTES: Final = 16 << 20


class Position(NamedTuple):
    """The number of the next record, and the hash of the one before it."""

    next_seq: int = 0
    last_hash: str = ""


START: Final = Position()


class CursorDamaged(GateMisuse):
    """The file cannot be read as positions; removing it exports everything again."""

    code = "cursor_damaged"


class CursorFile:
    """The positions of one exporter, by log. Blocks on the disk: call it in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._positions: dict[LogId, Position] = {}

    def load(self) -> None:
        """Read the file; none is the beginning of every log. Raises `CursorDamaged`, `OSError`."""
        try:
            with self._path.open("rb") as file:
                raw = file.read(CURSOR_MAX_BYTES + 1)
        except FileNotFoundError:
            self._positions = {}
            return
        try:
            entries = json.loads(raw)["logs"]
            self._positions = {
                (str(entry["tenant"]), str(entry["workspace"])): Position(int(entry["next"]), str(entry["hash"]))
                for entry in entries
            }
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CursorDamaged(f"{self._path} holds no positions of an exporter") from error

    def position(self, log: LogId) -> Position:
        """Where to go on in a log."""
        return self._positions.get(log, START)

    def advance(self, log: LogId, position: Position) -> None:
        """Remember a position durably. Raises `OSError`; then the old one still counts on disk."""
        self._positions[log] = position
        entries = [
            {"tenant": tenant, "workspace": workspace, "next": at.next_seq, "hash": at.last_hash}
            for (tenant, workspace), at in sorted(self._positions.items())
        ]
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = self._path.with_name(f"{self._path.name}.new")
        with beside.open("wb") as file:
            file.write(json.dumps({"v": 1, "logs": entries}).encode())
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
