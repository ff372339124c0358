"""A file that is replaced while a batch is being written, before a pause, or by another version: nothing is promised."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.ledger.record import Appended, freeze
from gateway.store.guard_driver import DiskRoom
from gateway.store.port import BatchItem, StoreUnavailable
from gateway.store.sqlite import SqliteAppender
from gateway.store.statements import SCHEMA_VERSION
from tests.gateway.store.build import AMPLE, KEYS, LOG, START, draft


class _Disturbed:
    """A clock and a disk gauge, each of which does something once when it is read."""

    def __init__(self) -> None:
        self.at_clock: Callable[[], None] | None = None
        self.free = AMPLE

    def clock(self) -> int:
        disturb, self.at_clock = self.at_clock, None
        if disturb is not None:
            disturb()
        return START

    def room(self, _directory: Path) -> DiskRoom:
        return self.free


@pytest.fixture
def world() -> _Disturbed:
    return _Disturbed()


@pytest.fixture
def appender(tmp_path: Path, world: _Disturbed) -> Iterator[SqliteAppender]:
    made = SqliteAppender(tmp_path / "tidegate.db", keys=KEYS, clock=world.clock, room=world.room)
    made.open_writer()
    yield made
    made.close_writer()


def _item() -> BatchItem:
    return BatchItem(freeze(draft(), node="n1"), ())


def _code(act: Callable[[], object]) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        act()
    return caught.value.code


def _append(appender: SqliteAppender) -> Appended:
    (result,) = appender.append_batch([_item()])
    assert isinstance(result, Appended)
    return result


def test_batch_is_not_acknowledged_when_the_file_is_replaced_while_it_is_written(
    appender: SqliteAppender, world: _Disturbed, tmp_path: Path
) -> None:
    path = tmp_path / "tidegate.db"
    world.at_clock = lambda: os.rename(path, tmp_path / "moved.db")
    assert _code(lambda: appender.append_batch([_item()])) == "store_replaced"


def test_batch_is_not_acknowledged_when_the_file_gets_a_second_name_while_it_is_written(
    appender: SqliteAppender, world: _Disturbed, tmp_path: Path
) -> None:
    world.at_clock = lambda: os.link(tmp_path / "tidegate.db", tmp_path / "twin.db")
    assert _code(lambda: appender.append_batch([_item()])) == "store_replaced"


def _replace(path: Path) -> None:
    """Put the same bytes there under another inode."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
@pytest.mark.parametrize("disturb", [Path.unlink, _replace], ids=["removed", "another file"])
def test_batch_is_not_acknowledged_when_what_lies_beside_the_database_is(
    disturb: Callable[[Path], None], suffix: str, appender: SqliteAppender, world: _Disturbed, tmp_path: Path
) -> None:
    _append(appender)
    beside = tmp_path / f"tidegate.db{suffix}"
    world.at_clock = lambda: disturb(beside)
    assert _code(lambda: appender.append_batch([_item()])) == "store_replaced"
    assert _code(lambda: appender.append_batch([_item()])) == "store_replaced"
    assert _code(appender.tidy) == "store_replaced"


def test_what_was_acknowledged_is_kept_when_the_log_was_removed_and_the_store_is_closed(
    appender: SqliteAppender, tmp_path: Path
) -> None:
    _append(appender)
    (tmp_path / "tidegate.db-wal").unlink()
    assert _code(appender.tidy) == "store_replaced"
    appender.close_writer()
    assert _records(tmp_path / "tidegate.db") == 1


@pytest.mark.parametrize("notice", [SqliteAppender.tidy, _append], ids=["while nothing is written", "by a batch"])
def test_what_was_acknowledged_is_kept_when_the_log_was_removed_and_the_process_is_killed(
    notice: Callable[[SqliteAppender], object], appender: SqliteAppender, tmp_path: Path
) -> None:
    _append(appender)
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"tidegate.db{suffix}").unlink()
    assert _code(lambda: notice(appender)) == "store_replaced"
    (tmp_path / "copy.db").write_bytes((tmp_path / "tidegate.db").read_bytes())  # all that is left of a killed process
    assert _records(tmp_path / "copy.db") == 1


def test_batches_go_on_when_the_log_was_emptied_by_its_own_checkpoint(appender: SqliteAppender, tmp_path: Path) -> None:
    _append(appender)
    assert appender._connection is not None
    appender._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert (tmp_path / "tidegate.db-wal").stat().st_size == 0
    assert _append(appender).seq == 1


