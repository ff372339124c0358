"""Events of OPA's decision log made from records, and their uploads."""

from __future__ import annotations

import gzip
from typing import Any

import orjson
import pytest

from gateway.export.events import NEVER_CARRIED, EventContext, event_of, uploads
from gateway.export.mask import Mask
from gateway.ledger.record import RecordKind
from tests.gateway.export.parts import MemoryLedger, draft

CONTEXT = EventContext("main", {"app": "tidegate"})


def made(context: EventContext = CONTEXT, **parts: Any) -> dict[str, Any]:
    """The event of one record."""
    event = event_of(MemoryLedger().add(draft(**parts)), context)
    assert event is not None
    return event


def test_event_has_the_members_of_the_format() -> None:
    event = made()
    custom = event.pop("custom")["tidegate"]
    assert event == {
        "labels": {"app": "tidegate", "tenant": "acme", "workspace": "ops"},
        "decision_id": "d1",
        "bundles": {"main": {"revision": "r1"}},
        "path": "tidegate/decision",
        "input": {
            "digest": "sha256:aa",
            "subject": {"type": "agent", "id": "bot"},
            "action": {"name": "servicenow.incident.read"},
            "resource": {"type": "incident", "id": "INC1"},
        },
        "result": {"effect": "ALLOW", "reasons": [{"code": "role", "rule": "policies.servicenow.allow"}]},
        "requested_by": "bot",
        "timestamp": "2026-01-14T10:30:00.250Z",
        "metrics": {"counter_tidegate_attempt": 1},
        "erased": list(NEVER_CARRIED),
    }
    assert (custom["kind"], custom["seq"], custom["call"], custom["engine"]) == ("call", 0, "c1", "wasm")


def test_event_of_an_evaluation_is_about_its_subject_and_requested_by_the_caller() -> None:
    event = made(kind="evaluation", subject={"type": "user", "id": "ann"})
    assert (event["input"]["subject"]["id"], event["requested_by"]) == ("ann", "bot")


@pytest.mark.parametrize("kind", ["intent", "call", "refusal", "evaluation"])
def test_event_is_made_when_the_record_is_the_first_of_its_decision(kind: RecordKind) -> None:
    assert made(kind=kind)["custom"]["tidegate"]["kind"] == kind


@pytest.mark.parametrize("kind", ["outcome", "response_began", "vote", "switch", "bundle", "opa_decision", "approval"])
def test_event_is_not_made_when_the_record_repeats_a_decision_or_has_none(kind: RecordKind) -> None:
    assert event_of(MemoryLedger().add(draft(kind=kind)), CONTEXT) is None


def test_event_is_made_when_an_approval_opens() -> None:
    assert made(kind="approval", state="pending")["decision_id"] == "d1"


def test_event_is_not_made_when_nothing_was_decided() -> None:
    assert event_of(MemoryLedger().add(draft(kind="refusal", decision=None)), CONTEXT) is None


def unpacked(body: bytes | None) -> list[str]:
    """The decisions in an upload."""
    assert body is not None
    return [event["decision_id"] for event in orjson.loads(gzip.decompress(body))]


def many(count: int, note: str = "") -> tuple[Any, ...]:
    """Records of that many decisions."""
    ledger = MemoryLedger()
    return tuple(ledger.add(draft(decision=f"d{number}", note=note)) for number in range(count))


def test_uploads_hold_every_decision_in_order_within_their_limit() -> None:
    records = many(200)
    packed = uploads(records, CONTEXT._replace(upload_max_bytes=4096))
    assert len(packed) > 1
    assert all(upload.body is not None and len(upload.body) <= 4096 for upload in packed)
    assert [found for upload in packed for found in unpacked(upload.body)] == [f"d{number}" for number in range(200)]
    assert [upload.next_seq for upload in packed] == sorted(upload.next_seq for upload in packed)
    assert (packed[-1].next_seq, packed[-1].last_hash) == (200, records[-1].hash)


def test_uploads_are_the_same_bytes_when_made_again() -> None:
    assert uploads(many(20), CONTEXT) == uploads(many(20), CONTEXT)


def test_uploads_pass_over_records_without_decisions() -> None:
    ledger = MemoryLedger()
    records = [ledger.add(draft(kind="vote", decision=None)) for _ in range(3)]
    assert [(upload.body, upload.next_seq) for upload in uploads(records, CONTEXT)] == [(None, 3)]


def test_uploads_hold_a_decision_once_when_two_records_have_it() -> None:
    ledger = MemoryLedger()
    records = [ledger.add(draft(kind="approval", state="pending")), ledger.add(draft(kind="refusal"))]
    (upload,) = uploads(records, CONTEXT)
    assert (unpacked(upload.body), upload.decisions, upload.next_seq) == (["d1"], ("d1",), 2)


def test_uploads_leave_out_a_decision_that_was_sent_before() -> None:
    assert [upload.body for upload in uploads(many(1), CONTEXT, ["d0"])] == [None]


def test_uploads_redact_an_event_that_is_too_large_alone() -> None:
    noise = "".join(f"{number:x}" for number in range(4000))
    mask = Mask("/input/noise", "upsert", noise)
    (upload,) = uploads(many(1), CONTEXT._replace(masks=(mask,), upload_max_bytes=4096))
    assert upload.body is not None
    assert len(upload.body) <= 4096
    (event,) = orjson.loads(gzip.decompress(upload.body))
    assert (event["decision_id"], event["erased"]) == ("d0", ["/"])
    assert "input" not in event


def test_uploads_are_none_when_there_are_no_records() -> None:
    assert uploads((), CONTEXT) == []
