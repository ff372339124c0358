"""Decisions out of the ledger to one collector, and the gate's status beside them.

Guarantees: a record is passed over only after the collector took the upload that it is in, so a collector that is down
loses nothing and nothing is held in memory for it; no call ever waits, because the ledger is only read. An upload may
come twice after a crash between its delivery and the cursor. Leaves the form of events to `events`, connections to
`collector_client`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, Protocol

import orjson

from gateway.errors import GateError
from gateway.export.collector_client import DeliveryFailed
from gateway.export.cursor_file import START, CursorFile, Position
from gateway.export.events import EventContext, Upload, uploads
from gateway.export.settings import UPLOAD_MIN_BYTES, DecisionLog
from gateway.export.status import retry_seconds
from gateway.ledger.record import LogId
from gateway.store.port import StoredRecord

BATCH_RECORDS: Final = 200
REMEMBERED_MAX: Final = 4096
EVERY_TENANT: Final = "*"


class LedgerReads(Protocol):
    """What an exporter reads; `gateway.store.port.Store` is one."""

    async def logs(self) -> tuple[LogId, ...]: ...
    async def records(self, log: LogId, first_seq: int, limit: int) -> tuple[StoredRecord, ...]: ...


class Deliver(Protocol):
    """Hands a document over; `CollectorClient.post` is one. Raises `DeliveryFailed`."""

    async def __call__(self, path: str, body: bytes, *, compressed: bool) -> None: ...


class ExporterParts(NamedTuple):
    """What an exporter works with; `chance` gives numbers from 0 to 1, `say` a line for the log, `pause` waits seconds."""

    ledger: LedgerReads
    deliver: Deliver
    cursor: CursorFile
    status: Callable[[str], dict[str, Any]]
    chance: Callable[[], float]
    say: Callable[[dict[str, object]], None]
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep


class DecisionLogExporter:
    """Follows the ledger for one collector."""

    def __init__(self, settings: DecisionLog, context: EventContext, parts: ExporterParts) -> None:
        self._settings = settings
        self._context = context
        self._parts = parts
        self._suffix = f"/{settings.partition}" if settings.partition is not None else ""
        self._sent: OrderedDict[str, None] = OrderedDict()
        self._fitting: set[LogId] = set()
        self._loaded = False
        self._tasks: list[asyncio.Task[None]] = []
        self.name = settings.name
        self.fault = ""
        self.events = 0

    def start(self) -> None:
        """Export from now on, in tasks of its own."""
        name = self._settings.name
        self._tasks.append(asyncio.create_task(self._follow(), name=f"decision-log-{name}"))
        if self._settings.status_seconds:
            self._tasks.append(asyncio.create_task(self._report(), name=f"decision-log-status-{name}"))
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Stop; what has not been delivered is delivered after the next start."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()

    async def drain(self) -> int:
        """Deliver everything that lies after the cursor; how many events that were.

        Raises `DeliveryFailed`, `StoreUnavailable`, `CursorDamaged`, `OSError` (the cursor cannot be kept); what was
        delivered counts.
        """
        if not self._loaded:
            await asyncio.to_thread(self._parts.cursor.load)
            self._loaded = True
        before = self.events
        for log in await self._parts.ledger.logs():
            if EVERY_TENANT in self._settings.tenants or log[0] in self._settings.tenants:
                await self._drain_log(log)
        return self.events - before

    async def send_status(self) -> None:
        """Deliver one status report. Raises `DeliveryFailed`."""
        body = orjson.dumps(self._parts.status(self.fault))
        await self._parts.deliver(f"/status{self._suffix}", body, compressed=False)

    async def _drain_log(self, log: LogId) -> None:
        position = await self._position(log)
        while records := await self._parts.ledger.records(log, position.next_seq, BATCH_RECORDS):
            packed = await asyncio.to_thread(uploads, records, self._context, frozenset(self._sent))
            for upload in packed:
                await self._hand_over(upload)
                position = Position(upload.next_seq, upload.last_hash)
                await asyncio.to_thread(self._parts.cursor.advance, log, position)

    async def _position(self, log: LogId) -> Position:
        """The cursor's position, or the log's beginning when its record is not the one that was exported.

        A restored or replaced ledger has other records under the same numbers; exporting twice loses nothing.
        """
        position = self._parts.cursor.position(log)
        if log in self._fitting or position == START:
            self._fitting.add(log)
            return position
        before = await self._parts.ledger.records(log, position.next_seq - 1, 1)
        self._fitting.add(log)
        if before and before[0].hash == position.last_hash:
            return position
        self._say(
            "cursor_unknown", f"{log[0]}/{log[1]} is not the log that was exported; it is exported from its start"
        )
        return START

    async def _hand_over(self, upload: Upload) -> None:
        if upload.body is None:
            return
        try:
            await self._parts.deliver(f"/logs{self._suffix}", upload.body, compressed=True)
        except DeliveryFailed as failed:
            half = self._context.upload_max_bytes // 2
            if failed.too_large and half >= UPLOAD_MIN_BYTES:
                self._context = self._context._replace(upload_max_bytes=half)
            raise
        self.events += len(upload.decisions)
        for decision in upload.decisions:
            self._sent[decision] = None
        while len(self._sent) > REMEMBERED_MAX:
            self._sent.popitem(last=False)

    async def _follow(self) -> None:
        failures = 0
        while True:
            wait = float(self._settings.delay_seconds)
            try:
                await self.drain()
                failures = 0
                self._mended()
            except (GateError, OSError) as failed:
                failures += 1
                asked_for = failed.retry_after_seconds if isinstance(failed, DeliveryFailed) else None
                wait = retry_seconds(failures, self._settings.retry_max_seconds, self._parts.chance(), asked_for)
                self._failed(failed)
            await self._parts.pause(wait)

    async def _report(self) -> None:
        while True:
            try:
                await self.send_status()
            except DeliveryFailed as failed:
                self._say(failed.code, failed.detail)
            await self._parts.pause(float(self._settings.status_seconds))

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task that ends by itself met a bug; it says so, and the next start of the gate goes on at the cursor."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fault = "exporter_ended"
            self._say(self.fault, repr(error))

    def _failed(self, failed: Exception) -> None:
        code = getattr(failed, "code", "cursor_unwritable")
        if self.fault != code:
            self._say(code, str(failed))
        self.fault = code

    def _mended(self) -> None:
        if self.fault:
            self._parts.say({"what": "decision_log_resumed", "name": self._settings.name})
        self.fault = ""

    def _say(self, code: str, error: str) -> None:
        self._parts.say({"what": "decision_log_failed", "name": self._settings.name, "code": code, "error": error})
