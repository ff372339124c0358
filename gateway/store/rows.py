"""Statements for many rows at once: the interpreter's and the database's cost of a statement is paid once for all of them.

Guarantees: values stay bound parameters. Leaves to `sqlite` which statements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

ROWS_AT_ONCE: Final = (64, 32, 16, 12, 8, 7, 6, 5, 4, 3, 2, 1)
"""How many rows one statement takes: every small size is one statement, and all of them fit the statement cache."""


@lru_cache(maxsize=64)
def for_rows(statement: str, rows: int) -> str:
    """A positional statement with one row of parameters, made to take `rows` of them."""
    start = statement.index("(?")
    end = statement.index(")", start) + 1
    return statement[:start] + ", ".join([statement[start:end]] * rows) + statement[end:]


def in_chunks(rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, list[Any]]]:
    """`rows` in the sizes of `ROWS_AT_ONCE`: how many, and their parameters one after the other."""
    begin = 0
    while begin < len(rows):
        size = next(size for size in ROWS_AT_ONCE if size <= len(rows) - begin)
        yield size, [value for row in rows[begin : begin + size] for value in row]
        begin += size
