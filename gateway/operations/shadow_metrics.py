"""Counters of the shadow bundle: how much was compared, how it differed, what was left out.

Guarantees: label values are the kinds of `pdp.replay`, so their number is bounded.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from pdp.replay import Kind


class ShadowMetrics:
    """What became of the questions offered to the shadow."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.compared = Counter(
            "tidegate_shadow_compared", "Decisions put to the shadow bundle as well.", registry=registry
        )
        self.dropped = Counter(
            "tidegate_shadow_dropped", "Decisions not compared because too many waited.", registry=registry
        )
        self.failed = Counter(
            "tidegate_shadow_failed", "Decisions or differences lost to a failure of the comparison.", registry=registry
        )
        differences = Counter(
            "tidegate_shadow_differences",
            "Decisions that the shadow bundle makes differently, by kind.",
            ["kind"],
            registry=registry,
        )
        self.differences: dict[Kind, Counter] = {
            kind: differences.labels(kind.value) for kind in Kind if kind is not Kind.SAME
        }
