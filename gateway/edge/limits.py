"""Named limits of the listening side, each with its unit.

Guarantees: values that make sense together. Leaves to `server` that they are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from gateway.errors import GateMisuse


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """What one connection and one request may cost before the gate gives up on it."""

    header_read_seconds: float = 10.0
    body_read_seconds: float = 30.0
    body_min_bytes_per_second: int = 16_384
    idle_seconds: float = 75.0
    uri_max_bytes: int = 8_192
    headers_max_bytes: int = 32_768
    headers_max_count: int = 100
    body_max_bytes: int = 1 << 20
    connections_max: int = 4_096
    write_stall_seconds: float = 60.0
    """How long a client may take nothing of its answer."""
    linger_seconds: float = 5.0
    """How long a client that is still sending may read why it was refused."""
    half_closed_seconds: float = 2.0
    """How long the answer may take for a client that sends no more and may have left."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise GateMisuse(f"limit {field.name} must be above zero")

    def body_due(self, due: float, arrived_bytes: int, now: float) -> float:
        """When a body is too slow that was `due` before `arrived_bytes` more had come by `now` (both in seconds).

        Bytes buy the time that they are worth at the minimum rate, so that a large upload at a decent rate goes through
        and a trickle does not; never more than `body_read_seconds` are left, so that nothing buys a longer stall.
        """
        return min(due + arrived_bytes / self.body_min_bytes_per_second, now + self.body_read_seconds)
