"""Where a policy calculates with numbers that may have a fraction.

Guarantees: a call of ``+ - * / %``, ``sum`` or ``product`` that is not reported takes whole numbers alone (or, for
``-``, sets), as far as the syntax shows. Leaves to ``profile``: what a finding is.

**Security**: OPA adds fractions in binary, its Wasm in decimal. ``86.47 + 0.8`` is 87.270000000000000004 there and 87.27
here, so a deny on ``> 87.27`` holds in one engine and not in the other. Whole numbers come out alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Path = tuple[str, ...]

CALCULATING: Final = frozenset({"plus", "minus", "mul", "div", "rem", "sum", "product"})
DEPTH_MAX: Final = 64

_ROUNDING: Final = frozenset({"round"})
_WHOLE: Final = _ROUNDING | {
    *("count", "indexof", "semver.compare", "strings.count"),
    *("time.add_date", "time.parse_duration_ns", "time.parse_ns", "time.parse_rfc3339_ns"),
}
_WHOLE_LISTS: Final = frozenset(
    {"indexof_n", "numbers.range", "numbers.range_step", "time.clock", "time.date", "time.diff"}
)
_SELECTING: Final = frozenset({"max", "min", "abs"})
_LISTS: Final = frozenset({"sort", "array.concat", "array.slice", "array.reverse", "array.flatten"})
_SETS: Final = frozenset({"and", "or", "union", "intersection", "object.keys", "set"})
_COMPREHENSIONS: Final = frozenset({"arraycomprehension", "setcomprehension"})
_WHOLE_INPUT: Final = frozenset(
    {
        ("context", "clock", "unix"),
        ("context", "clock", "minute_of_day"),
        ("subject", "properties", "auth_time"),
    }
)


@dataclass(frozen=True, slots=True)
class _Rule:
    head: Mapping[str, Any]
    package: Path
    aliases: Mapping[str, Path]
    bound: Mapping[str, Sequence[tuple[str, Any]]]
    """Each variable's bindings: what it is (``is``), is an element of (``in``) or a key of (``key``)."""


