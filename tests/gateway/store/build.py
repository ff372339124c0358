"""What the tests of store, ledger and approvals are built from: a clock, drafts, held calls, people, an open store."""

from __future__ import annotations

import itertools
import json
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway.approvals.model import CallFields, HeldCall, Reason
from gateway.ledger.record import LogId, RecordDraft, RecordKind
from gateway.ledger.writer import LedgerWriter
from gateway.store.frames import Opening
from gateway.store.guard_driver import DiskRoom
from gateway.store.port import BatchAppender
from gateway.store.process_client import Owner, StoreLink
from gateway.store.process_driver import StoreProcess
from gateway.store.sealing import Sealer, TenantKeys
from gateway.store.sqlite import SqliteAppender
from gateway.store.sqlite_reads_driver import SqliteReads

LOG: LogId = ("acme", "ops")
OTHER_LOG: LogId = ("rival", "ops")
START = 1_800_000_000_000
AMPLE = DiskRoom(free_bytes=2**40, total_bytes=2**41)
KEYS = TenantKeys(b"k" * 32)


class FakeClock:
    """Wall milliseconds that move only when told."""

    def __init__(self, now: int = START) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * 1000)


class CountingBytes:
    """Bytes that differ at each call, the same in each run."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def __call__(self, count: int) -> bytes:
        return next(self._numbers).to_bytes(count, "big")


def draft(kind: RecordKind = "intent", *, log: LogId = LOG, call: str = "c1", **action: object) -> RecordDraft:
    """A plausible record."""
    return RecordDraft(
        log=log,
        kind=kind,
        ids={"call": call},
        subject={"id": "alice", "issuer": "urn:people"},
        action={"name": "servicenow.incident.update", "instance": "servicenow", "mode": "write", **action},
        decision={"id": "d1", "effect": "ALLOW"},
        policy={"bundle": "sha256:00", "revision": "r1", "rules": ["x"]},
        digests={},
        actor="alice",
    )


FIELDS = CallFields(
    tenant="acme",
    workspace="ops",
    environment="prod",
    issuer="urn:people",
    subject="alice",
    on_behalf_of=None,
    instance="servicenow",
    action="servicenow.incident.update",
    resource_json='{"id":"42","type":"incident"}',
    args_json='{"state":"closed"}',
    method="PATCH",
    path="/api/now/table/incident/42",
    query="",
    content_type="application/json",
    headers_json="[]",
    body_sha256="00" * 32,
    target="http://127.0.0.1:9501",
    idempotency_key=None,
)
ONE_STEP = json.dumps({"steps": [{"id": "one", "role": "approver", "quorum": 1}]})
HELD = HeldCall(
    fields=FIELDS,
    call="c1",
    subject_json='{"id":"alice","type":"user"}',
    actors=("bot",),
    reasons=(Reason("prod_write", "servicenow", "writes to production need a person"),),
    chain_name="one-approver",
    chain_json=ONE_STEP,
    decide_within_seconds=600,
    use_within_seconds=60,
    on_approval="grant",
    bundle_digest="sha256:00",
    bundle_revision="r1",
    decision_id="d1",
)


def held(**changes: object) -> HeldCall:
    """The held call with some of the exact call's fields changed."""
    return replace(HELD, fields=replace(FIELDS, **changes))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Voter:
    """A person as the edge would make one."""

    id: str = "carol"
    issuer: str = "urn:people"
    tenant: str = "acme"
    workspace: str = "ops"
    roles: tuple[str, ...] = ("approver",)
    on_behalf_of: str | None = None
    actors: tuple[str, ...] = ()
    people: bool = True


@dataclass
class OpenStore:
    """A store, its writing side, writer and clock, and what was reported as fatal."""

    store: SqliteReads
    appender: SqliteAppender
    writer: LedgerWriter
    clock: FakeClock
    path: Path
    fatal: list[str] = field(default_factory=list)


def linked(appender: BatchAppender, idle_seconds: float = 1.0) -> StoreLink:
    """The real link to a writing side that runs in a thread here, where its clock and its disk can be the test's."""

    def begin() -> Owner:
        here, there = socket.socketpair()
        status: list[int] = []

        def serve() -> None:
            with there:
                status.append(StoreProcess(there, lambda _opening: appender).run())

        thread = threading.Thread(target=serve, name="store-owner", daemon=True)
        thread.start()

        here.setblocking(False)
        return Owner(here, thread.join)

    return StoreLink(begin, Opening("", b"", idle_seconds=idle_seconds))


@asynccontextmanager
async def open_store(
    directory: Path, clock: FakeClock | None = None, *, room: DiskRoom = AMPLE, idle_seconds: float = 1.0
) -> AsyncIterator[OpenStore]:
    """A store in `directory`, open for writing and reading."""
    clock = clock or FakeClock()
    path = directory / "state" / "tidegate.db"
    store = SqliteReads(path, sealer=Sealer(KEYS, os.urandom), clock=clock)
    appender = SqliteAppender(path, keys=KEYS, clock=clock, room=lambda _directory: room)
    fatal: list[str] = []
    writer = LedgerWriter(linked(appender, idle_seconds), node="n1", on_fatal=fatal.append)
    await writer.start()
    await store.open()
    try:
        yield OpenStore(store, appender, writer, clock, path, fatal)
    finally:
        await store.close()
        await writer.close()
