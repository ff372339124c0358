"""Input documents made from the manifests, to ask both engines the same many questions.

Guarantees: the same manifests and texts give the same inputs; every action is asked about, in turn with every container
empty, with everything its schema names and with what it requires alone, in each environment that the connector's policies
name; values come from the schemas and from the texts the policies themselves compare with. Leaves to the build: deciding
them.

**Security**: a rule that no input reaches proves nothing about the module, so what a rule is about is drawn from it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from bundles.canonical import JsonValue
from bundles.manifest import Action, ConnectorManifest
from bundles.profile_calls import kind_of

SAMPLES_MIN_COUNT: Final = 320
SAMPLES_MAX_COUNT: Final = 800
DEPTH_MAX: Final = 4

_WORD = re.compile(r"[a-z][a-z0-9_-]{1,31}")
_OWN_ACTION = re.compile(r"tidegate(\.[a-z_]+){2}")
_ZONE = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z_/-]+")
_ENVIRONMENTS: Final = ("prod", "staging", "dev", "Prod", "")
_NAMED: Final = frozenset(
    {
        *("tenant", "workspace", "environment", "roles", "acr", "amr", "on_behalf_of", "autonomy"),
        *("id", "type", "instance", "placement", "weekday", "zone", "ticket", "method", "query"),
    }
)
"""Members of a question whose values a policy names."""
_COMMON: Final = "common"
_ODD_TEXTS: Final = ("", "0", "2", "true", "null", "é", "a\nb", "INC001", "*", "../x", " ")
_ODD_NUMBERS: Final = (0, 1, -1, 2, 60, 1000000, 0.5, 1.5e10, 9007199254740991)

T = TypeVar("T")
Texts = Mapping[str, Sequence[str]]
"""The texts that policies compare a member with, by the member's name."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """How much of what it may have a question has: ``None`` draws."""

    optional: bool | None = None
    filled: bool | None = None


_SHAPES: Final = (_Shape(), _Shape(optional=True, filled=False), _Shape(optional=True), _Shape(optional=False))


