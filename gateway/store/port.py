"""The store port: what the gateway may ask of its durable state.

Guarantees (of every driver): a record and its effects are one transaction; a batch is one flush; a conflict of one
item's effect rolls back that item alone and is reported to it alone; reads see only committed state.

**How the flow calls each effect** (all of them in `LedgerWriter.append(record, effects=(…,))`; a conflict is raised
there as `StoreConflict` with a code of ``docs/error-codes.md`` and nothing of that item is kept):

- claim an idempotency key with the intent (or, for a held call, never): `ClaimKey(log, scope, request_digest, call,
  expires)`, `scope = idempotency_scope(…)`; it is held until `expires`, and in any case until its call ends. Conflicts:
  `idempotency_mismatch` (422: same key, other request), `still_running` (409: first call has not ended), `replay` (not an
  error: `conflict.call` ended; read `await store.answer(log, conflict.call)`, re-decide by policy, give it again),
  `outcome_unknown` (504: first call's end is unknown). `await store.claim(log, scope)` asks the same without appending.
- settle it with the outcome: `SettleKey(log, scope, call, "done")` plus `SaveAnswer(log, call, StoredAnswer(…))`;
  `SettleKey(…, "unknown")` when nobody can know; `SettleKey(…, "released")` when nothing was sent (key is free again).
- follow a call that somebody may poll (`/v1/calls`, `respond-async`, held): `SaveCall(CallRow(…))`, an upsert by id.
  Calls never saved are still found by `await store.call(log, id)`, derived from their records.
- consume an approval with the intent: `ApprovalService.consumption(approval, action_digest)` gives the effect; conflict
  `stale_state` (409: used, expired, withdrawn, or another digest).
- kill switches: `SetSwitch(SwitchRow(…))` / `ClearSwitch(tenant, scope)` with a `switch` record; clearing an absent
  one is `not_found`; read `await store.switches()`.
- bundles: `RaiseSequence(name, sequence)` with a `bundle` record; below the highest is `stale_state`; read
  `await store.sequence(name)`.

Approval effects (`OpenApproval`, `ChangeApproval`) are made by `ApprovalService`, not by the flow.
Leaves to `gateway.ledger.writer` batches and waiting, to `sqlite` the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from gateway.approvals.model import Approval, ApprovalState
from gateway.errors import GateError, GateUnavailable
from gateway.ledger.record import Appended, FrozenRecord, LogId, canonical_record_json
from pdp.value import Value

ANSWER_MAX_BYTES: Final = 1 << 20
KEPT_INPUT_MAX_BYTES: Final = 256 << 10
"""A question and its answer beyond this are not kept: they would fill the disk faster than they help."""
DIFFERENCES_MAX_ROWS: Final = 100_000
"""Kept differences over all logs; the oldest go first."""
ANSWER_KEEP_SECONDS: Final = 24 * 3600
LIST_MAX_ITEMS: Final = 200
BATCH_MAX_RECORDS: Final = 256

STORE_PROCESS: Final = "gateway.store.process_driver"
"""The module that runs in the process that owns a store's file."""

WallClock = Callable[[], int]
"""Wall time in milliseconds."""


class StoreUnavailable(GateUnavailable):
    """The store cannot read or write now; `code` says why. `fatal` means the writer must not go on in this process."""

    def __init__(self, code: str, detail: str, *, fatal: bool = False) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.fatal = fatal


class StoreConflict(GateError):
    """An effect does not fit the stored state; nothing of its item was kept.

    `code`: `stale_state`, `still_running`, `idempotency_mismatch`, `outcome_unknown`, `replay`, `not_found`,
    `already_open`, `throttled`. `call` is the earlier call of an idempotency key.
    """

    def __init__(self, code: str, detail: str, *, call: str = "") -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.call = call


class StoredAnswer(Value, frozen=True):
    """An upstream's answer kept for a repeat; encrypted at rest under the tenant's key, at most `ANSWER_MAX_BYTES`."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


CallState = Literal["held", "approved", "dispatching", "done", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class CallRow:
    """The status of one call as `/v1/calls/{id}` shows it; times in wall milliseconds."""

    log: LogId
    id: str
    subject: str
    issuer: str
    instance: str
    action: str
    state: CallState
    effect: str = ""
    code: str | None = None
    decision: str = ""
    approval: str | None = None
    status: int | None = None
    created: int = 0
    on_behalf_of: str | None = None
    environment: str = ""
    """Whom the subject acted for and where, as the call's records say; empty for a call without a record."""


