"""The tables, described once; `python -m tools.sql` writes what the gate runs with.

Guarantees: every table is scoped to a log (tenant, workspace) or to a tenant; a log has each `seq` once; an approval
that is open is the only open one for its call. Leaves to the drivers how statements run.

Text that a person may not read at rest (arguments of held calls, stored answers, kept inputs) is in `sealed` columns only.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql.elements import TextClause
from sqlalchemy.sql.expression import text

SCHEMA_VERSION: Final = 1

metadata: Final = MetaData()

meta: Final = Table(
    "meta", metadata, Column("name", Text, primary_key=True), Column("value", BigInteger, nullable=False)
)

logs: Final = Table(
    "logs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("workspace", Text, nullable=False),
    Column("next_seq", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
    Column("hlc_ms", BigInteger, nullable=False),
    Column("hlc_count", BigInteger, nullable=False),
    UniqueConstraint("tenant", "workspace"),
)

records: Final = Table(
    "records",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("log_id", Integer, ForeignKey("logs.id"), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("call", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    UniqueConstraint("log_id", "seq"),
    Index("records_by_call", "call", "log_id"),
)

open_intents: Final = Table(
    "open_intents",
    metadata,
    Column("log_id", Integer, primary_key=True),
    Column("call", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("wall", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

keys: Final = Table(
    "keys",
    metadata,
    Column("log_id", Integer, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("request_digest", Text, nullable=False),
    Column("call", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Index("keys_by_expiry", "expires"),
    sqlite_with_rowid=False,
)

answers: Final = Table(
    "answers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("log_id", Integer, nullable=False),
    Column("call", Text, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    UniqueConstraint("log_id", "call"),
    Index("answers_by_expiry", "expires"),
)

inputs: Final = Table(
    "inputs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("log_id", Integer, nullable=False),
    Column("call", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    UniqueConstraint("log_id", "call"),
    Index("inputs_by_age", "log_id", "id"),
    Index("inputs_by_call", "call"),
    Index("inputs_by_expiry", "expires"),
)

differences: Final = Table(
    "differences",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("log_id", Integer, nullable=False),
    Column("call", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("differences_by_age", "log_id", "id"),
    Index("differences_by_kind", "log_id", "kind", "id"),
    Index("differences_by_expiry", "expires"),
)

calls: Final = Table(
    "calls",
    metadata,
    Column("log_id", Integer, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("subject", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("instance", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("effect", Text, nullable=False),
    Column("code", Text),
    Column("decision", Text, nullable=False),
    Column("approval", Text),
    Column("status", Integer),
    Column("created", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

_OPEN: Final[TextClause] = text("state IN ('pending', 'approved')")

approvals: Final = Table(
    "approvals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("log_id", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("action_digest", Text, nullable=False),
    Column("attach_key", Text, nullable=False),
    Column("requester", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("deadline", BigInteger, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Index("approvals_by_age", "log_id", "created", "id"),
    Index("approvals_by_state", "log_id", "state", "created", "id"),
    Index("approvals_by_deadline", "state", "deadline"),
    Index("approvals_by_requester", "log_id", "requester", "state", "deadline"),
    Index("approvals_open", "log_id", "attach_key", unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN),
)

switches: Final = Table(
    "switches",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("set_by", Text, nullable=False),
    Column("set_at", BigInteger, nullable=False),
)

sequences: Final = Table(
    "sequences",
    metadata,
    Column("name", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)


def sqlite_ddl() -> tuple[str, ...]:
    """The statements that create everything that does not exist yet, in SQLite's words."""
    dialect = sqlite.dialect()
    statements: list[str] = []
    for table in metadata.sorted_tables:
        statements.append(str(CreateTable(table, if_not_exists=True).compile(dialect=dialect)))
        for index in sorted(table.indexes, key=lambda each: str(each.name)):
            statements.append(str(CreateIndex(index, if_not_exists=True).compile(dialect=dialect)))
    return tuple(statements)
