"""Checking a log again, record by record, with nothing but its bytes.

Guarantees: a changed, missing, added, moved or spliced record is found and its place named; so is a tail that was cut
off, against the stored head, and a row whose columns do not say what its record says. Constant memory. Leaves to
`cli.ledger` where the bytes come from, and to checkpoints (outside the store) a log that was rewritten as a whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from gateway.errors import GateError
from gateway.ledger.record import (
    GENESIS_HASH,
    RECORD_MAX_BYTES,
    RECORD_VERSION,
    LogId,
    RecordMalformed,
    canonical_record_json,
    check_profile,
    leaf_hash,
)

MEMBERS: Final = frozenset(
    {
        "v", "log", "seq", "prev", "hlc", "wall", "kind", "ids",
        "subject", "action", "decision", "policy", "digests", "actor", "node", "mode",
    }
)  # fmt: skip
_HASH: Final = re.compile(r"[0-9a-f]{64}")


class LogBroken(GateError):
    """The log does not verify: `code` says what, `seq` where (the number that the record should have had)."""

    def __init__(self, code: str, log: LogId, seq: int, detail: str) -> None:
        super().__init__(f"{code} in {log[0]}/{log[1]} at {seq}: {detail}")
        self.code = code
        self.log = log
        self.seq = seq
        self.detail = detail


@dataclass(frozen=True, slots=True)
class LogHead:
    """What the store says about a log: the number of records, and the last leaf hash."""

    log: LogId
    next_seq: int
    hash: str


class StoredRow(NamedTuple):
    """A record as a store holds it; what a tampered store holds may be of any type."""

    unverified_row: object
    unverified_seq: object
    unverified_call: object
    unverified_data: object


def stored_head(
    unverified_tenant: object, unverified_workspace: object, unverified_next_seq: object, unverified_hash: object
) -> LogHead:
    """The head of a log as a store holds it. Errors: `LogBroken` `log_head` when something in it is of another type."""
    tenant, workspace, next_seq, last = unverified_tenant, unverified_workspace, unverified_next_seq, unverified_hash
    if isinstance(tenant, str) and isinstance(workspace, str) and isinstance(last, str) and isinstance(next_seq, int):
        if next_seq >= 0:
            return LogHead((tenant, workspace), next_seq, last)
    raise LogBroken("log_head", (str(tenant), str(workspace)), 0, "the head holds what no head holds")


class LogVerifier:
    """Checks the records of one log in order; start it in the middle with a known predecessor."""

    def __init__(self, log: LogId, *, next_seq: int = 0, prev: str | None = GENESIS_HASH) -> None:
        """`prev` None takes the first record's word for its predecessor (a tail without what came before)."""
        self._log = log
        self._prev = prev
        self._hlc = (-1, -1)
        self._row = -1
        self.next_seq = next_seq

    def feed_row(self, stored: StoredRow) -> None:
        """Check the next record and what the store says beside it. Errors: those of `feed`; `LogBroken` with `record_row`,
        `record_order`, `record_call`."""
        row, seq, call, data = stored
        if not (isinstance(row, int) and isinstance(seq, int) and isinstance(call, str) and isinstance(data, bytes)):
            raise self._broken("record_row", "a column holds what no record has there")
        named = self._feed(data, seq)["ids"].get("call")
        if call != (named if isinstance(named, str) else ""):
            raise LogBroken("record_call", self._log, seq, "the store files the record under another call")
        if row <= self._row:
            raise LogBroken("record_order", self._log, seq, "the store holds the record before its predecessor")
        self._row = row

    def feed(self, data: bytes, stored_seq: int | None = None) -> None:
        """Check the next record. Errors: `LogBroken` with `record_missing`, `record_not_canonical`, `record_members`,
        `record_seq`, `record_log`, `record_prev`, `record_hlc`."""
        self._feed(data, stored_seq)

    def _feed(self, data: bytes, stored_seq: int | None) -> dict[str, Any]:
        if stored_seq is not None and stored_seq < self.next_seq:
            raise self._broken("record_seq", f"the store has a record at {stored_seq}, out of its place")
        if stored_seq is not None and stored_seq != self.next_seq:
            raise self._broken("record_missing", f"the store goes on with {stored_seq}")
        record = self._parsed(data)
        if record["seq"] != self.next_seq:
            raise self._broken("record_seq", f"the record calls itself {record['seq']}")
        if record["log"] != list(self._log):
            raise self._broken("record_log", "the record belongs to another log")
        if self._prev is not None and record["prev"] != self._prev:
            raise self._broken("record_prev", "the record follows another predecessor")
        hlc = (record["hlc"][0], record["hlc"][1])
        if hlc <= self._hlc:
            raise self._broken("record_hlc", "the hybrid clock goes back")
        self._hlc = hlc
        self._prev = leaf_hash(data)
        self.next_seq += 1
        return record

    def finish(self, head: LogHead) -> None:
        """Compare with the stored head. Errors: `LogBroken` `log_truncated`, `log_head`."""
        if head.next_seq > self.next_seq:
            raise self._broken("log_truncated", f"the head promises {head.next_seq} records")
        if head.next_seq != self.next_seq:
            raise self._broken("log_head", f"the head knows only {head.next_seq} records")
        if self._prev is not None and head.hash != self._prev:
            raise self._broken("log_head", "the head names another last record")

    def _broken(self, code: str, detail: str) -> LogBroken:
        return LogBroken(code, self._log, self.next_seq, detail)

    def _parsed(self, data: bytes) -> dict[str, Any]:
        if len(data) > RECORD_MAX_BYTES:
            raise self._broken("record_not_canonical", "larger than a record may be")
        try:
            record: Any = orjson.loads(data)
            if canonical_record_json(record) != data:
                raise self._broken("record_not_canonical", "the bytes are not the canonical form")
            check_profile(record)
        except (ValueError, TypeError, RecordMalformed) as error:
            raise self._broken("record_not_canonical", "no record of the restricted profile") from error
        if not isinstance(record, dict) or record.keys() != MEMBERS or record["v"] != RECORD_VERSION:
            raise self._broken("record_members", "members or version are not a record's")
        hlc = record["hlc"]
        if (
            type(record["seq"]) is not int
            or not isinstance(record["prev"], str)
            or _HASH.fullmatch(record["prev"]) is None
            or not (isinstance(hlc, list) and [type(each) for each in hlc] == [int, int])
            or not isinstance(record["ids"], dict)
        ):
            raise self._broken("record_members", "seq, prev, hlc or ids have the wrong type")
        return record
