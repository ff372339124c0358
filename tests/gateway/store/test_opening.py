"""What a store must hold to be opened, asked by a gate that starts and by who only looks."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.ledger.record import Appended, freeze
from gateway.store.offline_driver import OfflineLedger
from gateway.store.port import BatchItem, StoreUnavailable
from gateway.store.sealing import TenantKeys
from gateway.store.sqlite import SqliteAppender
from tests.gateway.store.build import AMPLE, KEYS, OTHER_LOG, FakeClock, draft

OTHER_KEYS = TenantKeys(b"x" * 32)
TAIL = 260


def _appender(path: Path, keys: TenantKeys = KEYS) -> SqliteAppender:
    return SqliteAppender(path, keys=keys, clock=FakeClock(), room=lambda _directory: AMPLE)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A store with records of two logs, one of them longer than what a start verifies."""
    path = tmp_path / "tidegate.db"
    appender = _appender(path)
    appender.open_writer()
    for number in range(TAIL):
        (result,) = appender.append_batch([BatchItem(freeze(draft(call=f"c{number}"), node="n"), ())])
        assert isinstance(result, Appended)
    appender.append_batch([BatchItem(freeze(draft("outcome", log=OTHER_LOG), node="n"), ())])
    appender.close_writer()
    return path


def _changed(path: Path, *statements: str) -> None:
    changed = sqlite3.connect(path)
    for statement in statements:
        changed.execute(statement)
    changed.commit()
    changed.close()


def _starts(path: Path, keys: TenantKeys) -> None:
    appender = _appender(path, keys)
    try:
        appender.open_writer()
    finally:
        appender.close_writer()


def _is_looked_at(path: Path, keys: TenantKeys) -> None:
    with OfflineLedger(path) as ledger:
        ledger.check_opening(keys)


Asker = Callable[[Path, TenantKeys], None]
ASKERS = pytest.mark.parametrize("ask", [_is_looked_at, _starts], ids=["looked at", "started on"])


@ASKERS
def test_store_opens_when_nothing_was_changed(ask: Asker, written: Path) -> None:
    ask(written, KEYS)
    ask(written, KEYS)


@ASKERS
@pytest.mark.parametrize(
    ("damage", "code"),
    [
        pytest.param("UPDATE meta SET value = 99 WHERE name = 'schema_version'", "store_version", id="a later schema"),
        pytest.param("UPDATE meta SET value = 1 WHERE name = 'key_check'", "store_key_changed", id="another key"),
        pytest.param(
            "DELETE FROM records WHERE id = (SELECT max(id) FROM records)", "ledger_broken", id="the end gone"
        ),
        pytest.param("UPDATE records SET call = 'x' WHERE seq = 259", "ledger_broken", id="filed under another call"),
        pytest.param("UPDATE records SET data = 'x' WHERE seq = 259", "ledger_broken", id="text for bytes"),
        pytest.param("UPDATE logs SET next_seq = 'x'", "ledger_broken", id="text for a number"),
        pytest.param("UPDATE logs SET tenant = x'ff' WHERE tenant = 'acme'", "ledger_broken", id="bytes for a tenant"),
        pytest.param("UPDATE records SET seq = 'x' WHERE seq = 259", "ledger_broken", id="a record's number as text"),
        pytest.param(
            "INSERT INTO records (log_id, seq, call, data) VALUES (2, -1, '', x'00')", "ledger_broken", id="one below"
        ),
    ],
)
def test_store_does_not_open_when_it_holds(ask: Asker, written: Path, damage: str, code: str) -> None:
    _changed(written, damage)
    with pytest.raises(StoreUnavailable) as caught:
        ask(written, KEYS)
    assert (caught.value.code, caught.value.fatal) == (code, True)


@ASKERS
def test_store_does_not_open_under_another_key_than_it_was_written_with(ask: Asker, written: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"store_key_changed: .*put that key file back"):
        ask(written, OTHER_KEYS)
    ask(written, KEYS)


def test_store_takes_the_key_it_is_opened_with_when_it_knows_none(written: Path) -> None:
    _changed(written, "DELETE FROM meta WHERE name = 'key_check'")
    _is_looked_at(written, OTHER_KEYS)
    _starts(written, KEYS)
    with pytest.raises(StoreUnavailable, match="store_key_changed"):
        _starts(written, OTHER_KEYS)


def test_key_check_differs_between_secrets_and_fits_a_column() -> None:
    numbers = {TenantKeys(bytes([number]) * 32).key_check() for number in range(50)}
    assert len(numbers) == 50
    assert all(0 <= number < 2**63 for number in numbers)
