"""Places of calls: none beyond the limit, and none for whoever has not said who they are."""

from __future__ import annotations

import pytest

from gateway.errors import Refusal
from gateway.flow.places import Places
from gateway.flow.values import Trace
from tests.gateway.flow.playbook import SUBJECT


def _trace(*, identified: bool) -> Trace:
    return Trace("call-1", "desk", "desk", subject=SUBJECT if identified else None)


def test_place_is_refused_and_not_counted_when_all_are_taken() -> None:
    places = Places()
    places.take(1)
    with pytest.raises(Refusal, match="throttled"):
        places.take(1)
    places.give_back()
    places.take(1)
    assert places.taken == 1


def test_place_is_free_when_somebody_unknown_is_waited_for() -> None:
    places = Places()
    places.take(1)
    with places.left(_trace(identified=False)):
        places.take(1)
        places.give_back()
    assert places.taken == 1


def test_place_is_kept_when_the_caller_is_known() -> None:
    places = Places()
    places.take(1)
    with places.left(_trace(identified=True)), pytest.raises(Refusal):
        places.take(1)


def test_call_is_throttled_and_counted_when_its_place_is_taken_on_its_return() -> None:
    places = Places()
    places.take(1)
    with pytest.raises(Refusal, match="throttled"), places.left(_trace(identified=False)):
        places.take(1)
    assert places.taken == 2


def test_call_is_counted_in_again_when_its_body_does_not_come() -> None:
    places = Places()
    places.take(1)
    with pytest.raises(ValueError, match="cut"), places.left(_trace(identified=False)):
        raise ValueError("cut")
    assert places.taken == 1
