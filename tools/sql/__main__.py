"""Write `gateway/store/statements.py`: the tables and statements as text, so that the gate runs without a compiler of SQL.

`python -m tools.sql` writes it; a test compares it with what would be written now.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from tools.sql import schema, statements

PLACE = Path(__file__).resolve().parents[2] / "gateway" / "store" / "statements.py"
WIDTH = 100
HEAD = '''"""The SQL of the SQLite driver. Written by `python -m tools.sql` from `tools/sql`: change it there.

Guarantees: no statement is put together from values; every value is a bound parameter. The ones of the hot path take
positional parameters, the others named ones.
"""

from __future__ import annotations

from typing import Final

'''


def _literal(text: str) -> str:
    """A text as a literal, over as many lines as it takes."""
    flat = " ".join(text.split())
    pieces = textwrap.wrap(flat, WIDTH, break_long_words=False, break_on_hyphens=False, drop_whitespace=False)
    return "(\n    " + "\n    ".join(_quoted(piece) for piece in pieces) + "\n)"


def _quoted(piece: str) -> str:
    escaped = piece.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def text() -> str:
    """The whole module."""
    lines = [HEAD, f"SCHEMA_VERSION: Final = {schema.SCHEMA_VERSION}\n\n", "TABLES: Final = (\n"]
    for statement in schema.sqlite_ddl():
        lines.append(textwrap.indent(_literal(statement), "    ") + ",\n")
    lines.append(')\n"""Create whatever does not exist yet, in this order."""\n\n')
    for name, statement in vars(statements).items():
        if name.isupper() and isinstance(statement, str):
            lines.append(f"{name}: Final = {_literal(statement)}\n")
    return "".join(lines)


if __name__ == "__main__":
    PLACE.write_text(text(), encoding="utf-8")
