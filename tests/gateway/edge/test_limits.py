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


def test_body_deadline_grows_when_bytes_arrive() -> None:
    limits = EdgeLimits(body_read_seconds=10, body_min_bytes_per_second=100)
    assert limits.body_deadline_seconds(0) == 10
    assert limits.body_deadline_seconds(500) == 15
