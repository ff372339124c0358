"""The SQLite driver's writing side.

Guarantees: one transaction and one flush per batch (`synchronous=FULL`, `BEGIN IMMEDIATE`); the log's head is read
inside the transaction, so several processes may share one file; nothing is acknowledged when the files are not the ones
that were opened, and a batch that is refused for it is not kept, or, when it was committed already, ends the process. At
opening the newest records of each log are verified against the stored head. Leaves to `process_driver` where it runs, reads
to `sqlite_reads_driver`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from gateway.ledger.record import GENESIS_HASH, Appended, LogId, Position, leaf_hash, next_hlc, seal
from gateway.store import statements
from gateway.store.checkpoint_driver import Checkpointer
from gateway.store.guard_driver import DiskRoom, FileGuard, disk_room
from gateway.store.opening_driver import check_opening, meta
from gateway.store.port import (
    DIFFERENCES_MAX_ROWS,
    BatchItem,
    BatchResult,
    StoreConflict,
    StoreUnavailable,
    WallClock,
)
from gateway.store.rows import for_rows, in_chunks
from gateway.store.sealing import SealBroken, Sealer, TenantKeys
from gateway.store.sqlite_effects_driver import EffectRunner
from gateway.store.sqlite_errors_driver import unavailable

BUSY_TIMEOUT_SECONDS: Final = 5.0
PRUNE_INTERVAL_MS: Final = 60_000
LAST_OUTCOMES: Final = frozenset({"outcome", "response_began"})
"""What the reserve below the low-water mark still takes: the ends of what has begun."""
OPENING: Final = frozenset({"intent", "response_began"})
"""What has begun and is open until its end is recorded."""


class _Head:
    """Where a log stands inside the open transaction."""

    __slots__ = ("hash", "hlc", "log_id", "next_seq")

    def __init__(self, log_id: int, next_seq: int, last_hash: str, hlc: tuple[int, int]) -> None:
        self.log_id = log_id
        self.next_seq = next_seq
        self.hash = last_hash
        self.hlc = hlc


class _Batch:
    """What one transaction gathers before it is written with one statement per table."""

    __slots__ = ("closed", "heads", "now", "opened", "rows")

    def __init__(self, now: int) -> None:
        self.now = now
        self.heads: dict[LogId, _Head] = {}
        self.rows: list[tuple[int, int, str, bytes]] = []
        self.opened: list[tuple[int, str, int, int]] = []
        self.closed: list[tuple[int, str]] = []


def connect_sqlite(path: Path, *, flush: bool = True) -> sqlite3.Connection:
    """A writing connection in WAL mode; commits are explicit, checkpoints are the checkpointer's."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={'FULL' if flush else 'OFF'}")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("PRAGMA journal_size_limit=67108864")
    return connection