class WholeNumbers:
    """All rules of the files that go into a bundle, and the data beside them."""

    def __init__(self, ast_by_file: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        self._data = data
        self._rules: dict[Path, list[_Rule]] = {}
        for tree in ast_by_file.values():
            package = package_of_tree(tree)
            aliases = aliases_of(tree)
            for raw in _chain(tree.get("rules") or []):
                rule = _Rule(raw.get("head", {}), package, aliases, _bindings(raw))
                self._rules.setdefault((*package, str(_name(rule.head))), []).append(rule)

    def fractions(self, raw: Mapping[str, Any], package: Path, aliases: Mapping[str, Path]) -> list[Any]:
        """The calculating calls of one rule that may meet a fraction: their nodes, as they stand in the tree."""
        scope = _Scope(self, _Rule(raw.get("head", {}), package, aliases, _bindings(raw)))
        return list(_reported(scope, {key: value for key, value in raw.items() if key != "else"}, rounded=False))

    def rules_at(self, path: Path) -> Sequence[_Rule]:
        """The rules, functions included, of this full name."""
        return self._rules.get(path, ())

    def data_at(self, path: Sequence[Any]) -> list[Any] | None:
        """The values in data that a path may mean, ``None`` standing for any step; nothing where there is none."""
        nodes: list[Any] = [self._data]
        for step in path:
            nodes = [child for node in nodes for child in _children(node, step)]
        return nodes or None


@dataclass(frozen=True, slots=True)
class _Scope:
    """One rule's view: what its names mean. ``seen`` ends circles."""

    all: WholeNumbers
    rule: _Rule
    seen: frozenset[Any] = field(default_factory=frozenset)

    def whole(self, term: Any) -> bool:
        """Whether a term is a whole number or no number at all."""
        kind = term.get("type") if isinstance(term, dict) else None
        if kind == "number":
            return isinstance(term["value"], int)
        if kind in ("string", "boolean", "null"):
            return True
        if kind == "call":
            return self._call(name_of(term["value"][0]), term["value"][1:])
        if kind == "var":
            return self._variable(term["value"], elements=False)
        return self._reference(term["value"], elements=False) if kind == "ref" else False

    def elements(self, term: Any) -> bool:
        """Whether every element of a term, at any depth, is whole."""
        kind = term.get("type") if isinstance(term, dict) else None
        if kind in ("array", "set"):
            return all(self.whole(item) or self.elements(item) for item in term["value"])
        if kind == "object":
            return all(self.whole(value) or self.elements(value) for _, value in term["value"])
        if kind in _COMPREHENSIONS:
            return self.whole(term["value"]["term"])
        if kind == "call":
            name = name_of(term["value"][0])
            if name in _WHOLE_LISTS:
                return True
            if name in _LISTS or name in ("and", "or", "minus", "union"):
                return all(self.whole(item) or self.elements(item) for item in term["value"][1:])
            return False
        if kind == "var":
            return self._variable(term["value"], elements=True)
        return self._reference(term["value"], elements=True) if kind == "ref" else False

    def is_set(self, term: Any) -> bool:
        """Whether a term is a set, for certain."""
        kind = term.get("type") if isinstance(term, dict) else None
        if kind == "call":
            name, arguments = name_of(term["value"][0]), term["value"][1:]
            return name in _SETS or (name == "minus" and any(map(self.is_set, arguments)))
        if kind == "var":
            bound = self.rule.bound.get(term["value"])
            if bound:
                return self._entered(("set", term["value"]), lambda inner: all(
                    how == "is" and inner.is_set(value) for how, value in bound
                ))  # fmt: skip
        if kind in ("var", "ref"):
            rules = self._named(term)
            return bool(rules) and all("value" not in rule.head and "key" in rule.head for rule in rules)
        return kind in ("set", "setcomprehension")

    def _call(self, name: str, arguments: Sequence[Any]) -> bool:
        if name in _WHOLE:
            return True
        if name in ("plus", "minus", "mul", "rem", "abs"):
            return all(map(self.whole, arguments))
        if name in ("sum", "product", "max", "min"):
            return all(map(self.elements, arguments))
        return self._all_rules(self._resolved(name.split(".")), elements=False)

    def _variable(self, name: str, *, elements: bool) -> bool:
        bound = self.rule.bound.get(name)
        if not bound:
            return self._all_rules(self._resolved([name]), elements=elements)
        return self._entered(
            (name, elements), lambda inner: all(inner._binding(how, value, elements) for how, value in bound)
        )

    def _binding(self, how: str, value: Any, elements: bool) -> bool:
        if how == "in":
            return self.elements(value)
        if how == "key":  # of an object of ours a text, of a list its index; a set's keys are its elements
            return _begins(value, "input") or self.elements(value)
        return self.elements(value) if elements else self.whole(value)

    def _reference(self, path: Sequence[Any], *, elements: bool) -> bool:
        head = path[0]
        if head.get("type") != "var":
            return False
        name, steps = head["value"], [part.get("value") if _is_text(part) else None for part in path[1:]]
        if name == "input":
            return tuple(steps) in _WHOLE_INPUT
        if name in self.rule.bound:
            return self._variable(name, elements=True)
        full = self._resolved([name])
        for end in range(len(steps) + 1):
            literal = [step for step in steps[:end] if step is not None]
            if len(literal) == end and self.all.rules_at((*full, *literal)):
                return self._all_rules((*full, *literal), elements=elements or end < len(steps))
        if name != "data" and name not in self.rule.aliases:
            return False
        found = self.all.data_at([*full, *steps])
        return found is not None and all(_whole_leaves(node) for node in found)

    def _all_rules(self, full: Path, *, elements: bool) -> bool:
        rules = self.all.rules_at(full)
        return bool(rules) and self._entered(
            (full, elements), lambda inner: all(inner._of(rule)._head(elements) for rule in rules)
        )

    def _head(self, elements: bool) -> bool:
        head = self.rule.head
        if "value" not in head:
            return "key" in head and self.elements({"type": "set", "value": [head["key"]]})
        return self.elements(head["value"]) or self.whole(head["value"]) if elements else self.whole(head["value"])

    def _named(self, term: Any) -> Sequence[_Rule]:
        path = [term] if term["type"] == "var" else term["value"]
        names = [part.get("value") for part in path if part.get("type") in ("var", "string")]
        return self.all.rules_at(self._resolved(names)) if len(names) == len(path) else ()

    def _resolved(self, names: Sequence[str]) -> Path:
        """The full path of a name as it is written in this rule."""
        if names[0] == "data":
            return tuple(names[1:])
        if names[0] in self.rule.aliases:
            return (*self.rule.aliases[names[0]], *names[1:])
        return (*self.rule.package, *names)

    def _of(self, rule: _Rule) -> _Scope:
        return _Scope(self.all, rule, self.seen)

    def _entered(self, what: Any, asked: Any) -> bool:
        key = (id(self.rule), what)
        if key in self.seen or len(self.seen) >= DEPTH_MAX:
            return False
        return bool(asked(_Scope(self.all, self.rule, self.seen | {key})))


def aliases_of(tree: Mapping[str, Any]) -> dict[str, Path]:
    """What each imported name of a file stands for, below ``data``."""
    aliases: dict[str, Path] = {}
    for item in tree.get("imports") or []:
        path = [str(part.get("value")) for part in item["path"]["value"]]
        if path[0] == "data":
            aliases[item.get("alias") or path[-1]] = tuple(path[1:])
    return aliases


def package_of_tree(tree: Mapping[str, Any]) -> Path:
    """The package a file declares, below ``data``."""
    return tuple(str(part.get("value")) for part in tree["package"]["path"][1:])


def name_of(node: Any) -> str:
    """The dotted name of a call's operation."""
    parts = node["value"] if node.get("type") == "ref" else [node]
    return ".".join(str(part.get("value")) for part in parts)


def _reported(scope: _Scope, node: Any, *, rounded: bool) -> Iterator[Any]:
    if isinstance(node, list):
        for item in node:
            yield from _reported(scope, item, rounded=False)
    elif isinstance(node, dict):
        terms = node.get("terms") if isinstance(node.get("terms"), list) else None
        if terms is None and node.get("type") == "call":
            terms = node["value"]
        name = name_of(terms[0]) if terms else ""
        if name in CALCULATING and not _fits(scope, name, terms[1:] if terms else (), rounded=rounded):
            yield node
        for key, value in node.items():
            if key == "location":
                continue
            if key in ("terms", "value") and value is terms:
                for item in terms or ():
                    yield from _reported(scope, item, rounded=name in _ROUNDING)
            else:
                yield from _reported(scope, value, rounded=False)


def _fits(scope: _Scope, name: str, arguments: Sequence[Any], *, rounded: bool) -> bool:
    if name in ("sum", "product"):
        return all(map(scope.elements, arguments))
    if name == "minus" and any(map(scope.is_set, arguments)):
        return True
    if name == "div" and not rounded:
        return False  # what it gives has a fraction, of 20 digits there and 18 here
    return all(map(scope.whole, arguments[:2]))


def _bindings(raw: Mapping[str, Any]) -> dict[str, list[tuple[str, Any]]]:
    bound: dict[str, list[tuple[str, Any]]] = {}
    for argument in raw.get("head", {}).get("args") or []:
        for name in _variables(argument):
            bound.setdefault(name, []).append(("is", None))
    _collect({key: value for key, value in raw.items() if key != "else"}, bound)
    return bound


def _collect(node: Any, bound: dict[str, list[tuple[str, Any]]]) -> None:
    if isinstance(node, list):
        for item in node:
            _collect(item, bound)
        return
    if not isinstance(node, dict):
        return
    terms = node.get("terms")
    if isinstance(terms, list) and name_of(terms[0]) in ("assign", "eq") and len(terms) == 3:
        for left, right in ((terms[1], terms[2]), (terms[2], terms[1])):
            if left.get("type") == "var":
                bound.setdefault(left["value"], []).append(("is", right))
            elif left.get("type") in ("array", "object"):
                for name in _variables(left):
                    bound.setdefault(name, []).append(("is", None))
            if name_of(terms[0]) == "assign":
                break
    for symbol in node.get("symbols") or []:
        _collect_some(symbol, bound)
    if "domain" in node:
        for part, how in (("key", "key"), ("value", "in")):
            if node.get(part):
                for name in _variables(node[part]):
                    bound.setdefault(name, []).append((how, node["domain"]))
    for key, value in node.items():
        if key != "location":
            _collect(value, bound)


def _collect_some(symbol: Any, bound: dict[str, list[tuple[str, Any]]]) -> None:
    if symbol.get("type") != "call":
        for name in _variables(symbol):
            bound.setdefault(name, []).append(("is", None))  # bound somewhere below, who knows to what
        return
    *members, domain = symbol["value"][1:]
    for position, member in enumerate(members):
        how = "key" if len(members) == 2 and position == 0 else "in"
        for name in _variables(member):
            bound.setdefault(name, []).append((how, domain))


def _variables(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _variables(item)
    elif node.get("type") == "var":
        yield node["value"]
    elif isinstance(node.get("value"), list):
        yield from _variables(node["value"])


def _chain(rules: Sequence[Any]) -> Iterator[Any]:
    for rule in rules:
        current: Any = rule
        while isinstance(current, dict):
            yield current
            current = current.get("else")


def _name(head: Mapping[str, Any]) -> Any:
    path = head.get("ref")
    return path[0].get("value") if path else head.get("name")


def _begins(term: Any, name: str) -> bool:
    return isinstance(term, dict) and term.get("type") == "ref" and term["value"][0].get("value") == name


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in ("string", "number")


def _children(node: Any, step: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values()) if step is None else [node[step]] if step in node else []
    if isinstance(node, list):
        if step is None:
            return list(node)
        return [node[step]] if isinstance(step, int) and 0 <= step < len(node) else []
    return []


def _whole_leaves(node: Any) -> bool:
    if isinstance(node, dict):
        return all(map(_whole_leaves, node.values()))
    if isinstance(node, list):
        return all(map(_whole_leaves, node))
    return not isinstance(node, float) or node.is_integer()
