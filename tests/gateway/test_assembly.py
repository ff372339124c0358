"""What one configuration makes: the limits that parts beside it keep."""

from __future__ import annotations

import pytest

from gateway.assembly import approval_limits
from tests.gateway.test_config import _load


@pytest.mark.parametrize("seconds", [0, 600, 601, 3600], ids=["none", "the default", "one more", "the most"])
def test_callers_wait_as_long_as_configured_when_they_are_held(seconds: int) -> None:
    limits = approval_limits(_load({"limits": {"hold_max_seconds": seconds, "holds_per_subject_max": 7}}))
    assert (limits.wait_max_seconds, limits.open_per_subject_max) == (seconds, 7)


def test_callers_wait_no_longer_than_the_default_when_nothing_is_configured() -> None:
    config = _load()
    assert approval_limits(config).wait_max_seconds == config.document.limits.hold_max_seconds == 600
