"""The SQLite driver's reading side, for the event loop.

Guarantees: reads never block the loop (aiosqlite) and never the writer (WAL); they see only committed state and only
the log that was asked for. Leaves writing to `sqlite`.
"""

from __future__ import annotations

import base64
import binascii
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import aiosqlite
import orjson

from gateway.approvals.codec import decode_approval
from gateway.approvals.model import Approval, ApprovalState
from gateway.approvals.reduce import as_of
from gateway.ledger.record import LogId, leaf_hash
from gateway.store import statements
from gateway.store.answers import decode_answer, decode_kept
from gateway.store.contexts import answer_context, approval_context, input_context
from gateway.store.derived import call_of_records
from gateway.store.port import (
    LIST_MAX_ITEMS,
    CallRow,
    DifferenceRow,
    KeptInput,
    KeyClaim,
    OpenIntent,
    StoreConflict,
    StoredAnswer,
    StoredRecord,
    StoreUnavailable,
    SwitchRow,
    WallClock,
)
from gateway.store.sealing import SealBroken, Sealer
from gateway.store.sqlite_errors_driver import unavailable

BUSY_TIMEOUT_SECONDS: Final = 5.0
RECORDS_OF_CALL_MAX: Final = 32
_NEWEST: Final = (2**62, "")
_NEWEST_ROW: Final = 2**62


