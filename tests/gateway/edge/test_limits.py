"""Limits of the listening side."""

from __future__ import annotations

from dataclasses import fields

import pytest

from gateway.edge.limits import EdgeLimits
from gateway.errors import GateMisuse


@pytest.mark.parametrize("name", [field.name for field in fields(EdgeLimits)])
def test_edge_limits_are_misuse_when_one_is_zero(name: str) -> None:
    with pytest.raises(GateMisuse, match=name):
        EdgeLimits(**{name: 0})


BODIES = [
    pytest.param([(500, 6.0)], 15.0, id="bytes buy the time they are worth"),
    pytest.param([(0, 6.0)], 10.0, id="time alone buys nothing"),
    pytest.param([(1 << 30, 6.0)], 16.0, id="a gigabyte buys no longer stall than the first wait"),
    pytest.param([(1 << 30, 1.0), (0, 11.0)], 11.0, id="a stall uses up what was left"),
    pytest.param([(100, 1.0), (100, 2.0), (100, 3.0), (50, 4.0)], 13.5, id="a decent rate keeps all of it"),
]


@pytest.mark.parametrize(("arrivals", "due"), BODIES)
def test_body_is_due_when(arrivals: list[tuple[int, float]], due: float) -> None:
    limits = EdgeLimits(body_read_seconds=10, body_min_bytes_per_second=100)
    found = 10.0
    for arrived_bytes, now in arrivals:
        found = limits.body_due(found, arrived_bytes, now)
    assert found == due
