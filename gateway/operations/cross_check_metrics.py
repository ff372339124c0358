"""Counters of the cross-check: how much was compared with OPA, how it differed, what was left out and why.

Guarantees: label values are the kinds of `pdp.replay` and the reasons below, so their number is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from pdp.replay import Kind

UNREACHABLE: Final = "unreachable"
OTHER_REVISION: Final = "other_revision"
REPLACED: Final = "replaced"
UNRECORDED: Final = "unrecorded"
FAULT: Final = "fault"
_WHY: Final = (UNREACHABLE, OTHER_REVISION, REPLACED, UNRECORDED, FAULT)


class CrossCheckMetrics:
    """What became of the decisions that were put to OPA as well."""

    def __init__(self, registry: CollectorRegistry, is_held: Callable[[], bool]) -> None:
        self.compared = Counter("tidegate_cross_check_compared", "Decisions compared with OPA's.", registry=registry)
        self.dropped = Counter(
            "tidegate_cross_check_dropped", "Decisions not compared because too many waited.", registry=registry
        )
        failed = Counter(
            "tidegate_cross_check_failed",
            "Decisions not compared, or differences not recorded, by reason.",
            ["why"],
            registry=registry,
        )
        self.failed: dict[str, Counter] = {why: failed.labels(why) for why in _WHY}
        differences = Counter(
            "tidegate_cross_check_differences",
            "Decisions that OPA makes differently, by kind.",
            ["kind"],
            registry=registry,
        )
        self.differences: dict[Kind, Counter] = {
            kind: differences.labels(kind.value) for kind in Kind if kind is not Kind.SAME
        }
        quarantined = Gauge(
            "tidegate_bundle_quarantined",
            "1 while nothing decides because its bundle is quarantined.",
            registry=registry,
        )
        quarantined.set_function(lambda: float(is_held()))
