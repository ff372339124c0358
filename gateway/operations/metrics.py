"""The gateway's counters and histograms, by the names of page 3.

Guarantees: label cardinality is bounded by the signed bundle's connectors and actions; anything else is ``other``.
Leaves serving them to ``gateway.operations.listener``.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

_FAST = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.02, 0.1)
_CALL = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600)
OTHER = "other"
TENANTS_MAX = 256
MEDIA_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Metrics:
    """Every metric of one gateway process, in its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._known: frozenset[str] = frozenset()
        self._tenants: set[str] = set()
        self._children: dict[tuple[str, ...], Counter] = {}
        self._stages: dict[str, Histogram] = {}
        make = self.registry
        self._calls = Counter(
            "tidegate_calls", "Calls by their end.", ["tenant", "connector", "action", "effect", "code"], registry=make
        )
        self._call_seconds = Histogram(
            "tidegate_call_seconds", "Time of one call by stage.", ["stage"], buckets=_CALL, registry=make
        )
        self._decision_seconds = Histogram(
            "tidegate_pdp_decision_seconds", "Time of one decision.", ["engine", "cache"], buckets=_FAST, registry=make
        )
        self.bundle_sequence = Gauge("tidegate_bundle_sequence", "Sequence of the active bundle.", registry=make)
        self.engine_errors = Counter("tidegate_engine_errors", "Decisions the engine failed.", registry=make)
        self.ledger_append_seconds = Histogram(
            "tidegate_ledger_append_seconds", "Time until a record is durable.", buckets=_CALL, registry=make
        )
        self.ledger_unflushed = Gauge("tidegate_ledger_unflushed", "Records waiting to be durable.", registry=make)
        self.approvals_created = Counter("tidegate_approvals_created", "Approvals opened.", registry=make)
        self.approvals_pending = Gauge("tidegate_approvals_pending", "Callers held right now.", registry=make)
        self.votes = Counter(
            "tidegate_approval_chain_step_decided", "Votes that decided a step.", ["decision"], registry=make
        )
        self.dispatch_retry = Counter("tidegate_dispatch_retry", "Dispatches sent again.", registry=make)
        self.dispatch_unknown = Counter(
            "tidegate_dispatch_unknown", "Dispatches whose outcome is unknown.", registry=make
        )
        self.unauthenticated = Counter(
            "tidegate_unauthenticated", "Refusals before anybody was identified.", ["code"], registry=make
        )
        self.in_flight = Gauge("tidegate_calls_in_flight", "Calls being worked on.", registry=make)

    def bound_labels(self, names: Iterable[str]) -> None:
        """Allow exactly these connector and action names as labels."""
        self._known = frozenset(names)
        self._children.clear()

    def count_call(self, labels: tuple[str, str, str, str, str]) -> None:
        """Count one finished call by (tenant, connector, action, effect, code)."""
        child = self._children.get(labels)
        if child is None:
            tenant, connector, action, effect, code = labels
            if tenant not in self._tenants:
                if len(self._tenants) < TENANTS_MAX:
                    self._tenants.add(tenant)
                else:
                    tenant = OTHER
            connector = connector if connector in self._known else OTHER
            action = action if action in self._known else OTHER
            child = self._calls.labels(tenant, connector, action, effect, code)
            if len(self._children) < 65536:
                self._children[labels] = child
        child.inc()

    def observe_stage(self, stage: str, seconds: float) -> None:
        """Time one stage of a call took. ``stage`` is a constant of the driver."""
        child = self._stages.get(stage)
        if child is None:
            child = self._stages[stage] = self._call_seconds.labels(stage)
        child.observe(seconds)

    def observe_decision(self, engine: str, seconds: float) -> None:
        """Time one decision took."""
        key = "\0" + engine
        child = self._stages.get(key)
        if child is None:
            child = self._stages[key] = self._decision_seconds.labels(engine, "off")
        child.observe(seconds)

    def exposition(self) -> bytes:
        """All metrics in OpenMetrics text."""
        text: bytes = generate_openmetrics(self.registry)  # type: ignore[no-untyped-call]
        return text