class SqliteReads:
    """Reads of the port from one SQLite file."""

    def __init__(self, path: Path, *, sealer: Sealer, clock: WallClock) -> None:
        self._path = path
        self._unsealer = sealer
        self._clock = clock
        self._reader: aiosqlite.Connection | None = None

    async def open(self) -> None:
        """Open for reading; the file must exist, so open the writing side first. Errors: `StoreUnavailable`."""
        try:
            self._reader = await aiosqlite.connect(
                f"file:{self._path}?mode=rw", uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None
            )
            await self._reader.execute("PRAGMA query_only=ON")
        except sqlite3.Error as error:
            raise unavailable(error) from error

    async def close(self) -> None:
        """Close the reading side."""
        if self._reader is not None:
            await self._reader.close()
            self._reader = None

    async def approval(self, log: LogId, approval_id: str) -> Approval | None:
        """One approval as stored (its clock not yet looked at)."""
        log_id = await self._log_id(log)
        found = await self._one(statements.GET_APPROVAL, {"log": log_id, "id_": approval_id})
        return None if found is None else self._approval(log, approval_id, found[0])

    async def open_approval(self, log: LogId, attach_key: str, now: int) -> Approval | None:
        """The approval of a call that is still open at `now`."""
        log_id = await self._log_id(log)
        found = await self._one(statements.OPEN_OF_CALL, {"log": log_id, "attach": attach_key})
        if found is None:
            return None
        approval = self._approval(log, found[0], found[1])
        return approval if as_of(approval, now) == approval else None

    async def approvals(
        self, log: LogId, state: ApprovalState | None, cursor: str | None, limit: int, now: int
    ) -> tuple[tuple[Approval, ...], str | None]:
        """A page, newest first, and the next cursor. Errors: `StoreConflict` `malformed_request` for a cursor that is
        none."""
        count = max(1, min(limit, LIST_MAX_ITEMS))
        created, approval_id = _NEWEST if cursor is None else decode_cursor(cursor)
        log_id = await self._log_id(log)
        values: dict[str, Any] = {"log": log_id, "created": created, "id_": approval_id, "count": count + 1}
        statement = statements.LIST_APPROVALS
        if state is not None:
            statement = statements.LIST_BY_STATE
            values["state_"] = state.value
        if state is ApprovalState.PENDING or state is ApprovalState.APPROVED:
            statement = statements.LIST_LIVE
            values["now"] = now
        elif state is ApprovalState.EXPIRED:
            statement = statements.LIST_EXPIRED
            del values["state_"]
            values["now"] = now
        rows = await self._all(statement, values)
        items = tuple(self._approval(log, row[0], row[1]) for row in rows[:count])
        following = encode_cursor(items[-1].created, items[-1].id) if len(rows) > count else None
        return items, following

    async def approvals_pending(self, now: int) -> int:
        """How many approvals wait for people, over all logs (a metric)."""
        return int((await self._one(statements.COUNT_PENDING, {"now": now}))[0])

    async def due_approvals(self, now: int, limit: int) -> tuple[Approval, ...]:
        """Open approvals whose clock has run out and whose rows do not say so yet."""
        rows = await self._all(statements.DUE_APPROVALS, {"now": now, "count": min(limit, LIST_MAX_ITEMS)})
        return tuple(self._approval((row[2], row[3]), row[0], row[1]) for row in rows)

    async def claim(self, log: LogId, scope: str) -> KeyClaim | None:
        """What is known of an idempotency key that has not expired, or whose call has not ended."""
        found = await self._one(statements.GET_KEY, {"log": await self._log_id(log), "scope_": scope})
        if found is None or (found[3] <= self._clock() and not found[4]):
            return None
        return KeyClaim(request_digest=found[0], call=found[1], state=found[2], expires=found[3])

    async def answer(self, log: LogId, call_id: str) -> StoredAnswer | None:
        """The stored answer of a call, until it expires."""
        values = {"log": await self._log_id(log), "call_": call_id, "now": self._clock()}
        found = await self._one(statements.GET_ANSWER, values)
        if found is None:
            return None
        return decode_answer(self._opened(log, answer_context(log, call_id), found[0]))

    async def call(self, log: LogId, call_id: str) -> CallRow | None:
        """The status of a call: its saved row, else what its records say."""
        log_id = await self._log_id(log)
        found = await self._one(statements.GET_CALL, {"log": log_id, "id_": call_id})
        values = {"call_": call_id, "log": log_id, "count": RECORDS_OF_CALL_MAX}
        rows = await self._all(statements.RECORDS_OF_CALL, values)
        told = call_of_records(log, call_id, tuple(orjson.loads(row[0]) for row in rows))
        if found is None:
            return told
        saved = CallRow(log, *found[1:])
        if told is None:
            return saved
        return replace(saved, on_behalf_of=told.on_behalf_of, environment=told.environment)

    async def kept_input(self, log: LogId, call_id: str) -> KeptInput | None:
        """What policy was asked about a call, until it expires. Errors: also `SealBroken`, `AnswerBroken`."""
        values = {"log": await self._log_id(log), "call_": call_id, "now": self._clock()}
        found = await self._one(statements.GET_INPUT, values)
        return None if found is None else opened_input(self._unsealer, log, found)

    async def kept_inputs(self, log: LogId, limit: int, before: int | None) -> tuple[KeptInput, ...]:
        """The newest kept inputs of a log, newest first, from before a position. Errors: as `kept_input`."""
        values = {
            "log": await self._log_id(log),
            "before": _NEWEST_ROW if before is None else before,
            "now": self._clock(),
            "count": max(1, min(limit, LIST_MAX_ITEMS)),
        }
        return tuple(opened_input(self._unsealer, log, row) for row in await self._all(statements.LIST_INPUTS, values))

    async def differences(
        self, log: LogId, kind: str | None, limit: int, before: int | None
    ) -> tuple[DifferenceRow, ...]:
        """Kept differences of a log, newest first, from before a position; of one kind where it is named."""
        values: dict[str, Any] = {
            "log": await self._log_id(log),
            "before": _NEWEST_ROW if before is None else before,
            "now": self._clock(),
            "count": max(1, min(limit, LIST_MAX_ITEMS)),
        }
        statement = statements.LIST_DIFFERENCES
        if kind is not None:
            statement, values = statements.LIST_DIFFERENCES_OF_KIND, {**values, "kind_": kind}
        return tuple(DifferenceRow(log, *row) for row in await self._all(statement, values))

    async def difference_counts(self, log: LogId) -> dict[str, int]:
        """How many differences of each kind are kept."""
        values = {"log": await self._log_id(log), "now": self._clock()}
        return {row[0]: int(row[1]) for row in await self._all(statements.COUNT_DIFFERENCES, values)}

    async def switches(self) -> tuple[SwitchRow, ...]:
        """All kill switches that are set."""
        rows = await self._all(statements.LIST_SWITCHES, {})
        return tuple(
            SwitchRow(tenant=row[1], scope=row[0], reason=row[2], set_by=row[3], set_at=row[4]) for row in rows
        )

    async def sequence(self, name: str) -> int:
        """The highest bundle sequence seen under a name, 0 when none."""
        found = await self._one(statements.GET_SEQUENCE, {"name_": name})
        return 0 if found is None else int(found[0])

    async def open_intents(self, limit: int) -> tuple[OpenIntent, ...]:
        """Intents without outcome, oldest first."""
        rows = await self._all(statements.LIST_INTENTS, {"count": limit})
        return tuple(OpenIntent(log=(row[0], row[1]), call=row[2], seq=row[3], wall=row[4]) for row in rows)

    async def logs(self) -> tuple[LogId, ...]:
        """All logs there are."""
        return tuple((row[1], row[2]) for row in await self._all(statements.LIST_LOGS, {}))

    async def records(self, log: LogId, first_seq: int, limit: int) -> tuple[StoredRecord, ...]:
        """Records of one log in order, from `first_seq`."""
        values = {"log": await self._log_id(log), "first": first_seq, "count": max(1, min(limit, LIST_MAX_ITEMS))}
        rows = await self._all(statements.LIST_RECORDS, values)
        return tuple(StoredRecord(log, row[0], leaf_hash(row[1]), row[1]) for row in rows)

    async def _log_id(self, log: LogId) -> int:
        found = await self._one(statements.GET_LOG, {"tenant": log[0], "workspace": log[1]})
        return -1 if found is None else int(found[0])

    def _approval(self, log: LogId, approval_id: str, sealed: bytes) -> Approval:
        return decode_approval(self._opened(log, approval_context(log, approval_id), sealed))

    def _opened(self, log: LogId, context: str, sealed: bytes) -> bytes:
        """What a sealed column holds. Errors: `StoreUnavailable` `seal_broken`."""
        try:
            return self._unsealer.unseal(log[0], context, sealed)
        except SealBroken as error:
            raise StoreUnavailable("seal_broken", str(error)) from error

    async def _one(self, statement: str, values: dict[str, Any]) -> Any:
        rows = await self._all(statement, values)
        return rows[0] if rows else None

    async def _all(self, statement: str, values: dict[str, Any]) -> list[Any]:
        if self._reader is None:
            raise StoreUnavailable("store_closed", "the store is not open for reading")
        try:
            return list(await self._reader.execute_fetchall(statement, values))
        except sqlite3.Error as error:
            raise unavailable(error) from error


def opened_input(sealer: Sealer, log: LogId, row: tuple[int, str, int, bytes]) -> KeptInput:
    """A kept input of a row (id, call, at, sealed). Errors: `SealBroken`, `AnswerBroken`."""
    position, call, at, sealed = row
    about, document = decode_kept(sealer.unseal(log[0], input_context(log, call), sealed))
    return KeptInput(log, call, position, at, about, document)


def encode_cursor(created: int, approval_id: str) -> str:
    """An opaque cursor: the position of the last item shown."""
    return base64.urlsafe_b64encode(f"{created}:{approval_id}".encode()).decode("ascii").rstrip("=")


def decode_cursor(cursor: str) -> tuple[int, str]:
    """The position in a cursor. Errors: `StoreConflict` `malformed_request`."""
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        created, mark, approval_id = raw.decode("ascii").partition(":")
        position = int(created)
    except (ValueError, binascii.Error) as error:
        raise StoreConflict("malformed_request", "the cursor is none of this list") from error
    if not mark or not approval_id or not 0 <= position < 2**62 or len(approval_id) > 64:
        raise StoreConflict("malformed_request", "the cursor is none of this list")
    return position, approval_id
