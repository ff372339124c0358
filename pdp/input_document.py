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

from bundles.canonical import is_flat
from pdp.errors import InputRefused

if TYPE_CHECKING:
    from pdp.vocabulary import ActionFacts, PolicyInput, SubjectFacts

INPUT_VERSION = 1
INPUT_DEPTH_MAX = 500
"""Objects and arrays inside one another, the document itself included; the engine's own stack ends near 2,000."""
INPUT_MAX_BYTES = 3 << 20
INTEGER_MAX = 2**53 - 1
"""Beyond it, two readers of the same digits may see different numbers."""
TIME_UNIX_MAX = 100_000_000_000.0
"""Seconds until the year 5138; a larger figure is milliseconds by mistake."""

CACHED_MAX = 4_096
"""Pairs of subject and action, and resources, whose part of the document is kept."""

_STRICT = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_UNCHANGED = frozenset((str, bool, type(None)))
_Unfilled: TypeAlias = tuple[Any, Any, int]


def encode_input(policy_input: PolicyInput) -> bytes:
    """The bytes of one question's document; raises ``InputRefused``.

    Who asks and for what is the same in many questions: its bytes are made once and spliced in.
    """
    asked, resource = policy_input, policy_input.resource
    before, after = _resource_ends(resource.type, resource.connector, resource.instance, resource.placement)
    raw = b"".join(
        (
            _whose_action(asked.subject, asked.action),
            before,
            _dumped(resource.id),
            after,
            _dumped(asked.args if is_flat(asked.args) else _checked(asked.args, 2)),
            b',"context":',
            _context(asked),
            b"}",
        )
    )
    if len(raw) > INPUT_MAX_BYTES:
        raise _too_large(raw)
    return raw


def encode_document(document: Mapping[str, Any]) -> bytes:
    """Write any input document (a recorded or a simulated one) under the same rules; raises ``InputRefused``."""
    raw = _dumped(_checked(document, 1))
    if len(raw) > INPUT_MAX_BYTES:
        raise _too_large(raw)
    return raw


def _too_large(raw: bytes) -> InputRefused:
    return InputRefused(f"the input document has {len(raw)} bytes, {INPUT_MAX_BYTES} are allowed")


def _dumped(value: object) -> bytes:
    try:
        return orjson.dumps(value, option=_STRICT)
    except TypeError as refused:
        return _dumped_deep(value, refused)


def _dumped_deep(value: object, refused: TypeError) -> bytes:
    """orjson stops at 254 levels; the depth was checked, so Python's own encoder may go on."""
    if "ecursion" not in str(refused):
        raise InputRefused(f"not JSON: {refused}") from refused
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as again:
        raise InputRefused(f"not JSON: {again}") from again


@lru_cache(maxsize=CACHED_MAX)
def _whose_action(subject: SubjectFacts, action: ActionFacts) -> bytes:
    """The document from its beginning to its resource."""
    who: dict[str, Any] = {
        "tenant": subject.tenant,
        "workspace": subject.workspace,
        "environment": subject.environment,
        "roles": subject.roles,
        "amr": subject.amr,
    }
    # Absent facts are left out: ``not input.context.ticket`` is how Rego asks, and it does not hold for null.
    if subject.acr is not None:
        who["acr"] = subject.acr
    if subject.auth_time is not None:
        who["auth_time"] = _integer(int(subject.auth_time))
    if subject.on_behalf_of is not None:
        who["on_behalf_of"] = subject.on_behalf_of
    what = {
        "mode": action.mode,
        "risk": action.risk,
        "reversible": bool(action.reversible),
        "idempotent": bool(action.idempotent),
    }
    document = {
        "v": INPUT_VERSION,
        "subject": {"type": subject.type, "id": subject.id, "properties": who},
        "action": {"name": action.name, "properties": what},
    }
    return _dumped(document)[:-1]


@lru_cache(maxsize=CACHED_MAX)
def _resource_ends(kind: str, connector: str, instance: str, placement: str | None) -> tuple[bytes, bytes]:
    """The document's resource before and after its id, up to the arguments."""
    where = {"connector": connector, "instance": instance}
    if placement is not None:
        where["placement"] = placement
    before = b',"resource":{"type":%b,"id":' % _dumped(kind)
    return before, b',"properties":%b},"args":' % _dumped(where)


def _context(asked: PolicyInput) -> bytes:
    instant = asked.time_unix
    if not 0 <= instant < TIME_UNIX_MAX:
        raise InputRefused(f"time_unix is {instant!r}; seconds since 1970 are expected")
    seconds = int(instant)
    milliseconds = min(round((instant - seconds) * 1_000_000) // 1000, 999)
    before, after = _second(seconds, asked.zone)
    parts = [b"%b%03d%b" % (before, milliseconds, after), _dumped(asked.call)]
    if asked.ticket is not None:
        parts += (b',"ticket":', _dumped(asked.ticket))
    for name, value in ((b"run", asked.run), (b"approval", asked.approval), (b"request", asked.request)):
        if value is not None:
            parts.append(b',"%b":%b' % (name, _dumped(value if is_flat(value) else _checked(value, 3))))
    parts.append(b"}")
    return b"".join(parts)


@lru_cache(maxsize=64)
def _second(seconds: int, zone: str) -> tuple[bytes, bytes]:
    """The context's time and clock within one second, before and after the milliseconds, up to the call's id."""
    utc = datetime.fromtimestamp(seconds, UTC)
    local = utc if zone == "UTC" else utc.astimezone(_zone(zone))
    clock = {
        "unix": seconds,
        "weekday": _WEEKDAYS[local.weekday()],
        "minute_of_day": local.hour * 60 + local.minute,
        "zone": zone,
    }
    return b'{"time":"%b.' % utc.isoformat()[:19].encode("ascii"), b'Z","clock":%b,"call":' % _dumped(clock)


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