def _records(path: Path) -> int:
    found = sqlite3.connect(path)
    (count,) = found.execute("SELECT count(*) FROM records").fetchone()
    found.close()
    return int(count)


def _at_commit(appender: SqliteAppender, act: Callable[[], object]) -> None:
    """Act once, after the last check before a commit and before the commit itself."""
    acts = [act]

    def traced(statement: str) -> None:
        if statement == "COMMIT" and acts:
            acts.pop()()

    assert appender._connection is not None
    appender._connection.set_trace_callback(traced)


def test_nothing_is_kept_of_a_batch_when_the_file_gets_a_second_name_while_it_is_written(
    appender: SqliteAppender, world: _Disturbed, tmp_path: Path
) -> None:
    twin = tmp_path / "twin.db"
    world.at_clock = lambda: os.link(tmp_path / "tidegate.db", twin)
    with pytest.raises(StoreUnavailable) as caught:
        appender.append_batch([_item()])
    assert (caught.value.code, caught.value.fatal) == ("store_replaced", False)
    assert _records(tmp_path / "tidegate.db") == 0
    twin.unlink()
    assert _append(appender).seq == 0


def test_batch_is_acknowledged_when_the_file_gets_a_second_name_with_its_commit_and_the_next_is_not(
    appender: SqliteAppender, tmp_path: Path
) -> None:
    _at_commit(appender, lambda: os.link(tmp_path / "tidegate.db", tmp_path / "twin.db"))
    assert _append(appender).seq == 0
    assert _code(lambda: appender.append_batch([_item()])) == "store_replaced"


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_failure_is_fatal_when_a_file_goes_with_the_commit(
    suffix: str, appender: SqliteAppender, tmp_path: Path
) -> None:
    path = tmp_path / f"tidegate.db{suffix}"
    _at_commit(appender, lambda: os.rename(path, tmp_path / "moved"))
    with pytest.raises(StoreUnavailable) as caught:
        appender.append_batch([_item()])
    assert (caught.value.code, caught.value.fatal) == ("store_replaced", True)


def test_store_is_found_replaced_while_nothing_is_written(appender: SqliteAppender, tmp_path: Path) -> None:
    path, moved = tmp_path / "tidegate.db", tmp_path / "moved.db"
    appender.tidy()
    os.rename(path, moved)
    assert _code(appender.tidy) == "store_replaced"
    path.write_bytes(moved.read_bytes())
    assert _code(appender.tidy) == "store_replaced"
    os.replace(moved, path)
    appender.tidy()


def test_store_is_found_low_while_nothing_is_written(appender: SqliteAppender, world: _Disturbed) -> None:
    world.free = DiskRoom(0, 1000)
    assert _code(appender.tidy) == "disk_low"
    world.free = AMPLE
    appender.tidy()


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1], ids=["an earlier", "a later"])
def test_store_does_not_open_when_its_schema_is_of(version: int, tmp_path: Path, world: _Disturbed) -> None:
    path = tmp_path / "tidegate.db"
    made = SqliteAppender(path, keys=KEYS, clock=world.clock, room=world.room)
    made.open_writer()
    assert _append(made).log == LOG
    made.close_writer()
    changed = sqlite3.connect(path)
    changed.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", (version,))
    changed.commit()
    changed.close()
    again = SqliteAppender(path, keys=KEYS, clock=world.clock, room=world.room)
    with pytest.raises(StoreUnavailable) as caught:
        again.open_writer()
    again.close_writer()
    assert (caught.value.code, caught.value.fatal) == ("store_version", True)


@pytest.mark.parametrize("act", [_append, SqliteAppender.tidy], ids=["an append", "tidying"])
def test_replaced_file_is_told_before_what_its_checkpoints_met(
    act: Callable[[SqliteAppender], object], appender: SqliteAppender, tmp_path: Path
) -> None:
    assert appender._checkpointer is not None
    appender._checkpointer.failure = StoreUnavailable("store_io_error", "by the test", fatal=True)
    (tmp_path / "tidegate.db").rename(tmp_path / "moved.db")
    assert _code(lambda: act(appender)) == "store_replaced"
    (tmp_path / "moved.db").rename(tmp_path / "tidegate.db")
    assert _code(lambda: act(appender)) == "store_io_error"


def test_store_does_not_open_when_its_path_is_a_link(tmp_path: Path, world: _Disturbed) -> None:
    (tmp_path / "store.db").touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "store.db")
    linked = SqliteAppender(tmp_path / "link.db", keys=KEYS, clock=world.clock, room=world.room)
    assert _code(linked.open_writer) == "store_missing"
