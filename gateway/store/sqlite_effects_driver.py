"""The effects of `port`, each in SQLite's words, inside the writer's open transaction.

Guarantees: an effect either fits the stored state and is made, or raises `StoreConflict`; the driver then rolls its
item back to a savepoint. Nothing here begins or commits.
"""

from __future__ import annotations

import sqlite3
from dataclasses import asdict
from typing import Any, Final

from gateway.approvals.codec import decode_approval, encode_approval
from gateway.approvals.model import OPEN_STATES, Approval, ApprovalRefused
from gateway.approvals.reduce import as_of, consume
from gateway.ledger.record import LogId
from gateway.store import statements
from gateway.store.answers import encode_answer, encode_kept
from gateway.store.contexts import answer_context, approval_context, input_context
from gateway.store.port import (
    ChangeApproval,
    ClaimKey,
    ClearSwitch,
    CloseAnswer,
    ConsumeApproval,
    KeepInput,
    MarkUnknown,
    OpenApproval,
    RaiseSequence,
    SaveAnswer,
    SaveCall,
    SaveDifference,
    SetSwitch,
    SettleKey,
    StoreConflict,
    StoreEffect,
)
from gateway.store.sealing import Sealer

_CLAIM_CONFLICTS: Final = {"claimed": "still_running", "done": "replay", "unknown": "outcome_unknown"}


