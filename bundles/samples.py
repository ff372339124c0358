"""Input documents made from the manifests, to ask both engines the same many questions.

Guarantees: the same manifests and texts give the same inputs, every action is asked about, and values come from the
schemas and from the texts the policies themselves compare with. Leaves to the build: deciding them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from bundles.canonical import JsonValue
from bundles.manifest import Action, ConnectorManifest

SAMPLES_MIN_COUNT: Final = 320
SAMPLES_MAX_COUNT: Final = 800
DEPTH_MAX: Final = 4

_WORD = re.compile(r"[a-z][a-z0-9_-]{1,31}")
_OWN_ACTION = re.compile(r"tidegate(\.[a-z_]+){2}")
_ENVIRONMENTS: Final = ("prod", "staging", "dev", "Prod", "")
_ODD_TEXTS: Final = ("", "0", "2", "true", "null", "é", "a\nb", "INC001", "*", "../x", " ")
_ODD_NUMBERS: Final = (0, 1, -1, 2, 60, 1000000, 0.5, 1.5e10, 9007199254740991)

T = TypeVar("T")


class _Draw:
    """A reproducible stream of choices: SHA-256 over a counter."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._count = 0

    def below(self, bound: int) -> int:
        self._count += 1
        block = hashlib.sha256(f"{self._seed}:{self._count}".encode()).digest()
        return int.from_bytes(block[:6], "big") % bound

    def one(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def maybe(self, chance_percent: int) -> bool:
        return self.below(100) < chance_percent


def sample_inputs(manifests: Mapping[str, ConnectorManifest], texts: Sequence[str]) -> list[dict[str, JsonValue]]:
    """Several hundred input documents, version 1, for these connectors and policy texts."""
    words = [text for text in texts if _WORD.fullmatch(text)] or ["reader"]
    own = [text for text in texts if _OWN_ACTION.fullmatch(text)]
    actions = [(name, action) for name in sorted(manifests) for action in manifests[name].actions]
    subjects = len(actions) + len(own)
    if not subjects:
        return []
    wanted = min(SAMPLES_MAX_COUNT, max(SAMPLES_MIN_COUNT, 6 * subjects))
    inputs: list[dict[str, JsonValue]] = []
    for index in range(wanted):
        draw = _Draw(f"sample-{index}")
        at = index % subjects
        if at < len(actions):
            inputs.append(_ask(draw, *actions[at], words, texts))
        else:
            inputs.append(_ask_own(draw, own[at - len(actions)], words))
    return inputs


def _ask(
    draw: _Draw, connector: str, action: Action, words: Sequence[str], texts: Sequence[str]
) -> dict[str, JsonValue]:
    args = _arguments(draw, action, texts)
    kind = action.resource.type if action.resource else "service"
    properties: dict[str, JsonValue] = {
        "mode": action.mode,
        "risk": action.risk,
        "reversible": action.reversible,
        "idempotent": action.idempotent,
    }
    resource: dict[str, JsonValue] = {"connector": connector, "instance": draw.one((connector, f"{connector}-eu"))}
    document = _frame(draw, words, {"name": action.name, "properties": properties})
    document["resource"] = {"type": kind, "id": draw.one(("INC001", "1", "*", "x/y")), "properties": resource}
    document["args"] = args
    context: dict[str, Any] = document["context"]  # type: ignore[assignment]
    context["request"] = {"method": action.match.method, "path": action.match.path, "query": "", "protocol": "http"}
    return document


def _ask_own(draw: _Draw, name: str, words: Sequence[str]) -> dict[str, JsonValue]:
    reads = name.endswith((".read", ".list"))
    document = _frame(
        draw,
        words,
        {
            "name": name,
            "properties": {
                "mode": "read" if reads else "write", "risk": "low", "reversible": True, "idempotent": True,
            },
        },
    )  # fmt: skip
    properties: dict[str, JsonValue] = {"connector": "tidegate", "instance": "tidegate"}
    document["resource"] = {"type": name.split(".")[1], "id": draw.one(("a", "call-1")), "properties": properties}
    document["args"] = {}
    return document


def _frame(draw: _Draw, words: Sequence[str], action: dict[str, JsonValue]) -> dict[str, JsonValue]:
    roles: list[JsonValue] = [*sorted({draw.one(words) for _ in range(draw.below(4))})]
    who: dict[str, JsonValue] = {
        "tenant": draw.one(("acme", "globex")),
        "workspace": draw.one(("it", "finance")),
        "environment": draw.one(_ENVIRONMENTS),
        "roles": roles,
        "amr": ["pwd"],
    }
    if draw.maybe(20):
        who["on_behalf_of"] = "person-1"
    if draw.maybe(20):
        who["acr"] = "phr"
    minute = draw.below(1440)
    clock: dict[str, JsonValue] = {
        "unix": 1767225600 + 60 * minute, "weekday": draw.one(("Monday", "Saturday")),
        "minute_of_day": minute, "zone": "UTC",
    }  # fmt: skip
    context: dict[str, JsonValue] = {
        "time": f"2026-01-01T{minute // 60:02d}:{minute % 60:02d}:00.000Z",
        "clock": clock,
        "call": "01sample",
    }
    if draw.maybe(15):
        chains: list[JsonValue] = [draw.one(words)]
        context["approval"] = {"id": "01approval", "chains": chains, "state": "approved"}
    if draw.maybe(20):
        context["ticket"] = "CHG001"
    return {
        "v": 1,
        "subject": {"type": draw.one(("agent", "person")), "id": draw.one(("bot-1", "ann")), "properties": who},
        "action": action,
        "context": context,
    }


def _arguments(draw: _Draw, action: Action, texts: Sequence[str]) -> JsonValue:
    schema = action.arguments.schema_ or {"properties": {name: {} for name in action.arguments.parameters}}
    return _object(draw, schema, texts, DEPTH_MAX)


def _object(draw: _Draw, schema: Mapping[str, Any], texts: Sequence[str], depth: int) -> dict[str, JsonValue]:
    required = set(schema.get("required", []))
    value: dict[str, JsonValue] = {}
    for name, part in sorted(schema.get("properties", {}).items()):
        if name in required or draw.maybe(50):
            value[name] = _value(draw, part if isinstance(part, dict) else {}, texts, depth - 1)
    return value


def _value(draw: _Draw, schema: Mapping[str, Any], texts: Sequence[str], depth: int) -> JsonValue:
    options: Any = schema.get("enum") or ([schema["const"]] if "const" in schema else None)
    if options:
        chosen: JsonValue = draw.one(options)
        return chosen
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches and depth > 0:
        return _value(draw, draw.one(branches), texts, depth - 1)
    named = schema.get("type", "string")
    kind = draw.one(named) if isinstance(named, list) and named else named
    if kind in ("object", "array"):
        return _container(draw, kind, schema, texts, depth)
    if kind in ("integer", "number"):
        number = draw.one(_ODD_NUMBERS)
        return int(number) if kind == "integer" else number
    if kind == "boolean":
        return draw.maybe(50)
    if kind == "null":
        return None
    return draw.one(list(texts) or ["x"]) if draw.maybe(60) else draw.one(_ODD_TEXTS)


def _container(draw: _Draw, kind: str, schema: Mapping[str, Any], texts: Sequence[str], depth: int) -> JsonValue:
    if kind == "object":
        return _object(draw, schema, texts, depth) if depth > 0 else {}
    items = schema.get("items")
    part = items if isinstance(items, dict) else {}
    return [_value(draw, part, texts, depth - 1) for _ in range(draw.below(3))] if depth > 0 else []
