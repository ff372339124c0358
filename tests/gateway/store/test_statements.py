"""The SQL that the gate runs with is what its tables and statements say."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from gateway.store import statements
from gateway.store.rows import ROWS_AT_ONCE, for_rows, in_chunks
from tools.sql.__main__ import text


def _constants(names: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in names.items() if name.isupper()}


def test_statements_are_what_would_be_written_now() -> None:
    written: dict[str, Any] = {}
    exec(text(), written)
    assert _constants(written) == _constants(vars(statements)), "run python -m tools.sql"


@pytest.mark.parametrize(
    "name", [name for name in _constants(vars(statements)) if isinstance(getattr(statements, name), str)]
)
def test_statement_is_understood_by_the_database(name: str) -> None:
    connection = sqlite3.connect(":memory:")
    for table in statements.TABLES:
        connection.execute(table)
    statement = getattr(statements, name)
    marks = statement.count("?")
    values: Any = (1,) * marks if marks else _any_value()
    connection.execute(f"EXPLAIN {statement}", values)
    connection.close()


class _any_value(dict[str, int]):
    """A value for every name."""

    def __missing__(self, name: str) -> int:
        return 1


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 9, 17, 64, 65, 200])
def test_rows_keep_their_order_however_many_they_are(count: int) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a, b)")
    for size, values in in_chunks([(number, -number) for number in range(count)]):
        assert size in ROWS_AT_ONCE
        connection.execute(for_rows("INSERT INTO t (a, b) VALUES (?, ?)", size), values)
    assert connection.execute("SELECT a, b FROM t ORDER BY rowid").fetchall() == [(n, -n) for n in range(count)]
    connection.close()
