"""Checkpoints beside the writer: when they copy, when they ask for the end, what stops the store."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.ledger.record import freeze
from gateway.store.checkpoint_driver import Checkpointer
from gateway.store.offline_driver import OfflineLedger
from gateway.store.port import BatchItem, StoreUnavailable
from gateway.store.sqlite import SqliteAppender, connect_sqlite
from gateway.store.sqlite_errors_driver import unavailable
from tests.gateway.store.build import AMPLE, KEYS, FakeClock, draft

PATIENCE_SECONDS = 10


def until(condition: Callable[[], bool]) -> None:
    """Poll a condition that a thread makes true."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[tuple[Path, sqlite3.Connection]]:
    path = tmp_path / "t.db"
    connection = connect_sqlite(path)
    connection.execute("CREATE TABLE t (x BLOB)")
    yield path, connection
    connection.close()


class FailingConnection(sqlite3.Connection):
    """A connection whose checkpoints fail as told."""

    code = sqlite3.SQLITE_IOERR

    def execute(self, *arguments: object) -> sqlite3.Cursor:
        error = sqlite3.OperationalError("told to fail")
        error.sqlite_errorcode = self.code
        error.sqlite_errorname = "TOLD"
        raise error


def test_checkpointer_copies_and_asks_for_the_end_when_the_log_has_grown(
    database: tuple[Path, sqlite3.Connection],
) -> None:
    path, writer = database
    before = path.stat().st_size
    checkpointer = Checkpointer(
        path, lambda: connect_sqlite(path), interval_seconds=0.005, copy_at_bytes=1, finish_at_bytes=100_000
    )
    checkpointer.start()
    try:
        writer.execute("INSERT INTO t VALUES (zeroblob(20000))")
        until(lambda: path.stat().st_size > before)
        assert not checkpointer.finish_due
        writer.execute("INSERT INTO t VALUES (zeroblob(200000))")
        until(lambda: checkpointer.finish_due)
        assert checkpointer.failure is None
    finally:
        checkpointer.stop()


def test_checkpointer_rests_until_the_log_is_large(database: tuple[Path, sqlite3.Connection]) -> None:
    path, writer = database
    checkpointer = Checkpointer(
        path, lambda: sqlite3.connect(path, factory=FailingConnection, check_same_thread=False), interval_seconds=0.001,
        copy_at_bytes=100_000,
    )  # fmt: skip
    checkpointer.start()
    try:
        time.sleep(0.02)
        assert checkpointer.failure is None
        writer.execute("INSERT INTO t VALUES (zeroblob(200000))")
        until(lambda: checkpointer.failure is not None)
    finally:
        checkpointer.stop()


def test_checkpointer_reports_a_failure_when_input_or_output_fails(database: tuple[Path, sqlite3.Connection]) -> None:
    path, _writer = database
    checkpointer = Checkpointer(
        path, lambda: sqlite3.connect(path, factory=FailingConnection, check_same_thread=False), interval_seconds=0.001,
        copy_at_bytes=0,
    )  # fmt: skip
    checkpointer.start()
    until(lambda: checkpointer.failure is not None)
    checkpointer.stop()
    assert isinstance(checkpointer.failure, StoreUnavailable)
    assert checkpointer.failure.fatal


def test_checkpointer_goes_on_when_the_disk_is_full_for_now(database: tuple[Path, sqlite3.Connection]) -> None:
    path, _writer = database
    tried: list[object] = []

    class Full(FailingConnection):
        code = sqlite3.SQLITE_FULL

        def execute(self, *arguments: object) -> sqlite3.Cursor:
            tried.append(arguments)
            return super().execute(*arguments)

    checkpointer = Checkpointer(
        path, lambda: sqlite3.connect(path, factory=Full, check_same_thread=False), interval_seconds=0.001,
        copy_at_bytes=0, finish_at_bytes=0,
    )  # fmt: skip
    checkpointer.start()
    until(lambda: len(tried) > 1)
    checkpointer.stop()
    assert checkpointer.failure is None
    assert not checkpointer.finish_due


def test_checkpointer_does_not_start_when_it_cannot_connect(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path / "t.db", lambda: connect_sqlite(tmp_path / "absent" / "t.db"))
    with pytest.raises(StoreUnavailable, match="store_missing"):
        checkpointer.start()
    checkpointer.stop()


def test_checkpointer_has_opened_its_file_when_its_start_returns(database: tuple[Path, sqlite3.Connection]) -> None:
    path, _writer = database
    opened_by: list[threading.Thread] = []

    def connect() -> sqlite3.Connection:
        opened_by.append(threading.current_thread())
        return connect_sqlite(path)

    checkpointer = Checkpointer(path, connect)
    checkpointer.start()
    checkpointer.stop()
    assert opened_by == [threading.current_thread()], "a thread of its own could meet another file at that path"


def test_checkpointer_sees_no_log_when_there_is_none(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path / "none.db", lambda: sqlite3.connect(":memory:"), copy_at_bytes=1)
    connection = sqlite3.connect(":memory:")
    checkpointer._copy(connection)
    connection.close()
    assert not checkpointer.finish_due
    checkpointer.stop()


@pytest.mark.parametrize(
    ("primary", "code", "fatal"),
    [
        pytest.param(sqlite3.SQLITE_IOERR | (4 << 8), "store_io_error", True, id="a flush that failed"),
        pytest.param(sqlite3.SQLITE_CORRUPT, "store_corrupt", True, id="a corrupt file"),
        pytest.param(sqlite3.SQLITE_NOTADB, "store_corrupt", True, id="no database"),
        pytest.param(sqlite3.SQLITE_FULL, "disk_full", False, id="a full disk"),
        pytest.param(sqlite3.SQLITE_BUSY, "store_busy", False, id="another writer"),
        pytest.param(sqlite3.SQLITE_READONLY, "store_readonly", False, id="a read-only file"),
        pytest.param(sqlite3.SQLITE_ERROR, "store_failed", False, id="anything else"),
    ],
)
def test_error_keeps_its_meaning_when_sqlite_reports_it(primary: int, code: str, fatal: bool) -> None:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = primary
    found = unavailable(error)
    assert (found.code, found.fatal) == (code, fatal)


def test_log_starts_over_while_somebody_follows_the_ledger_between_two_looks(tmp_path: Path) -> None:
    path = tmp_path / "tidegate.db"
    appender = SqliteAppender(path, keys=KEYS, clock=FakeClock(), room=lambda _directory: AMPLE)
    appender.open_writer()

    def left_in_the_log() -> int:
        """How many pages stay in the log after a write and a checkpoint, because somebody reads what was before them."""
        appender.append_batch([BatchItem(freeze(draft(), node="n1"), ())])
        assert appender._connection is not None
        _busy, logged, copied = appender._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return int(logged) - int(copied)

    with OfflineLedger(path) as ledger:
        position = ledger.position()
        assert left_in_the_log() > 0
        ledger.end_snapshot()
        assert left_in_the_log() == 0
        assert [record.seq for record in ledger.after(position, 10)] == [0, 1]
        assert left_in_the_log() == 0
        assert ledger.after(position + 3, 10) == ()
        assert left_in_the_log() == 0
    appender.close_writer()
