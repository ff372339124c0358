"""OPA's own evaluation cases, as values: a query, modules, data, input, and what the query must give.

They are read from the pinned Go module. A case is asked through one rule, because that is how every bundle is asked:
the rule collects all bindings that the query has, and says which values in them are sets, because a set has no order.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bundles.canonical import JsonValue
from tools.opa.cases import cases_dir

ASKING = "asking.rego"


@dataclass(frozen=True, slots=True)
class Case:
    """One case. ``input_document`` is None where the case has no input that is JSON."""

    family: str
    note: str
    query: str
    modules: tuple[str, ...]
    data: dict[str, Any]
    input_document: JsonValue
    has_input: bool
    bindings: tuple[dict[str, Any], ...] | None
    wants_error: bool
    only_strict: bool
    sorts_bindings: bool

    @property
    def files(self) -> dict[str, bytes]:
        """The case's modules, and the one that asks."""
        named = {f"case{number}.rego": text.encode() for number, text in enumerate(self.modules)}
        return {**named, ASKING: self.asking("decision").encode()}

    @property
    def reads_whole_input(self) -> bool:
        """Whether the input is an object, as every input here is."""
        return not self.has_input or isinstance(self.input_document, dict)

    def asking(self, rule: str) -> str:
        """The module that asks: its ``rule`` is a list of the query's bindings, each with the paths of its sets."""
        names = sorted({name for binding in self.bindings or () for name in binding if name.isidentifier()})
        if not names and re.search(r"= ?x$|, x\)$", self.query.strip()):
            names = ["x"]
        binding = "{" + ", ".join(f'"{name}": {name}' for name in names) + "}"
        return (
            "package tidegate\n\n"
            f"{rule} := [answer |\n"
            f"\t{self.query.strip()}\n"
            f"\tbinding := {binding}\n"
            "\tsets := [path | walk(binding, [path, value]); is_set(value)]\n"
            '\tanswer := {"binding": binding, "sets": sets}\n'
            "]\n"
        )


@cache
def all_cases() -> tuple[Case, ...]:
    """Every case, in the order of its files."""
    root = cases_dir()
    found = []
    for path in sorted(root.rglob("*.yaml")):
        family = path.relative_to(root).parts[0]
        for entry in _load(path)["cases"]:
            found.append(_case(family, entry))
    return tuple(found)


def _case(family: str, entry: dict[str, Any]) -> Case:
    given: JsonValue = entry.get("input")
    has_input = "input" in entry or "input_term" in entry
    if "input_term" in entry:
        try:
            given = json.loads(entry["input_term"])
        except ValueError:
            given = None  # a term that is no JSON, as a set
    wants_error = bool(entry.get("want_error") or entry.get("want_error_code"))
    wanted = entry.get("want_result")
    return Case(
        family=family,
        note=entry["note"],
        query=entry["query"],
        modules=tuple(entry.get("modules") or ()),
        data=entry.get("data") or {},
        input_document=given,
        has_input=has_input,
        bindings=None if wanted is None else tuple(wanted),
        wants_error=wants_error,
        only_strict=bool(entry.get("strict_error")),
        sorts_bindings=bool(entry.get("sort_bindings")),
    )


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # C where it was built
    """YAML as Go reads it: no dates, and numbers with an exponent but no point are numbers."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _load(path: Path) -> dict[str, Any]:
    document = _named(yaml.load(path.read_bytes(), _Loader))
    if not isinstance(document, dict):
        raise TypeError(f"{path} is no mapping")
    return document


def _named(value: Any) -> Any:
    """The same with every key a text, as JSON has it."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else json.dumps(key): _named(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_named(item) for item in value]
    return value
