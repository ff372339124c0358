"""Gauges and counters of the bundle's lease and transfers, read when somebody scrapes.

Guarantees: label values are error codes of this source, so their number is bounded. Leaves the sequence to
``gateway.operations.metrics``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from bundles.client_protocol import ClientStatus

Statuses = Callable[[], Sequence[ClientStatus]]


class BundleMetrics:
    """Lease, last answer and failures of the bundles that a gate follows; of several, the worst."""

    def __init__(self, registry: CollectorRegistry, statuses: Statuses) -> None:
        remaining = Gauge(
            "tidegate_bundle_lease_remaining_seconds", "How long the bundle may still decide.", registry=registry
        )
        remaining.set_function(lambda: min((one.remaining_seconds for one in statuses()), default=0.0))
        answered = Gauge(
            "tidegate_bundle_answered_timestamp_seconds", "When the service last answered properly.", registry=registry
        )
        answered.set_function(lambda: min((one.answered_at or 0.0 for one in statuses()), default=0.0))
        failures = Gauge("tidegate_bundle_failures", "Failed questions since the last good answer.", registry=registry)
        failures.set_function(lambda: max((float(one.failures) for one in statuses()), default=0.0))
        came = Gauge(
            "tidegate_bundle_last_transfer_bytes", "Bytes of the answer that brought it.", ["kind"], registry=registry
        )
        for kind in ("whole", "delta"):
            came.labels(kind).set_function(partial(_transferred, statuses, kind))
        self._refused = Counter(
            "tidegate_bundle_refused", "Answers and bundles not accepted, by code.", ["code"], registry=registry
        )

    def count_refused(self, code: str) -> None:
        """One answer, bundle or statement was not accepted."""
        self._refused.labels(code).inc()


def _transferred(statuses: Statuses, kind: str) -> float:
    """The bytes of all last transfers of one kind."""
    last = (one.transfer for one in statuses())
    return float(sum(transfer.size_bytes for transfer in last if transfer is not None and transfer.kind == kind))
