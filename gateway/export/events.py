"""Records of the ledger as events of OPA's decision log, and events as compressed uploads.

Guarantees: every decision that a record stands on becomes one event; what an event never carries (arguments, properties,
context: the ledger does not hold them) is listed in `erased`; an upload is a gzip-compressed JSON array within its size
limit, and says up to which record it goes. Leaves sending and remembering to `gateway.export.exporter`.

**Source**: OPA's management API, decision logs: the event's members and the upload's form.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from gateway.approvals.render import rfc3339
from gateway.export.mask import Mask, masked, redacted
from gateway.store.port import StoredRecord

PATH: Final = "tidegate/decision"
_DECIDING: Final = frozenset({"intent", "call", "refusal", "evaluation"})
"""An outcome and the head of a stream repeat the decision of a record before them."""
NEVER_CARRIED: Final = (
    "/input/args",
    "/input/context",
    "/input/subject/properties",
    "/input/action/properties",
    "/input/resource/properties",
)
_COMPRESSION: Final = 6


class EventContext(NamedTuple):
    """What is the same for all events of an exporter; the bundle's name stands in no record."""

    bundle: str
    labels: Mapping[str, str]
    masks: tuple[Mask, ...] = ()
    upload_max_bytes: int = 32_768


class Upload(NamedTuple):
    """One piece of a log: records up to `next_seq` are done with it. `body` is None when none of them decided."""

    body: bytes | None
    decisions: tuple[str, ...]
    next_seq: int
    last_hash: str


class _Piece(NamedTuple):
    seq: int
    hash: str
    decision: str
    event: dict[str, Any] | None


def event_of(stored: StoredRecord, context: EventContext) -> dict[str, Any] | None:
    """The event of a record, masked; None for a record that no decision was made for."""
    record = orjson.loads(stored.data)
    decision = record.get("decision")
    if not isinstance(decision, dict) or not decision.get("id") or not _decides(record):
        return None
    subject, action, ids = record["subject"], record["action"], record["ids"]
    about = action.get("subject", subject)
    event = {
        "labels": {**context.labels, "tenant": stored.log[0], "workspace": stored.log[1]},
        "decision_id": decision["id"],
        "bundles": {context.bundle: {"revision": record["policy"].get("revision", "")}},
        "path": PATH,
        "input": {
            "digest": decision.get("input", ""),
            "subject": {"type": about.get("type", ""), "id": about.get("id", "")},
            "action": {"name": action.get("name", "")},
            "resource": action.get("resource", {}),
        },
        "result": {"effect": decision.get("effect", ""), "reasons": _reasons(decision, record["policy"])},
        "requested_by": str(subject.get("id", "")),
        "timestamp": rfc3339(record["wall"]),
        "metrics": {"counter_tidegate_attempt": ids.get("attempt", 1)},
        "erased": list(NEVER_CARRIED),
        "custom": {"tidegate": _custom(stored, record)},
    }
    return masked(event, context.masks)


def uploads(
    records: Sequence[StoredRecord],
    context: EventContext,
    sent: Collection[str] = (),
    event: Callable[[StoredRecord, EventContext], dict[str, Any] | None] = event_of,
) -> list[Upload]:
    """Records of one log, in order, as uploads; a decision among `sent` is not sent again."""
    known = set(sent)
    pieces: list[_Piece] = []
    for stored in records:
        made = event(stored, context)
        decision = "" if made is None else str(made["decision_id"])
        pieces.append(_Piece(stored.seq, stored.hash, decision, None if decision in known else made))
        if decision:
            known.add(decision)
    return _packed(pieces, context.upload_max_bytes) if pieces else []


def _decides(record: Mapping[str, Any]) -> bool:
    kind = record["kind"]
    return kind in _DECIDING or (kind == "approval" and record["action"].get("state") == "pending")


def _reasons(decision: Mapping[str, Any], policy: Mapping[str, Any]) -> list[dict[str, str]]:
    codes, rules = decision.get("reasons", []), policy.get("rules", [])
    padded = [*rules, *[""] * (len(codes) - len(rules))]
    return [{"code": code, "rule": rule} for code, rule in zip(codes, padded, strict=False)]


def _custom(stored: StoredRecord, record: Mapping[str, Any]) -> dict[str, Any]:
    """What OPA's format has no member for: where the record stands and what became of the call so far."""
    action, ids, decision = record["action"], record["ids"], record["decision"]
    found = {
        "kind": record["kind"],
        "seq": stored.seq,
        "hash": stored.hash,
        "node": record["node"],
        "bundle": record["policy"].get("bundle"),
        "engine": decision.get("engine"),
        "call": ids.get("call"),
        "approval": ids.get("approval"),
        "request": ids.get("request"),
        "instance": action.get("instance"),
        "code": action.get("code"),
        "status": action.get("status"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _packed(pieces: list[_Piece], max_bytes: int) -> list[Upload]:
    """As few uploads as fit; one event that is too large alone leaves with everything erased."""
    events = [piece.event for piece in pieces if piece.event is not None]
    body = _compressed(events) if events else None
    if body is not None and len(body) > max_bytes:
        if len(pieces) > 1:
            middle = len(pieces) // 2
            return [*_packed(pieces[:middle], max_bytes), *_packed(pieces[middle:], max_bytes)]
        body = _compressed([redacted(events[0], "too_large")])
    last = pieces[-1]
    decisions = tuple(piece.decision for piece in pieces if piece.event is not None)
    return [Upload(body, decisions, last.seq + 1, last.hash)]


def _compressed(events: list[dict[str, Any]]) -> bytes:
    return gzip.compress(orjson.dumps(events), _COMPRESSION, mtime=0)
