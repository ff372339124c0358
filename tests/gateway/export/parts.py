"""Records, a ledger and a collector in memory, for exporters under test."""

from __future__ import annotations

import gzip
from typing import Any

import orjson

from gateway.export.collector_client import DeliveryFailed
from gateway.ledger.record import LogId, Position, RecordDraft, RecordKind, freeze, leaf_hash, seal
from gateway.store.port import StoredRecord

LOG: LogId = ("acme", "ops")
WALL = 1_768_386_600_250


def draft(kind: RecordKind = "call", decision: str | None = "d1", **action: object) -> RecordDraft:
    """A record of an agent that read an incident."""
    return RecordDraft(
        log=LOG,
        kind=kind,
        ids={"call": "c1", "attempt": 1},
        subject={"type": "agent", "id": "bot"},
        action={
            "name": "servicenow.incident.read",
            "instance": "servicenow",
            "resource": {"type": "incident", "id": "INC1"},
            **action,
        },
        decision=None
        if decision is None
        else {"id": decision, "effect": "ALLOW", "engine": "wasm", "input": "sha256:aa", "reasons": ["role"]},
        policy={"bundle": "sha256:bb", "revision": "r1", "rules": ["policies.servicenow.allow"]},
        digests={},
        actor="gateway",
    )


class MemoryLedger:
    """The reading side of a ledger, filled by `add`."""

    def __init__(self) -> None:
        self._logs: dict[LogId, list[StoredRecord]] = {}

    def add(self, record: RecordDraft, log: LogId = LOG) -> StoredRecord:
        """Append one record as the store would."""
        known = self._logs.setdefault(log, [])
        prev = known[-1].hash if known else "0" * 64
        data = seal(freeze(record._replace(log=log), node="gate-1"), Position(len(known), prev, (WALL, 0), WALL))
        known.append(StoredRecord(log, len(known), leaf_hash(data), data))
        return known[-1]

    async def logs(self) -> tuple[LogId, ...]:
        """All logs."""
        return tuple(self._logs)

    async def records(self, log: LogId, first_seq: int, limit: int) -> tuple[StoredRecord, ...]:
        """Records in order."""
        return tuple(self._logs.get(log, [])[first_seq : first_seq + limit])


class MemoryCollector:
    """Takes uploads; fails as it is told, one failure per upload."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.uploads: list[tuple[str, int]] = []
        self.documents: list[tuple[str, Any]] = []
        self.failures: list[DeliveryFailed] = []
        self.max_bytes = 1 << 20

    async def post(self, path: str, body: bytes, *, compressed: bool) -> None:
        """Take one document."""
        if self.failures:
            raise self.failures.pop(0)
        if len(body) > self.max_bytes:
            raise DeliveryFailed("collector_status_413", "too large")
        if not compressed:
            self.documents.append((path, orjson.loads(body)))
            return
        self.uploads.append((path, len(body)))
        self.events.extend(orjson.loads(gzip.decompress(body)))

    @property
    def decisions(self) -> list[str]:
        """The decisions that arrived, in order."""
        return [event["decision_id"] for event in self.events]
