"""The gateway's counters and histograms, by the names that ``docs/operations.md`` uses.

Guarantees: label cardinality is bounded by the signed bundle's connectors and actions; anything else is ``other``.
What every call touches is counted in plain numbers and becomes metrics when somebody asks. Belongs to the loop's
thread. Leaves serving them to ``gateway.operations.listener``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

_FAST: Final = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.02, 0.1)
_CALL: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600)
OTHER: Final = "other"
TENANTS_MAX: Final = 256
SERIES_MAX: Final = 65_536
MEDIA_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
CallLabels = tuple[str, str, str, str, str]


class _Durations:
    """One histogram series: how many values fell into each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value; a bound belongs to its own bucket."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """The cumulative buckets as the text format wants them."""
        names = [*map(str, map(float, self.bounds)), "+Inf"]
        sums, running = [], 0
        for count in self.counts:
            running += count
            sums.append(float(running))
        return list(zip(names, sums, strict=True))


class _PerCall(Collector):
    """What every call touches, as plain numbers."""

    def __init__(self) -> None:
        self.calls: dict[CallLabels, int] = {}
        self.stages: dict[str, _Durations] = {}
        self.decisions: dict[tuple[str, str], _Durations] = {}
        self.appends = _Durations(_CALL)
        self.in_flight = 0

    def collect(self) -> Iterator[Metric]:
        """The families, made from the numbers."""
        labels = ["tenant", "connector", "action", "effect", "code"]
        calls = CounterMetricFamily("tidegate_calls", "Calls by their end.", labels=labels)
        for values, count in self.calls.items():
            calls.add_metric(values, count)
        yield calls
        stages = HistogramMetricFamily("tidegate_call_seconds", "Time of one call by stage.", labels=["stage"])
        for stage, durations in self.stages.items():
            stages.add_metric([stage], durations.buckets(), durations.total)
        yield stages
        decisions = HistogramMetricFamily(
            "tidegate_pdp_decision_seconds", "Time of one decision.", labels=["engine", "cache"]
        )
        for (engine, cache), durations in self.decisions.items():
            decisions.add_metric([engine, cache], durations.buckets(), durations.total)
        yield decisions
        appends = HistogramMetricFamily("tidegate_ledger_append_seconds", "Time until a record is durable.")
        appends.add_metric([], self.appends.buckets(), self.appends.total)
        yield appends
        yield GaugeMetricFamily("tidegate_calls_in_flight", "Calls being worked on.", value=self.in_flight)


class Metrics:
    """Every metric of one gateway process, in its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._known: frozenset[str] = frozenset()
        self._tenants: set[str] = set()
        self._bounded: dict[CallLabels, CallLabels] = {}
        self._per_call = _PerCall()
        make = self.registry
        make.register(self._per_call)
        self.bundle_sequence = Gauge("tidegate_bundle_sequence", "Sequence of the active bundle.", registry=make)
        self.engine_errors = Counter("tidegate_engine_errors", "Decisions the engine failed.", registry=make)
        self.ledger_unflushed = Gauge("tidegate_ledger_unflushed", "Records waiting to be durable.", registry=make)
        self.outcomes_waiting = Gauge(
            "tidegate_ledger_outcomes_waiting", "Outcomes that could not be recorded yet.", registry=make
        )
        self.approvals_created = Counter("tidegate_approvals_created", "Approvals opened.", registry=make)
        self.approvals_pending = Gauge("tidegate_approvals_pending", "Approvals that wait for people.", registry=make)
        self.callers_waiting = Gauge("tidegate_callers_waiting", "Held calls whose callers wait here.", registry=make)
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

    def bound_labels(self, names: Iterable[str]) -> None:
        """Allow exactly these connector and action names as labels."""
        self._known = frozenset(names)
        self._bounded.clear()

    def count_call(self, labels: CallLabels) -> None:
        """Count one finished call by (tenant, connector, action, effect, code)."""
        bounded = self._bounded.get(labels)
        if bounded is None:
            bounded = self._bound(labels)
            if len(self._bounded) < SERIES_MAX:
                self._bounded[labels] = bounded
        calls = self._per_call.calls
        calls[bounded] = calls.get(bounded, 0) + 1

    def _bound(self, labels: CallLabels) -> CallLabels:
        tenant, connector, action, effect, code = labels
        if tenant not in self._tenants:
            if len(self._tenants) < TENANTS_MAX:
                self._tenants.add(tenant)
            else:
                tenant = OTHER
        connector = connector if connector in self._known else OTHER
        action = action if action in self._known else OTHER
        return (tenant, connector, action, effect, code)

    def observe_stage(self, stage: str, seconds: float) -> None:
        """Time one stage of a call took. ``stage`` is a constant of the driver."""
        durations = self._per_call.stages.get(stage)
        if durations is None:
            durations = self._per_call.stages[stage] = _Durations(_CALL)
        durations.observe(seconds)

    def observe_decision(self, engine: str, seconds: float, cached: bool | None = None) -> None:
        """Time one decision took; `cached` as `Decided` has it."""
        labels = (engine, "off" if cached is None else "hit" if cached else "miss")
        durations = self._per_call.decisions.get(labels)
        if durations is None:
            durations = self._per_call.decisions[labels] = _Durations(_FAST)
        durations.observe(seconds)

    def observe_append(self, seconds: float) -> None:
        """Time until one record was durable."""
        self._per_call.appends.observe(seconds)

    def count_in_flight(self, calls: int) -> None:
        """How many calls are being worked on."""
        self._per_call.in_flight = calls

    def exposition(self) -> bytes:
        """All metrics in OpenMetrics text."""
        text: bytes = generate_openmetrics(self.registry)  # type: ignore[no-untyped-call]
        return text
