"""The exporters that a configuration asks for, made from the running gate.

Guarantees: every token could be read and every address class is known before anything is exported. Leaves starting and
closing them to `gateway.app`.
"""

from __future__ import annotations

import os
import random
import secrets
from functools import partial
from time import time
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from gateway.connectors.credentials import SecretReader
from gateway.egress.addresses import AddressClass, address_classes
from gateway.export.collector_client import CollectorClient
from gateway.export.cursor_file import CursorFile
from gateway.export.events import EventContext
from gateway.export.exporter import DecisionLogExporter, ExporterParts
from gateway.export.mask import Mask
from gateway.export.settings import DecisionLog
from gateway.export.status import ReportedBundle, status_document
from gateway.operations.log import EVENT_GATE, LineLog
from gateway.running import Running


def make_exporters(running: Running, log: LineLog) -> list[DecisionLogExporter]:
    """One exporter for each configured collector. Blocks on the disk; raises `CredentialError`, `GateMisuse`."""
    config = running.assembly.config
    process = f"gate-{secrets.token_hex(4)}"
    found = [_exporter(running, log, settings, process) for settings in config.document.decision_logs]
    if found:
        _measure(running.services.metrics.registry, found)
    return found


def _measure(registry: CollectorRegistry, exporters: list[DecisionLogExporter]) -> None:
    """Gauges that are read when somebody scrapes; names come from the configuration, so their number is bounded."""
    text = "Events that the collector took since the gate started."
    events = Gauge("tidegate_decision_log_events", text, ["name"], registry=registry)
    failing = Gauge("tidegate_decision_log_failing", "1 while nothing can be delivered.", ["name"], registry=registry)
    for exporter in exporters:
        events.labels(exporter.name).set_function(partial(getattr, exporter, "events"))
        failing.labels(exporter.name).set_function(partial(_is_failing, exporter))


def _is_failing(exporter: DecisionLogExporter) -> float:
    return 1.0 if exporter.fault else 0.0


def _exporter(running: Running, log: LineLog, settings: DecisionLog, process: str) -> DecisionLogExporter:
    config = running.assembly.config
    secret = None if settings.token is None else SecretReader(os.environ, config.base_dir).read(settings.token)
    allowed = frozenset({AddressClass.PUBLIC}) | address_classes(settings.allow_addresses)
    pool = running.services.pools.pool("_gate", f"_decision_log_{settings.name}", "", allowed)
    labels = {**settings.labels, "app": "tidegate", "id": process}
    masks = tuple(Mask(rule.path, rule.op, rule.value) for rule in settings.mask)
    bundle = config.document.bundles[0].name

    def status(fault: str) -> dict[str, Any]:
        healthy = running.services.writer.healthy
        return status_document(labels, reported_bundles(running), healthy=healthy, fault=fault)

    def say(fields: dict[str, object]) -> None:
        log.line(EVENT_GATE, fields)

    parts = ExporterParts(
        ledger=running.services.store,
        deliver=CollectorClient(pool, settings.service, secret).post,
        cursor=CursorFile(config.store_path.parent / "exports" / f"{settings.name}.json"),
        status=status,
        chance=random.random,
        say=say,
    )
    return DecisionLogExporter(settings, EventContext(bundle, labels, masks, settings.upload_max_bytes), parts)


def reported_bundles(running: Running) -> tuple[ReportedBundle, ...]:
    """The bundles in force as status reports them; one from a file was last heard of when the gate started."""
    started = running.started_unix
    found = []
    for state in running.bundles():
        name, revision, followed = state.bundle.name, state.bundle.revision, state.status
        if followed is None:
            found.append(ReportedBundle(name, revision, started, started, time()))
            continue
        asked = (followed.answered_at, followed.asked_at, followed.error_code, followed.error_detail)
        found.append(ReportedBundle(name, revision, started, *asked))
    return tuple(found)