class SqliteAppender:
    """The writing side of one SQLite file. `flush=False` is for measurements only."""

    def __init__(
        self,
        path: Path,
        *,
        keys: TenantKeys,
        clock: WallClock,
        random_bytes: Callable[[int], bytes] = os.urandom,
        room: Callable[[Path], DiskRoom] = disk_room,
        flush: bool = True,
    ) -> None:
        self._path = path
        self._clock = clock
        self._flush = flush
        self._keys = keys
        self._sealer = Sealer(keys, random_bytes)
        self._guard = FileGuard(path, room)
        self._connection: sqlite3.Connection | None = None
        self._effects: EffectRunner | None = None
        self._checkpointer: Checkpointer | None = None
        self._pruned = 0

    def open_writer(self) -> None:
        """Create or open the file, check that it may be opened (`opening_driver`). Errors: `StoreUnavailable`."""
        try:
            self._create_file()
            connection = connect_sqlite(self._path, flush=self._flush)
            self._connection = connection
            self._prepare(connection)
        except sqlite3.Error as error:
            raise unavailable(error) from error
        except OSError as error:
            raise StoreUnavailable("store_missing", f"{self._path}: {error.strerror}") from error
        self._guard.remember()
        self._effects = EffectRunner(connection, self._sealer)
        self._checkpointer = Checkpointer(self._path, lambda: connect_sqlite(self._path, flush=self._flush))
        self._checkpointer.start()

    def append_batch(self, items: Sequence[BatchItem]) -> list[BatchResult]:
        """Commit a batch; see the port."""
        connection, effects = self._opened()
        self._check_checkpointer(connection)
        low = self._guard.is_low()
        batch = _Batch(self._clock())
        effects.begin()
        try:
            connection.execute("BEGIN IMMEDIATE")
            results = [self._add(item, batch, connection, effects, low) for item in items]
            self._write(batch, connection)
            self._guard.check_file()
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back(connection)
            raise unavailable(error) from error
        except StoreUnavailable:
            self._roll_back(connection)
            self._fold(connection)
            raise
        except BaseException:
            self._roll_back(connection)
            raise
        self._guard.check_written()
        return results

    def tidy(self) -> None:
        """Check the file and the room, drop what has expired; see the port."""
        connection, _ = self._opened()
        self._check_checkpointer(connection)
        try:
            self._guard.check_file()
        except StoreUnavailable:
            self._fold(connection)
            raise
        if self._guard.is_low():
            raise StoreUnavailable("disk_low", "free disk is below the low-water mark")
        now = self._clock()
        if now - self._pruned < PRUNE_INTERVAL_MS:
            return
        try:
            connection.execute(statements.PRUNE_KEYS, {"now": now})
            connection.execute(statements.PRUNE_ANSWERS, {"now": now})
            connection.execute(statements.PRUNE_INPUTS, {"now": now})
            connection.execute(statements.PRUNE_DIFFERENCES, {"now": now, "kept": DIFFERENCES_MAX_ROWS})
        except sqlite3.Error as error:
            raise unavailable(error) from error
        self._pruned = now

    def close_writer(self) -> None:
        """Stop checkpoints and close; closing the last connection folds the write-ahead log in."""
        if self._checkpointer is not None:
            self._checkpointer.stop()
            self._checkpointer = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _opened(self) -> tuple[sqlite3.Connection, EffectRunner]:
        if self._connection is None or self._effects is None:
            raise StoreUnavailable("store_closed", "the store is not open for writing")
        return self._connection, self._effects

    def _create_file(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        for statement in statements.TABLES:
            connection.execute(statement)
        check_opening(connection, self._keys)
        for name, value in (("schema_version", statements.SCHEMA_VERSION), ("key_check", self._keys.key_check())):
            if meta(connection, name) is None:
                connection.execute(statements.PUT_META, {"name": name, "value": value})

    def _check_checkpointer(self, connection: sqlite3.Connection) -> None:
        checkpointer = self._checkpointer
        if checkpointer is None:
            return
        if checkpointer.failure is not None:
            self._guard.check_file()
            raise checkpointer.failure
        if checkpointer.finish_due:
            checkpointer.finish_due = False
            self._fold(connection)

    def _fold(self, connection: sqlite3.Connection) -> None:
        """Copy what was acknowledged into the database, through the descriptors that are open: a log that was removed or replaced
        is found by nobody who opens the database anew."""
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            raise unavailable(error) from error

    def _add(
        self, item: BatchItem, batch: _Batch, connection: sqlite3.Connection, effects: EffectRunner, low: bool
    ) -> BatchResult:
        record = item.record
        if low and record.kind not in LAST_OUTCOMES:
            return StoreUnavailable("disk_low", "free disk is below the low-water mark")
        head = batch.heads.get(record.log)
        if head is None:
            head = self._head(record.log, connection)
            batch.heads[record.log] = head
        if item.effects:
            failure = self._run_effects(item, head, batch.now, connection, effects)
            if failure is not None:
                return failure
        head.hlc = next_hlc(head.hlc, batch.now)
        data = seal(record, Position(head.next_seq, head.hash, head.hlc, batch.now))
        batch.rows.append((head.log_id, head.next_seq, record.call, data))
        if record.call:
            if record.kind in OPENING:
                batch.opened.append((head.log_id, record.call, head.next_seq, batch.now))
            elif record.kind == "outcome":
                batch.closed.append((head.log_id, record.call))
        head.hash = leaf_hash(data)
        appended = Appended(record.log, head.next_seq, head.hash)
        head.next_seq += 1
        return appended

    def _run_effects(
        self, item: BatchItem, head: _Head, now: int, connection: sqlite3.Connection, effects: EffectRunner
    ) -> StoreConflict | StoreUnavailable | None:
        connection.execute("SAVEPOINT item")
        try:
            for effect in item.effects:
                effects.run(effect, item.record.log, head.log_id, now)
        except StoreConflict as conflict:
            connection.execute("ROLLBACK TO item")
            connection.execute("RELEASE item")
            return conflict
        except SealBroken as error:
            connection.execute("ROLLBACK TO item")
            connection.execute("RELEASE item")
            return StoreUnavailable("seal_broken", str(error))
        connection.execute("RELEASE item")
        return None

    def _head(self, log: LogId, connection: sqlite3.Connection) -> _Head:
        found = connection.execute(statements.LOG_HEAD, log).fetchone()
        if found is not None:
            return _Head(found[0], found[1], found[2], (found[3], found[4]))
        values = {
            "tenant": log[0],
            "workspace": log[1],
            "next_seq": 0,
            "hash": GENESIS_HASH,
            "hlc_ms": 0,
            "hlc_count": 0,
        }
        row = connection.execute(statements.INSERT_LOG, values).lastrowid
        if row is None:
            raise StoreUnavailable("store_failed", "a new log got no row")
        return _Head(row, 0, GENESIS_HASH, (0, 0))

    def _write(self, batch: _Batch, connection: sqlite3.Connection) -> None:
        # One statement for many rows: the interpreter's lock is given up once for all of them, not once for each.
        for statement, rows in (
            (statements.INSERT_RECORD, batch.rows),
            (statements.INSERT_INTENT, batch.opened),
            (statements.DELETE_INTENT, batch.closed),
        ):
            for size, values in in_chunks(rows):
                connection.execute(for_rows(statement, size), values)
        for head in batch.heads.values():
            connection.execute(statements.UPDATE_HEAD, (head.next_seq, head.hash, *head.hlc, head.log_id))

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise StoreUnavailable("store_io_error", f"roll back: {error}", fatal=True) from error
