"""What is said of a switch that stops nothing."""

from __future__ import annotations

import pytest

from gateway.api.switches import warning

KNOWN = frozenset({"desk", "desk.incident.list", "desk.incident.get", "tidegate", "tidegate.call.create"})


@pytest.mark.parametrize(
    "scope",
    [
        "tenant/acme",
        "tenant/acme/connector/desk",
        "tenant/acme/action/desk.incident.list",
        "tenant/acme/action/tidegate.call.create",
        "tenant/acme/subject/desk.incident.lst",
    ],
)
def test_switch_is_not_warned_of_when_it_stops_something(scope: str) -> None:
    assert warning(scope, KNOWN) is None


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        pytest.param("tenant/acme/action/desk.incident.lst", "did you mean desk.incident.list?", id="a typo"),
        pytest.param("tenant/acme/connector/dsk", "no connector dsk", id="a connector's typo"),
        pytest.param("tenant/acme/connector/desk.incident.list", "no connector", id="an action as a connector"),
        pytest.param("tenant/acme/action/desk", "no action desk", id="a connector as an action"),
        pytest.param("tenant/acme/action/xyzzy", "stops nothing now", id="like nothing"),
    ],
)
def test_switch_is_warned_of_when_the_bundle_has_no_such(scope: str, said: str) -> None:
    assert said in (warning(scope, KNOWN) or "")


def test_switch_is_warned_of_when_there_is_no_bundle() -> None:
    assert warning("tenant/acme/connector/desk", frozenset()) is not None