class _Draw:
    """A reproducible stream of choices, SHA-256 over a counter, for the ``turn``-th question about one action."""

    def __init__(self, index: int, turn: int, texts: Sequence[str], near: Texts) -> None:
        self._seed = f"sample-{index}"
        self._count = 0
        self.turn = turn
        self.texts = texts
        self.near = near
        self.shape = _SHAPES[turn % len(_SHAPES)]

    def below(self, bound: int) -> int:
        self._count += 1
        block = hashlib.sha256(f"{self._seed}:{self._count}".encode()).digest()
        return int.from_bytes(block[:6], "big") % bound

    def one(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def maybe(self, chance_percent: int) -> bool:
        return self.below(100) < chance_percent

    def named(self, name: str, otherwise: Sequence[str]) -> str:
        """A text for a member: mostly one that the policies compare it with, sometimes any other of theirs."""
        near = self.near.get(name)
        if near and self.maybe(60):
            return self.one(near)
        return self.one(self.texts) if self.texts and self.maybe(10) else self.one(otherwise)

    def environment(self) -> str:
        """Each that the policies name in turn, before those that nobody named."""
        near = self.near.get("environment", ())
        options = [*near, *_ENVIRONMENTS[: len(_ENVIRONMENTS) if not near else 1]]
        return options[self.turn // len(_SHAPES) % len(options)]


def sample_inputs(
    manifests: Mapping[str, ConnectorManifest], texts: Sequence[str], compared: Mapping[str, Texts] | None = None
) -> list[dict[str, JsonValue]]:
    """Several hundred input documents, version 1, for these connectors and policy texts.

    ``compared`` says for the folder of each policy what it compares with, as :func:`compared_texts` found it.
    """
    words = [text for text in texts if _WORD.fullmatch(text)] or ["reader"]
    own = [text for text in texts if _OWN_ACTION.fullmatch(text)]
    actions = [(name, action) for name in sorted(manifests) for action in manifests[name].actions]
    subjects = len(actions) + len(own)
    if not subjects:
        return []
    wanted = min(SAMPLES_MAX_COUNT, max(SAMPLES_MIN_COUNT, 6 * subjects))
    near = {name: _near(compared or {}, name) for name in (*manifests, "tidegate")}
    inputs: list[dict[str, JsonValue]] = []
    for index in range(wanted):
        turn, at = divmod(index, subjects)
        connector = actions[at][0] if at < len(actions) else "tidegate"
        draw = _Draw(index, turn, texts, near[connector])
        if at < len(actions):
            inputs.append(_ask(draw, *actions[at], words))
        else:
            inputs.append(_ask_own(draw, own[at - len(actions)], words))
    return inputs


def compared_texts(ast_by_file: Mapping[str, JsonValue]) -> dict[str, Texts]:
    """For each policy's folder, the texts that stand beside the name of a member, as in ``in_environment("uat")``.

    Where none stands in the same condition, those of the rule count, and of rules of the file that the condition names.
    """
    found: dict[str, dict[str, set[str]]] = {}
    for file in sorted(ast_by_file):
        tree, folder = ast_by_file[file], file.split("/")
        if not isinstance(tree, dict) or folder[0] == "lib" or len(folder) < 3:
            continue
        rules: Any = tree.get("rules") or []
        constants: dict[str, set[str]] = {}
        for rule in rules:
            constants.setdefault(str(rule["head"]["ref"][0]["value"]), set()).update(_strings(rule))
        by_name = found.setdefault(folder[1], {})
        for rule in rules:
            for condition in _conditions(rule):
                words = set(_names(condition))
                beside = _strings(condition).union(*(constants[word] for word in words & constants.keys()))
                for name in _NAMED & (words | {part for word in words for part in word.split("_")}):
                    by_name.setdefault(name, set()).update(beside or _strings(rule))
    return {folder: {name: sorted(texts) for name, texts in by_name.items()} for folder, by_name in found.items()}


def _near(compared: Mapping[str, Texts], connector: str) -> Texts:
    """What the policies that decide about a connector compare with."""
    own, common = compared.get(connector, {}), compared.get(_COMMON, {})
    return {name: sorted({*own.get(name, ()), *common.get(name, ())}) for name in (*own, *common)}


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a tree."""
    children: Any = ()
    if isinstance(node, dict):
        yield node
        children = (value for key, value in node.items() if key != "location")
    elif isinstance(node, list):
        children = node
    for child in children:
        yield from _nodes(child)


def _conditions(rule: Any) -> list[Any]:
    return [node["terms"] for node in _nodes(rule) if "terms" in node]


def _strings(tree: Any) -> set[str]:
    """The texts of a tree that are no step of a reference."""
    steps = {id(step) for node in _nodes(tree) if kind_of(node) == "ref" for step in node["value"]}
    return {node["value"] for node in _nodes(tree) if kind_of(node) == "string" and id(node) not in steps}


def _names(tree: Any) -> Iterator[str]:
    """Variables, and the steps of references, functions among them."""
    for node in _nodes(tree):
        steps = node["value"] if kind_of(node) == "ref" else [node] if kind_of(node) == "var" else []
        yield from (step["value"] for step in steps if kind_of(step) in ("string", "var"))


def _ask(draw: _Draw, connector: str, action: Action, words: Sequence[str]) -> dict[str, JsonValue]:
    args = _arguments(draw, action)
    kind = action.resource.type if action.resource else "service"
    properties: dict[str, JsonValue] = {
        "mode": action.mode,
        "risk": action.risk,
        "reversible": action.reversible,
        "idempotent": action.idempotent,
    }
    instance = draw.named("instance", (connector, f"{connector}-eu"))
    resource: dict[str, JsonValue] = {"connector": connector, "instance": instance}
    if draw.near.get("placement"):
        resource["placement"] = draw.named("placement", ("eu",))
    document = _frame(draw, words, {"name": action.name, "properties": properties})
    document["resource"] = {
        "type": kind,
        "id": draw.named("id", ("INC001", "1", "*", "x/y")),
        "properties": resource,
    }
    document["args"] = args
    context: dict[str, Any] = document["context"]  # type: ignore[assignment]
    query = draw.named("query", ("",))
    context["request"] = {"method": action.match.method, "path": action.match.path, "query": query, "protocol": "http"}
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
    document["resource"] = {
        "type": name.split(".")[1],
        "id": draw.named("id", ("a", "call-1")),
        "properties": properties,
    }
    document["args"] = {}
    return document


def _subject(draw: _Draw, words: Sequence[str]) -> dict[str, JsonValue]:
    roles: list[JsonValue] = [*sorted({draw.named("roles", words) for _ in range(draw.below(4))})]
    who: dict[str, JsonValue] = {
        "tenant": draw.named("tenant", ("acme", "globex")),
        "workspace": draw.named("workspace", ("it", "finance")),
        "environment": draw.environment(),
        "roles": roles,
        "amr": [draw.named("amr", ("pwd",))] if draw.maybe(80) else [],
    }
    for name, otherwise in (("on_behalf_of", "person-1"), ("acr", "phr"), ("autonomy", "AL1")):
        if draw.maybe(50 if draw.near.get(name) else 20):
            who[name] = draw.named(name, (otherwise,))
    kind = draw.named("type", ("agent", "person"))
    return {"type": kind, "id": draw.named("id", ("bot-1", "ann")), "properties": who}


def _frame(draw: _Draw, words: Sequence[str], action: dict[str, JsonValue]) -> dict[str, JsonValue]:
    minute = draw.below(1440)
    clock: dict[str, JsonValue] = {
        "unix": 1767225600 + 60 * minute, "weekday": draw.named("weekday", ("Monday", "Saturday")),
        "minute_of_day": minute, "zone": draw.one(("UTC", *filter(_ZONE.fullmatch, draw.near.get("zone", ())))),
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
        context["ticket"] = draw.named("ticket", ("CHG001",))
    return {"v": 1, "subject": _subject(draw, words), "action": action, "context": context}


def _arguments(draw: _Draw, action: Action) -> JsonValue:
    schema = action.arguments.schema_ or {"properties": {name: {} for name in action.arguments.parameters}}
    return _object(draw, schema, DEPTH_MAX)


def _object(draw: _Draw, schema: Mapping[str, Any], depth: int) -> dict[str, JsonValue]:
    required = set(schema.get("required", []))
    value: dict[str, JsonValue] = {}
    for name, part in sorted(schema.get("properties", {}).items()):
        wanted = draw.maybe(50) if draw.shape.optional is None else draw.shape.optional
        if name in required or wanted:
            value[name] = _value(draw, part if isinstance(part, dict) else {}, depth - 1)
    return value


def _value(draw: _Draw, schema: Mapping[str, Any], depth: int) -> JsonValue:
    options: Any = schema.get("enum") or ([schema["const"]] if "const" in schema else None)
    if options:
        chosen: JsonValue = draw.one(options)
        return chosen
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches and depth > 0:
        return _value(draw, draw.one(branches), depth - 1)
    named = schema.get("type", "string")
    kind = draw.one(named) if isinstance(named, list) and named else named
    if kind in ("object", "array"):
        return _container(draw, kind, schema, depth)
    if kind in ("integer", "number"):
        number = draw.one(_ODD_NUMBERS)
        return int(number) if kind == "integer" else number
    if kind == "boolean":
        return draw.maybe(50)
    if kind == "null":
        return None
    return draw.one(draw.texts or ["x"]) if draw.maybe(60) else draw.one(_ODD_TEXTS)


def _container(draw: _Draw, kind: str, schema: Mapping[str, Any], depth: int) -> JsonValue:
    if depth <= 0 or draw.shape.filled is False:
        return {} if kind == "object" else []
    if kind == "object":
        return _object(draw, schema, depth)
    items = schema.get("items")
    part = items if isinstance(items, dict) else {}
    return [_value(draw, part, depth - 1) for _ in range(draw.below(3))]
