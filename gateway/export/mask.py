"""Hiding parts of an event before it leaves.

Guarantees: what a rule names is gone or replaced, and listed; when a rule cannot be carried out nothing of the event's
content leaves, and the event leaves nevertheless: a log that loses events under a faulty mask hides more than it should.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

from gateway.errors import GateError

EVERYTHING: Final = "/"
_KEPT: Final = ("labels", "decision_id", "bundles", "timestamp")


class Mask(NamedTuple):
    """One rule: the steps of its JSON Pointer, and what to do there."""

    path: str
    op: Literal["remove", "upsert"] = "remove"
    value: Any = None

    @property
    def steps(self) -> tuple[str, ...]:
        """The pointer's reference tokens. **Source**: RFC 6901 §4."""
        return tuple(step.replace("~1", "/").replace("~0", "~") for step in self.path.split("/")[1:])


class MaskFailed(GateError):
    """A rule cannot be carried out on this event."""


def masked(event: dict[str, Any], masks: Iterable[Mask]) -> dict[str, Any]:
    """The event under all rules, in order; with everything erased when one of them fails."""
    erased: list[str] = list(event.get("erased", ()))
    replaced: list[str] = []
    made: dict[str, Any] = event
    try:
        for mask in masks:
            made, touched = _applied(made, mask)
            if touched:
                (erased if mask.op == "remove" else replaced).append(mask.path)
    except (MaskFailed, RecursionError):
        return redacted(event, "mask_failed")
    lists = {"erased": erased, "masked": replaced}
    return {**made, **{name: paths for name, paths in lists.items() if paths}}


def redacted(event: Mapping[str, Any], why: str) -> dict[str, Any]:
    """What is left when nothing of an event may leave: which decision it was, when, and by which bundle."""
    kept = {name: event[name] for name in _KEPT if name in event}
    return {**kept, "erased": [EVERYTHING], "custom": {"tidegate": {"redacted": why}}}


def _applied(event: dict[str, Any], mask: Mask) -> tuple[dict[str, Any], bool]:
    """A copy with one rule applied, and whether it changed anything; nothing outside the path is copied."""
    changed = _changed(event, mask.steps, mask)
    return (event, False) if changed is _ABSENT else (changed, True)


_ABSENT: Final = object()


def _changed(value: Any, steps: tuple[str, ...], mask: Mask) -> Any:
    """`value` with what lies at `steps` removed or replaced, `_ABSENT` when there is nothing to do."""
    step, rest = steps[0], steps[1:]
    if isinstance(value, dict):
        return _changed_object(value, step, rest, mask)
    if not isinstance(value, list):
        raise MaskFailed(f"{mask.path} leads into a {type(value).__name__}")
    if not step.isdecimal():
        raise MaskFailed(f"{mask.path} does not number an element")
    number = int(step)
    if number >= len(value):
        return _ABSENT
    if rest:
        inner = _changed(value[number], rest, mask)
        return _ABSENT if inner is _ABSENT else [*value[:number], inner, *value[number + 1 :]]
    return [*value[:number], *([mask.value] if mask.op == "upsert" else []), *value[number + 1 :]]


def _changed_object(value: dict[str, Any], step: str, rest: tuple[str, ...], mask: Mask) -> Any:
    if rest:
        if step not in value:
            return _ABSENT if mask.op == "remove" else {**value, step: _made(rest, mask.value)}
        inner = _changed(value[step], rest, mask)
        return _ABSENT if inner is _ABSENT else {**value, step: inner}
    if mask.op == "upsert":
        return {**value, step: mask.value}
    return {name: kept for name, kept in value.items() if name != step} if step in value else _ABSENT


def _made(steps: tuple[str, ...], value: Any) -> Any:
    for step in reversed(steps):
        value = {step: value}
    return value
