"""What an OPA hands in, as records: its decision log events and its status reports.

Guarantees: an upload is taken whole or not at all; its size, also unpacked, and the number of its events are bounded; a
record holds ids, names, revisions and instants, and of inputs, results and everything else only keyed digests. Leaves
who may hand in what to policy.

**Security**: what is handed in is evidence that somebody said so. It is recorded under kinds of its own and grants nothing.
**Source**: OPA's management API, decision logs and status; RFC 1952.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.edge.identity import Subject
from gateway.edge.problem import refusal
from gateway.flow.describe import subject_record
from gateway.ledger.record import LogId, RecordDraft, RecordKind, keyed_digest

UNPACKED_MAX_BYTES: Final = 16 << 20
EVENTS_MAX: Final = 8192
DEPTH_MAX: Final = 200
TEXT_MAX_BYTES: Final = 192
LIST_MAX_ITEMS: Final = 16
"""With every list full of the longest texts and every character escaped, a record keeps within the ledger's limit."""
_GZIP: Final = 16 + zlib.MAX_WBITS


def unpacked(raw: bytes, coding: str) -> bytes:
    """A body without its content coding. Raises `malformed_request`, `body_too_large`.

    **Security**: a small body may unpack to a huge one; unpacking stops at the limit, not after it.
    """
    if coding in ("", "identity"):
        return raw
    if coding != "gzip":
        raise refusal("malformed_request", "the Content-Encoding is gzip or none")
    machine = zlib.decompressobj(_GZIP)
    try:
        found = machine.decompress(raw, UNPACKED_MAX_BYTES + 1)
    except zlib.error as error:
        raise refusal("malformed_request", "the body is no gzip") from error
    if len(found) > UNPACKED_MAX_BYTES:
        raise refusal("body_too_large", f"the body is larger than {UNPACKED_MAX_BYTES} bytes when unpacked")
    if not machine.eof or machine.unused_data:
        raise refusal("malformed_request", "the body is not one whole gzip member")
    return found


def parse(raw: bytes) -> Any:
    """A body as JSON with every number kept as it is written. Raises `malformed_request`.

    An input may hold integers beyond 2^53: they are only digested here, never decided with.
    """
    try:
        value = json.loads(raw, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=str, parse_int=str)
    except (ValueError, RecursionError) as error:
        raise refusal("malformed_request", "the body is no strict JSON") from error
    _check_depth(value)
    return value


def decision_drafts(document: Any, subject: Subject, delivery: str, key: bytes) -> list[RecordDraft]:
    """One record for each event of an upload. Raises `malformed_request`."""
    if not isinstance(document, list):
        raise refusal("malformed_request", "the body is no array of events")
    if len(document) > EVENTS_MAX:
        raise refusal("malformed_request", f"at most {EVENTS_MAX} events are taken at once")
    drafts = []
    for number, event in enumerate(document):
        if not isinstance(event, dict) or not isinstance(event.get("decision_id"), str) or not event["decision_id"]:
            raise refusal("malformed_request", f"event {number} has no decision_id")
        drafts.append(_decision_draft(event, subject, delivery, key))
    return drafts


def status_draft(document: Any, subject: Subject, delivery: str, key: bytes) -> RecordDraft:
    """The record of one status report. Raises `malformed_request`."""
    if not isinstance(document, dict) or not isinstance(document.get("labels"), dict):
        raise refusal("malformed_request", "the body is no status report")
    bundles = document.get("bundles")
    reported = [
        {"name": _text(name), "revision": _member(state, "active_revision"), "code": _member(state, "code")}
        for name, state in _bounded(bundles)
    ]
    plugins = [
        {"name": _text(name), "state": _member(state, "state")} for name, state in _bounded(document.get("plugins"))
    ]
    action = {
        "name": "opa.status",
        "labels": _labels(document),
        "plugins": plugins,
        "decision_logs": _member(document.get("decision_logs"), "code"),
    }
    digests = {"report": keyed_digest(_canonical(document), key)}
    return _draft("opa_status", (subject, delivery), action, None, {"bundles": reported}, digests)


def _decision_draft(event: Mapping[str, Any], subject: Subject, delivery: str, key: bytes) -> RecordDraft:
    result = event.get("result")
    decision: dict[str, object] = {"id": _text(event["decision_id"]), "engine": "opa"}
    if isinstance(result, bool):
        decision["allowed"] = result
    action = {
        "name": "opa.decision",
        "labels": _labels(event),
        "path": _member(event, "path"),
        "at": _member(event, "timestamp"),
        "requested_by": _member(event, "requested_by"),
        "failed": event.get("error") is not None,
        "erased": _texts(event.get("erased")),
        "masked": _texts(event.get("masked")),
    }
    bundles = [
        {"name": _text(name), "revision": _member(state, "revision")} for name, state in _bounded(event.get("bundles"))
    ]
    if not bundles and isinstance(event.get("revision"), str):
        bundles = [{"name": "", "revision": _text(event["revision"])}]
    digests: dict[str, object] = {"event": keyed_digest(_canonical(event), key)}
    for name in ("input", "result"):
        if name in event:
            digests[name] = keyed_digest(_canonical(event[name]), key)
    return _draft("opa_decision", (subject, delivery), action, decision, {"bundles": bundles}, digests)


def _draft(
    kind: RecordKind,
    handed_in: tuple[Subject, str],
    action: Mapping[str, object],
    decision: Mapping[str, object] | None,
    policy: Mapping[str, object],
    digests: Mapping[str, object],
) -> RecordDraft:
    subject, delivery = handed_in
    log: LogId = (subject.tenant, subject.workspace)
    return RecordDraft(
        log=log,
        kind=kind,
        ids={"delivery": delivery},
        subject=subject_record(subject),
        action=action,
        decision=decision,
        policy=policy,
        digests=digests,
        actor=subject.id,
    )


def _labels(document: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"name": _text(name), "value": _text(value)} for name, value in _bounded(document.get("labels"))]


def _bounded(value: Any) -> Iterable[tuple[str, Any]]:
    """The first members of an object by name; nothing for anything else."""
    return sorted(value.items())[:LIST_MAX_ITEMS] if isinstance(value, dict) else ()


def _member(value: Any, name: str) -> str:
    return _text(value.get(name)) if isinstance(value, dict) else ""


def _texts(value: Any) -> list[str]:
    return [_text(item) for item in value[:LIST_MAX_ITEMS]] if isinstance(value, list) else []


def _text(value: Any) -> str:
    """Text as a record may hold it: cut, and without control characters and lone surrogates."""
    if not isinstance(value, str):
        return ""
    shown = "".join(character if character.isprintable() else "?" for character in value[:TEXT_MAX_BYTES])
    return shown.encode("utf-8")[:TEXT_MAX_BYTES].decode("utf-8", "ignore")


def _canonical(value: Any) -> bytes:
    """One spelling of a parsed value. Numbers stand as texts, so that 1 and "1" are told apart by nobody here."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return
    raise refusal("malformed_request", f"the body is nested deeper than {DEPTH_MAX}")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
