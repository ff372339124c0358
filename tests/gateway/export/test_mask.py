"""Masks: what they name is gone and listed, and a mask that fails hides everything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.export.mask import EVERYTHING, Mask, masked

EVENT: dict[str, Any] = {
    "labels": {"app": "tidegate"},
    "decision_id": "d1",
    "timestamp": "2026-01-14T10:30:00.250Z",
    "bundles": {"main": {"revision": "r1"}},
    "input": {"subject": {"id": "bot", "a/b": 1, "c~d": 2}, "list": [{"x": 1}, {"x": 2}]},
    "result": {"effect": "ALLOW"},
    "requested_by": "bot",
    "erased": ["/input/args"],
}

REMOVED = {
    "a member": ("/requested_by", ("requested_by",)),
    "a nested member": ("/input/subject/id", ("input", "subject", "id")),
    "a member with a slash": ("/input/subject/a~1b", ("input", "subject", "a/b")),
    "a member with a tilde": ("/input/subject/c~0d", ("input", "subject", "c~d")),
}


def at(event: Any, steps: tuple[str, ...]) -> Any:
    """What lies there, or None."""
    for step in steps:
        event = event.get(step) if isinstance(event, dict) else None
    return event


@pytest.mark.parametrize(("path", "steps"), REMOVED.values(), ids=REMOVED.keys())
def test_mask_removes_and_lists(path: str, steps: tuple[str, ...]) -> None:
    assert at(EVENT, steps) is not None
    event = masked(EVENT, [Mask(path)])
    assert at(event, steps) is None
    assert event["erased"] == ["/input/args", path]
    assert "masked" not in event


def test_mask_removes_an_element_of_a_list() -> None:
    assert masked(EVENT, [Mask("/input/list/0")])["input"]["list"] == [{"x": 2}]


def test_mask_replaces_and_lists() -> None:
    event = masked(EVENT, [Mask("/input/subject/id", "upsert", "**"), Mask("/input/list/1/x", "upsert", None)])
    assert event["input"]["subject"]["id"] == "**"
    assert event["input"]["list"] == [{"x": 1}, {"x": None}]
    assert event["masked"] == ["/input/subject/id", "/input/list/1/x"]
    assert event["erased"] == ["/input/args"]


def test_mask_puts_in_what_was_not_there() -> None:
    assert masked(EVENT, [Mask("/custom/team/name", "upsert", "red")])["custom"] == {"team": {"name": "red"}}


@pytest.mark.parametrize("path", ["/nothing", "/input/nothing/x", "/input/list/7", "/input/list/7/x"])
def test_mask_leaves_the_event_as_it_is_when_nothing_lies_at(path: str) -> None:
    assert masked(EVENT, [Mask(path)]) == EVENT


FAILING = {
    "a path into text": Mask("/requested_by/x"),
    "a path into a number": Mask("/input/list/0/x/y", "upsert", 1),
    "a name in a list": Mask("/input/list/first"),
    "a negative element": Mask("/input/list/-1"),
}


@pytest.mark.parametrize("failing", FAILING.values(), ids=FAILING.keys())
def test_mask_erases_everything_when_a_rule_fails_by(failing: Mask) -> None:
    event = masked(EVENT, [Mask("/result"), failing])
    assert event == {
        "labels": EVENT["labels"],
        "decision_id": "d1",
        "timestamp": EVENT["timestamp"],
        "bundles": EVENT["bundles"],
        "erased": [EVERYTHING],
        "custom": {"tidegate": {"redacted": "mask_failed"}},
    }


def test_mask_does_not_touch_the_event_it_was_given() -> None:
    before = repr(EVENT)
    masked(EVENT, [Mask("/input/subject/id"), Mask("/input/list/0/x", "upsert", 9)])
    assert repr(EVENT) == before


STEP = st.sampled_from(["input", "subject", "id", "list", "0", "1", "x", "result", "requested_by", "-", ""])


@given(st.lists(STEP, min_size=1, max_size=5), st.booleans())
def test_mask_always_ends_in_an_event_that_hides_what_it_removes(steps: list[str], upsert: bool) -> None:
    event = masked(EVENT, [Mask("/" + "/".join(steps), "upsert" if upsert else "remove", "secret-free")])
    assert event["decision_id"] == "d1"
    if event.get("erased") == [EVERYTHING]:
        assert "input" not in event
        assert "requested_by" not in event