@dataclass(frozen=True, slots=True)
class SwitchRow:
    """A kill switch that is set: `scope` is `tenant/T[/connector|/action|/subject/NAME]`."""

    tenant: str
    scope: str
    reason: str
    set_by: str
    set_at: int


@dataclass(frozen=True, slots=True)
class KeyClaim:
    """What is known of an idempotency key; one that is `claimed` may have expired while its call goes on."""

    request_digest: str
    call: str
    state: Literal["claimed", "done", "unknown"]
    expires: int


@dataclass(frozen=True, slots=True)
class OpenIntent:
    """An intent without outcome, or the beginning of an answer without its end: nobody knows yet how the call ended."""

    log: LogId
    call: str
    seq: int
    wall: int


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as stored: canonical bytes and leaf hash (hex)."""

    log: LogId
    seq: int
    hash: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ClaimKey:
    """Claim an idempotency key for `call`; see the module's text for the conflicts."""

    log: LogId
    scope: str
    request_digest: str
    call: str
    expires: int


@dataclass(frozen=True, slots=True)
class SettleKey:
    """End a claim: `done` (a stored answer may be repeated), `unknown`, or `released` (nothing was sent)."""

    log: LogId
    scope: str
    call: str
    result: Literal["done", "unknown", "released"]


@dataclass(frozen=True, slots=True)
class SaveAnswer:
    """Keep the answer of a call, encrypted, for `keep_seconds`."""

    log: LogId
    call: str
    answer: StoredAnswer
    keep_seconds: int = ANSWER_KEEP_SECONDS


@dataclass(frozen=True, slots=True)
class SaveCall:
    """Insert or replace the status row of a call."""

    row: CallRow


@dataclass(frozen=True, slots=True)
class KeepInput:
    """Keep what policy was asked about a call and what it said, encrypted, for `keep_seconds`; a later one of the same
    call replaces it. `about` and `document` are opaque here; together at most `KEPT_INPUT_MAX_BYTES`."""

    log: LogId
    call: str
    about: bytes
    document: bytes
    keep_seconds: int


@dataclass(frozen=True, slots=True)
class KeptInput:
    """A kept input as it is read again: `position` orders them by age, `at` is wall milliseconds."""

    log: LogId
    call: str
    position: int
    at: int
    about: bytes
    document: bytes


@dataclass(frozen=True, slots=True)
class SaveDifference:
    """Keep what another bundle would have decided about a call, for `keep_seconds`; `data` is JSON without arguments."""

    log: LogId
    call: str
    kind: str
    data: bytes
    keep_seconds: int


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    """A kept difference: `position` orders them by age, `at` is wall milliseconds."""

    log: LogId
    call: str
    position: int
    at: int
    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class OpenApproval:
    """Open an approval; conflict `already_open` names the open one with the same attach key."""

    approval: Approval
    open_per_subject_max: int


@dataclass(frozen=True, slots=True)
class ChangeApproval:
    """Replace an approval if it still has the version and state the change was computed from, and `not_after`
    (wall ms) has not come."""

    approval: Approval
    expected_version: int
    not_after: int | None = None


@dataclass(frozen=True, slots=True)
class ConsumeApproval:
    """Use an approved approval up, once, by `call`, for exactly this digest; `stale_state` otherwise."""

    log: LogId
    approval: str
    action_digest: str
    call: str = ""


@dataclass(frozen=True, slots=True)
class SetSwitch:
    """Set a kill switch, replacing one of the same scope."""

    row: SwitchRow


@dataclass(frozen=True, slots=True)
class ClearSwitch:
    """Clear a kill switch; `not_found` when it is not set."""

    tenant: str
    scope: str


@dataclass(frozen=True, slots=True)
class RaiseSequence:
    """Remember the highest bundle sequence seen under a name; a lower one is `stale_state`."""

    name: str
    sequence: int


@dataclass(frozen=True, slots=True)
class CloseAnswer:
    """A read whose answer's beginning was recorded has its end: recovery leaves it alone."""

    log: LogId
    call: str


@dataclass(frozen=True, slots=True)
class MarkUnknown:
    """The end of this call cannot be known: its open intent is closed, its key and status row say so. Used by
    recovery."""

    log: LogId
    call: str