class EffectRunner:
    """Runs the effects of one item at wall time `now` for the log with row `log_id`."""

    def __init__(self, connection: sqlite3.Connection, sealer: Sealer) -> None:
        self._connection = connection
        self._sealer = sealer
        self._claimed: set[tuple[int, str, str]] = set()

    def begin(self) -> None:
        """A transaction begins."""
        self._claimed.clear()

    def run(self, effect: StoreEffect, log: LogId, log_id: int, now: int) -> None:
        """Make one effect. Errors: `StoreConflict`, `SealBroken`, `sqlite3.Error`."""
        match effect:
            case ClaimKey():
                self._claim(effect, log_id, now)
            case SettleKey():
                self._settle(effect, log_id)
            case SaveAnswer():
                self._save_answer(effect, log, log_id, now)
            case SaveCall():
                values = asdict(effect.row)
                del values["log"]
                self._connection.execute(statements.PUT_CALL, {**values, "log_id": log_id})
            case KeepInput():
                self._keep_input(effect, log, log_id, now)
            case SaveDifference():
                self._connection.execute(
                    statements.PUT_DIFFERENCE,
                    {
                        "log_id": log_id,
                        "call": effect.call,
                        "at": now,
                        "expires": now + effect.keep_seconds * 1000,
                        "kind": effect.kind,
                        "data": effect.data,
                    },
                )
            case OpenApproval():
                self._open_approval(effect, log, log_id, now)
            case ChangeApproval():
                self._change_approval(effect, log, log_id, now)
            case ConsumeApproval():
                self._consume_approval(effect, log, log_id, now)
            case SetSwitch():
                self._connection.execute(statements.PUT_SWITCH, asdict(effect.row))
            case ClearSwitch():
                values = {"scope_": effect.scope, "tenant_": effect.tenant}
                if self._connection.execute(statements.DELETE_SWITCH, values).rowcount != 1:
                    raise StoreConflict("not_found", "no such switch is set")
            case RaiseSequence():
                self._raise_sequence(effect)
            case CloseAnswer():
                self._connection.execute(statements.DELETE_INTENT, (log_id, effect.call))
            case MarkUnknown():
                place = {"log": log_id, "call_": effect.call}
                self._connection.execute(statements.KEYS_UNKNOWN, place)
                self._connection.execute(statements.CALLS_UNKNOWN, place)
                self._connection.execute(statements.DELETE_INTENT, (log_id, effect.call))

    def _one(self, statement: str, values: dict[str, Any]) -> Any:
        return self._connection.execute(statement, values).fetchone()

    def _claim(self, effect: ClaimKey, log_id: int, now: int) -> None:
        found = self._one(statements.GET_KEY, {"log": log_id, "scope_": effect.scope})
        if found is not None and (
            found[3] > now
            or found[4]
            or (log_id, effect.scope, found[1]) in self._claimed  # its intent is not written yet
        ):
            request_digest, call, state, _expires, _running = found
            if request_digest != effect.request_digest:
                raise StoreConflict("idempotency_mismatch", "the key was used for another request", call=call)
            raise StoreConflict(_CLAIM_CONFLICTS[state], "the key is taken", call=call)
        self._connection.execute(
            statements.PUT_KEY,
            {
                "log_id": log_id,
                "scope": effect.scope,
                "request_digest": effect.request_digest,
                "call": effect.call,
                "state": "claimed",
                "expires": effect.expires,
            },
        )
        self._claimed.add((log_id, effect.scope, effect.call))

    def _settle(self, effect: SettleKey, log_id: int) -> None:
        values: dict[str, Any] = {"log": log_id, "scope_": effect.scope, "call_": effect.call}
        if effect.result == "released":
            changed = self._connection.execute(statements.RELEASE_KEY, values).rowcount
        else:
            changed = self._connection.execute(statements.SETTLE_KEY, {**values, "state": effect.result}).rowcount
        if changed != 1:
            raise StoreConflict("stale_state", "this call does not hold the idempotency key")

    def _save_answer(self, effect: SaveAnswer, log: LogId, log_id: int, now: int) -> None:
        sealed = self._sealer.seal(log[0], answer_context(log, effect.call), encode_answer(effect.answer))
        values = {"log_id": log_id, "call": effect.call, "expires": now + effect.keep_seconds * 1000, "sealed": sealed}
        self._connection.execute(statements.PUT_ANSWER, values)

    def _keep_input(self, effect: KeepInput, log: LogId, log_id: int, now: int) -> None:
        plain = encode_kept(effect.about, effect.document)
        values = {
            "log_id": log_id,
            "call": effect.call,
            "at": now,
            "expires": now + effect.keep_seconds * 1000,
            "sealed": self._sealer.seal(log[0], input_context(log, effect.call), plain),
        }
        self._connection.execute(statements.PUT_INPUT, values)

    def _open_approval(self, effect: OpenApproval, log: LogId, log_id: int, now: int) -> None:
        approval = effect.approval
        found = self._one(statements.OPEN_OF_CALL, {"log": log_id, "attach": approval.attach_key})
        if found is not None:
            earlier = self._decoded(log, found[0], found[1])
            current = as_of(earlier, now)
            if current.state in OPEN_STATES:
                raise StoreConflict("already_open", "this call has an open approval")
            self._write_approval(current, earlier.version, log, log_id)
        who = {"log": log_id, "who": approval.requester, "now": now}
        if self._one(statements.COUNT_OPEN_OF_REQUESTER, who)[0] >= effect.open_per_subject_max:
            raise StoreConflict("throttled", f"{effect.open_per_subject_max} calls of this subject are held already")
        self._connection.execute(
            statements.INSERT_APPROVAL,
            {
                "id": approval.id,
                "log_id": log_id,
                "version": approval.version,
                "state": approval.state.value,
                "action_digest": approval.action_digest,
                "attach_key": approval.attach_key,
                "requester": approval.requester,
                "created": approval.created,
                "deadline": approval.deadline,
                "sealed": self._sealed(approval, log),
            },
        )

    def _change_approval(self, effect: ChangeApproval, log: LogId, log_id: int, now: int) -> None:
        if effect.not_after is not None and now >= effect.not_after:
            raise StoreConflict("stale_state", "the approval has expired")
        self._write_approval(effect.approval, effect.expected_version, log, log_id)

    def _consume_approval(self, effect: ConsumeApproval, log: LogId, log_id: int, now: int) -> None:
        found = self._one(statements.GET_APPROVAL, {"log": log_id, "id_": effect.approval})
        if found is None:
            raise StoreConflict("stale_state", "no such approval")
        approval = self._decoded(log, effect.approval, found[0])
        try:
            consumed = consume(approval, effect.action_digest, now, effect.call)
        except ApprovalRefused as error:
            raise StoreConflict(error.code, error.detail) from error
        self._write_approval(consumed, approval.version, log, log_id)

    def _write_approval(self, approval: Approval, expected_version: int, log: LogId, log_id: int) -> None:
        values = {
            "log": log_id,
            "id_": approval.id,
            "expected_version": expected_version,
            "version": approval.version,
            "state": approval.state.value,
            "deadline": approval.deadline,
            "sealed": self._sealed(approval, log),
        }
        if self._connection.execute(statements.CHANGE_APPROVAL, values).rowcount != 1:
            raise StoreConflict("stale_state", "the approval has changed")

    def _raise_sequence(self, effect: RaiseSequence) -> None:
        found = self._one(statements.GET_SEQUENCE, {"name_": effect.name})
        if found is not None and found[0] > effect.sequence:
            raise StoreConflict("stale_state", f"sequence {found[0]} of {effect.name} was seen already")
        self._connection.execute(statements.PUT_SEQUENCE, {"name": effect.name, "sequence": effect.sequence})

    def _decoded(self, log: LogId, approval_id: str, sealed: bytes) -> Approval:
        return decode_approval(self._sealer.unseal(log[0], approval_context(log, approval_id), sealed))

    def _sealed(self, approval: Approval, log: LogId) -> bytes:
        return self._sealer.seal(log[0], approval_context(log, approval.id), encode_approval(approval))
