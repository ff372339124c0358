"""The input document: AuthZEN's four parts plus arguments, made from facts and written as bytes.

Guarantees that the bytes are one JSON object of bounded size and depth in which every number is finite and every
integral number is written as an integer, whatever the facts held; and that ``context.time`` and ``context.clock`` are
the same instant. Leaves the truth of the facts to whoever verified them.

**Security**: an engine treats input that does not parse as undefined, which a policy made of denials alone would
allow. So a caller's bytes never reach an engine: values are checked here and serialised again.
**Source**: OpenID AuthZEN 1.0 for ``subject``, ``action`` and ``resource``; RFC 3339 for ``context.time``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias
from zoneinfo import ZoneInfo

import orjson

from pdp.errors import InputRefused

if TYPE_CHECKING:
    from pdp.vocabulary import PolicyInput

INPUT_VERSION = 1
INPUT_DEPTH_MAX = 500
"""Objects and arrays inside one another, the document itself included; the engine's own stack ends near 2,000."""
INPUT_MAX_BYTES = 3 << 20
INTEGER_MAX = 2**53 - 1
"""Beyond it, two readers of the same digits may see different numbers."""
TIME_UNIX_MAX = 100_000_000_000.0
"""Seconds until the year 5138; a larger figure is milliseconds by mistake."""

_STRICT = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_UNCHANGED = frozenset((str, bool, type(None)))
_Unfilled: TypeAlias = tuple[Any, Any, int]


def encode_input(policy_input: PolicyInput) -> bytes:
    """The bytes of one question's document; raises ``InputRefused``."""
    return _written(_document(policy_input))


def encode_document(document: Mapping[str, Any]) -> bytes:
    """Write any input document (a recorded or a simulated one) under the same rules; raises ``InputRefused``."""
    return _written(_checked(document, 1))


def _written(document: dict[str, Any]) -> bytes:
    try:
        raw = orjson.dumps(document, option=_STRICT)
    except TypeError as refused:
        raw = _written_deep(document, refused)
    if len(raw) > INPUT_MAX_BYTES:
        raise InputRefused(f"the input document has {len(raw)} bytes, {INPUT_MAX_BYTES} are allowed")
    return raw


def _written_deep(document: dict[str, Any], refused: TypeError) -> bytes:
    """orjson stops at 254 levels; the depth was checked, so Python's own encoder may go on."""
    if "ecursion" not in str(refused):
        raise InputRefused(f"not JSON: {refused}") from refused
    try:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as again:
        raise InputRefused(f"not JSON: {again}") from again


def _document(asked: PolicyInput) -> dict[str, Any]:
    subject, action, resource = asked.subject, asked.action, asked.resource
    who: dict[str, Any] = {
        "tenant": subject.tenant,
        "workspace": subject.workspace,
        "environment": subject.environment,
        "roles": subject.roles,
        "amr": subject.amr,
    }
    where = {"connector": resource.connector, "instance": resource.instance}
    # Absent facts are left out: ``not input.context.ticket`` is how Rego asks, and it does not hold for null.
    if subject.acr is not None:
        who["acr"] = subject.acr
    if subject.auth_time is not None:
        who["auth_time"] = _integer(int(subject.auth_time))
    if subject.on_behalf_of is not None:
        who["on_behalf_of"] = subject.on_behalf_of
    if resource.placement is not None:
        where["placement"] = resource.placement
    return {
        "v": INPUT_VERSION,
        "subject": {"type": subject.type, "id": subject.id, "properties": who},
        "action": {
            "name": action.name,
            "properties": {
                "mode": action.mode,
                "risk": action.risk,
                "reversible": action.reversible,
                "idempotent": action.idempotent,
            },
        },
        "resource": {"type": resource.type, "id": resource.id, "properties": where},
        "args": _checked(asked.args, 2),
        "context": _context(asked),
    }


def _context(asked: PolicyInput) -> dict[str, Any]:
    instant = asked.time_unix
    if not 0 <= instant < TIME_UNIX_MAX:
        raise InputRefused(f"time_unix is {instant!r}; seconds since 1970 are expected")
    seconds = int(instant)
    text, weekday, minute_of_day = _second(seconds, asked.zone)
    context: dict[str, Any] = {
        "time": f"{text}.{min(round((instant - seconds) * 1_000_000) // 1000, 999):03d}Z",
        "clock": {"unix": seconds, "weekday": weekday, "minute_of_day": minute_of_day, "zone": asked.zone},
        "call": asked.call,
    }
    if asked.ticket is not None:
        context["ticket"] = asked.ticket
    if asked.run is not None:
        context["run"] = _checked(asked.run, 3)
    if asked.approval is not None:
        context["approval"] = _checked(asked.approval, 3)
    if asked.request is not None:
        context["request"] = _checked(asked.request, 3)
    return context


@lru_cache(maxsize=64)
def _second(seconds: int, zone: str) -> tuple[str, str, int]:
    """A second in UTC as text, and its weekday and minute of the day in `zone`."""
    utc = datetime.fromtimestamp(seconds, UTC)
    local = utc if zone == "UTC" else utc.astimezone(_zone(zone))
    return utc.isoformat()[:19], _WEEKDAYS[local.weekday()], local.hour * 60 + local.minute


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as unknown:
        raise InputRefused(f"unknown time zone {name!r}") from unknown


def _checked(document: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """A copy, lying at ``depth``, that every engine reads alike. No recursion: the depth is the caller's choice."""
    if type(document) is not dict and not isinstance(document, Mapping):
        raise InputRefused("the input document or a part of it is not an object")
    top: dict[str, Any] = {}
    unfilled: list[_Unfilled] = [(document, top, depth)]
    while unfilled:
        source, target, depth = unfilled.pop()
        if depth > INPUT_DEPTH_MAX:
            raise InputRefused(f"the input document is nested deeper than {INPUT_DEPTH_MAX}")
        if type(target) is list:
            for value in source:
                target.append(value if type(value) in _UNCHANGED else _opened(value, unfilled, depth))
            continue
        for name, value in source.items():
            if type(name) is not str:
                raise InputRefused(f"an object's key is not a string: {name!r}")
            target[name] = value if type(value) in _UNCHANGED else _opened(value, unfilled, depth)
    return top


def _opened(value: Any, unfilled: list[_Unfilled], depth: int) -> object:
    """A number as it is written, or an empty container that the walk fills later."""
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str):
        return str(value)
    target: dict[str, Any] | list[Any]
    if isinstance(value, Mapping):
        target = {}
    elif isinstance(value, list | tuple):
        target = []
    else:
        raise InputRefused(f"a {type(value).__name__} is not JSON")
    unfilled.append((value, target, depth + 1))
    return target


def _number(value: float) -> float | int:
    if not math.isfinite(value):
        raise InputRefused("a number is not finite")
    return _integer(int(value)) if value.is_integer() else value


def _integer(value: int) -> int:
    if not -INTEGER_MAX <= value <= INTEGER_MAX:
        raise InputRefused("a number is beyond 2^53-1")
    return value