StoreEffect = (
    ClaimKey
    | SettleKey
    | SaveAnswer
    | SaveCall
    | KeepInput
    | SaveDifference
    | OpenApproval
    | ChangeApproval
    | ConsumeApproval
    | SetSwitch
    | ClearSwitch
    | RaiseSequence
    | CloseAnswer
    | MarkUnknown
)


class BatchItem(Value, frozen=True):
    """One record and the effects that live or die with it."""

    record: FrozenRecord
    effects: tuple[StoreEffect, ...] = field(default=())


BatchResult = Appended | StoreConflict | StoreUnavailable


class BatchAppender(Protocol):
    """The writing side of a file, for one thread; it blocks."""

    def open_writer(self) -> None:
        """Open for writing in the calling thread. Errors: `StoreUnavailable`."""

    def append_batch(self, items: Sequence[BatchItem]) -> list[BatchResult]:
        """Commit a batch durably in one transaction, one result per item (`StoreUnavailable` for new work below the
        low-water mark of free disk). Errors: `StoreUnavailable`; then no item was acknowledged."""

    def tidy(self) -> None:
        """Housekeeping and the check of the file while nothing waits. Errors: `StoreUnavailable`."""

    def close_writer(self) -> None:
        """Close the writing side; the calling thread is the one that opened it."""


class BatchListener(Protocol):
    """Who hands batches over, as a channel answers it."""

    def answered(self, results: Sequence[BatchResult]) -> None:
        """What became of each item of the batch that was sent."""

    def failed(self, error: StoreUnavailable) -> None:
        """Nothing of the batch was acknowledged; after a fatal error, said once, the channel takes no other."""

    def noted(self, failure: str | None) -> None:
        """What housekeeping found: what is wrong now, or that nothing is any more."""


class BatchChannel(Protocol):
    """The way from the event loop to a `BatchAppender`, wherever that runs. It answers on the loop, never within a call."""

    async def open(self, listener: BatchListener) -> None:
        """Open for writing. Errors: `StoreUnavailable`."""

    def send(self, items: Sequence[BatchItem]) -> None:
        """Hand over a batch; the one before it has been answered."""

    async def close(self) -> None:
        """Close the writing side and wait until it is closed; nothing is under way."""


class Store(Protocol):
    """Reads for the event loop. Every read raises `StoreUnavailable` when the store cannot be read, and is scoped to its
    log: another tenant's object is the same None as an absent one."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def approval(self, log: LogId, approval_id: str) -> Approval | None: ...
    async def open_approval(self, log: LogId, attach_key: str, now: int) -> Approval | None: ...
    async def approvals(
        self, log: LogId, state: ApprovalState | None, cursor: str | None, limit: int, now: int
    ) -> tuple[tuple[Approval, ...], str | None]: ...
    async def approvals_pending(self, now: int) -> int: ...
    async def due_approvals(self, now: int, limit: int) -> tuple[Approval, ...]: ...
    async def claim(self, log: LogId, scope: str) -> KeyClaim | None: ...
    async def answer(self, log: LogId, call_id: str) -> StoredAnswer | None: ...
    async def call(self, log: LogId, call_id: str) -> CallRow | None: ...
    async def kept_input(self, log: LogId, call_id: str) -> KeptInput | None: ...
    async def kept_inputs(self, log: LogId, limit: int, before: int | None) -> tuple[KeptInput, ...]: ...
    async def differences(
        self, log: LogId, kind: str | None, limit: int, before: int | None
    ) -> tuple[DifferenceRow, ...]: ...
    async def difference_counts(self, log: LogId) -> dict[str, int]: ...
    async def switches(self) -> tuple[SwitchRow, ...]: ...
    async def sequence(self, name: str) -> int: ...
    async def open_intents(self, limit: int) -> tuple[OpenIntent, ...]: ...
    async def logs(self) -> tuple[LogId, ...]: ...
    async def records(self, log: LogId, first_seq: int, limit: int) -> tuple[StoredRecord, ...]: ...


def idempotency_scope(log: LogId, who: tuple[str | None, ...], instance: str, key: str) -> str:
    """The scope of an `Idempotency-Key`: (tenant, workspace, subject, instance, key) as one digest (hex), so that
    the client's key is not kept in the clear.

    `who` is everything that makes two callers different: see `gateway.edge.identity.Subject.standing`.
    """
    return hashlib.sha256(canonical_record_json([*log, *who, instance, key])).hexdigest()
