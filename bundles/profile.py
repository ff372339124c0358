"""The profile: what Rego and data may look like for OPA's Wasm to answer exactly as OPA does.

Guarantees: a bundle without error findings uses none of the constructs that were measured to differ between OPA's two
engines and that a capabilities file cannot express. Leaves to OPA: builtins (``rego/capabilities.json``), and to the
build's agreement check: proof on real inputs.
**Source**: OPA issues 3711 and 6304, and runs of OPA's own cases through both engines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bundles.canonical import JsonValue, SpelledNumber
from bundles.profile_calls import Severity, call_findings, kind_of
from bundles.profile_intent import READ_BY_NAME, RESTRICTING, intent_findings, names_read, tested_helpers
from bundles.syntax_tree import call_of, dotted, row_of, rules_of, walk, words_of
from bundles.whole_numbers import WholeNumbers, aliases_of, package_of_tree

PROFILE: Final = "1"
FINDINGS_MAX: Final = 200
NODES_MAX: Final = 1000

_NUMBER_KEY = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_PLAIN_FRACTION = re.compile(r"-?[0-9]+\.[0-9]*[1-9][0-9]*")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMPARISONS: Final = frozenset({"equal", "neq", "lt", "lte", "gt", "gte"})
_CONSEQUENTIAL: Final = READ_BY_NAME - {"allow"}
_UNCACHED: Final = frozenset({"time", "clock", "facts", "budget", "call"})
_UNSTEADY_CALLS: Final = frozenset(
    {"time.now_ns", "rand.intn", "uuid.rfc4122", "http.send", "opa.runtime", "net.lookup_ip_addr"}
)

_FRACTION: Final = (
    "OPA calculates fractions in binary and the module in decimal, so they may differ: calculate with whole numbers, "
    "as counts, literals, sums of hundredths or round(x), and divide inside round"
)
_SPELLING: Final = (
    "is found in lists and objects by OPA and not by the module: write a whole number without a point, and no exponent"
)
_HARMLESS: Final = frozenset({"declared", "data_index", "compared", "used"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the profile forbids (error) or advises against (warning), with its place."""

    file: str
    row: int
    code: str
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        return f"{self.file}:{self.row}: {self.code}: {self.message}"


def lint(ast_by_file: Mapping[str, JsonValue], data: Mapping[str, JsonValue]) -> list[Finding]:
    """Findings over the syntax trees of the files that go into a bundle (no tests).

    **Security**: errors come before warnings, so that no number of warnings pushes an error over the limit.
    """
    findings: list[Finding] = []
    numbers = WholeNumbers({file: tree for file, tree in ast_by_file.items() if isinstance(tree, dict)}, data)
    for file in sorted(ast_by_file):
        tree = ast_by_file[file]
        if not isinstance(tree, dict):
            continue
        findings += _lint_package(file, tree)
        aliases = aliases_of(tree)
        package = package_of_tree(tree)
        tested, read = tested_helpers(tree, aliases), names_read(tree)
        for rule in rules_of(tree):
            findings += _lint_head(file, rule)
            findings += _lint_intent(file, rule, aliases, tested, read)
            findings += _lint_rule(file, rule, aliases, data)
            for call in numbers.fractions(rule, package, aliases):
                findings.append(Finding(file, row_of(call, row_of(rule, 1)), "fraction_calculated", _FRACTION))
    return sorted(findings, key=lambda finding: finding.severity != "error")[:FINDINGS_MAX]


def lint_tests(ast_by_file: Mapping[str, JsonValue]) -> list[Finding]:
    """Findings over the syntax trees of the policies' tests.

    **Security**: a deny in a `*_test.rego` holds in the tests, which pass, and is missing from the bundle.
    """
    findings: list[Finding] = []
    for file in sorted(ast_by_file):
        tree = ast_by_file[file]
        if not isinstance(tree, dict):
            continue
        for rule in rules_of(tree):
            name = rule["head"]["ref"][0]["value"]
            if name in READ_BY_NAME:
                message = f"tests are left out of the bundle; write `{name}` in a file that is not named *_test.rego"
                findings.append(Finding(file, row_of(rule, 1), "rule_in_test", message))
    return findings[:FINDINGS_MAX]


def check_data_shapes(data: Mapping[str, JsonValue]) -> list[Finding]:
    """Findings for object keys that read as numbers, which OPA's store and Wasm look up differently."""
    findings: list[Finding] = []
    pending: list[tuple[str, JsonValue]] = [("", dict(data))]
    while pending and len(findings) < FINDINGS_MAX:
        pointer, node = pending.pop()
        if isinstance(node, dict):
            for key, item in node.items():
                here = f"{pointer}/{key}"
                if _NUMBER_KEY.fullmatch(key):
                    findings.append(Finding("data", 0, "numeric_key", f"{here}: a key that reads as a number"))
                pending.append((here, item))
        elif isinstance(node, list):
            pending += [(f"{pointer}/{index}", item) for index, item in enumerate(node)]
    return findings[:FINDINGS_MAX]


def is_cacheable(ast_by_file: Mapping[str, JsonValue]) -> bool:
    """Whether no file reads a clock, a fact or anything else that changes between two equal questions.

    Anything but a literal path below ``input.context`` counts as reading all of it. The library may read a clock in
    rules that no policy uses: a policy that names one of them, or might, reads it too. An approval is part of the
    question, so reading it changes nothing.
    """
    library = {file: tree for file, tree in ast_by_file.items() if file.startswith("lib/")}
    unsteady = _unsteady_names(library.values())
    if "decision" in unsteady:
        return False
    policies = (tree for file, tree in ast_by_file.items() if file not in library)
    return all(_is_steady(tree) and not _may_name(tree, unsteady) for tree in policies)


def _unsteady_names(library: Iterable[JsonValue]) -> frozenset[str]:
    """The library's rules that read what changes, themselves or through another rule."""
    mentioned: dict[str, set[str]] = {}
    unsteady: set[str] = set()
    for tree in library:
        for rule in rules_of(tree) if isinstance(tree, dict) else ():
            name = str(rule["head"]["ref"][0]["value"])
            mentioned.setdefault(name, set()).update(words_of(rule))
            if not _is_steady(rule):
                unsteady.add(name)
    while more := {name for name, words in mentioned.items() if name not in unsteady and words & unsteady}:
        unsteady |= more
    return frozenset(unsteady)


def _is_steady(tree: JsonValue) -> bool:
    for node, _ in walk(tree, 0):
        called = call_of(node)
        if called is not None and called[0] in _UNSTEADY_CALLS:
            return False
        if kind_of(node) == "ref" and _is_var(node["value"][0], "input") and not _reads_only_steady(node["value"][1:]):
            return False
    return True


def _may_name(tree: JsonValue, unsteady: frozenset[str]) -> bool:
    """Whether a policy names one of these rules of the library, or a rule that only a run can tell."""
    if not unsteady or not isinstance(tree, dict):
        return False
    aliases = {"data": 0} | _library_aliases(tree)
    for rule in rules_of(tree):
        if words_of(rule) & unsteady:
            return True
        nodes = [node for node, _ in walk(rule, 0)]
        references = [node["value"] for node in nodes if kind_of(node) == "ref"]
        if any(_may_reach(path, aliases) for path in references):
            return True
        roots = {id(path[0]) for path in references}
        if any(kind_of(node) == "var" and node["value"] in aliases and id(node) not in roots for node in nodes):
            return True  # handed on whole, under a name of its own
    return bool(words_of(tree.get("imports", [])) & unsteady)


def _library_aliases(tree: Mapping[str, Any]) -> dict[str, int]:
    """Names under which a file imports all data or the library, with how far into `data.tidegate` each is."""
    found: dict[str, int] = {}
    for entry in tree.get("imports", []):
        path = [part.get("value") for part in entry.get("path", {}).get("value", [])]
        if path == ["data"] or path == ["data", "tidegate"]:
            found[str(entry.get("alias") or path[-1])] = len(path) - 1
    return found


def _may_reach(path: Sequence[Any], aliases: Mapping[str, int]) -> bool:
    """Whether a reference leads into the library without saying where to."""
    depth = aliases.get(path[0]["value"]) if kind_of(path[0]) == "var" else None
    if depth is None:
        return False
    steps = [step["value"] if kind_of(step) == "string" else None for step in path[1:]]
    if depth == 0:
        if not steps or steps[0] is None:
            return True
        if steps[0] != "tidegate":
            return False
        steps = steps[1:]
    return not steps or steps[0] is None


def string_literals(ast_by_file: Mapping[str, JsonValue]) -> list[str]:
    """Every string a policy compares with or mentions, sorted: what generated inputs should try."""
    found: set[str] = set()
    for tree in ast_by_file.values():
        for node, _ in walk(tree, 0):
            if kind_of(node) == "string" and isinstance(node.get("value"), str):
                found.add(node["value"])
    return sorted(found)


def _reads_only_steady(operands: Sequence[Any]) -> bool:
    if not operands or kind_of(operands[0]) != "string":
        return False
    if operands[0]["value"] != "context":
        return True
    return len(operands) > 1 and kind_of(operands[1]) == "string" and operands[1]["value"] not in _UNCACHED


def _lint_package(file: str, tree: Mapping[str, Any]) -> Iterator[Finding]:
    """**Security**: a policy that declared the library's package could redefine what a decision is, and what stands
    below a policy's package is never read by the library, so that a deny there would not deny.
    """
    package = tree.get("package", {})
    path = [str(part.get("value")) for part in package.get("path", [])][1:]
    row = row_of(package, 1)
    folder = file.split("/")
    expected = ["tidegate"] if folder[0] == "lib" else folder[:2]
    if path[: len(expected)] != expected:
        message = f"package {_path_text(path)} does not belong in {'/'.join(folder[:-1])}"
        yield Finding(file, row, "package_misplaced", message)
    elif folder[0] != "lib" and len(path) > len(expected):
        message = (
            f"the rules of package {_path_text(path)} are never read, so a deny there denies nothing;"
            f" write `package {_path_text(expected)}`"
        )
        yield Finding(file, row, "package_nested", message)


def _path_text(path: Sequence[str]) -> str:
    """A package's path as Rego writes it."""
    rest = (f".{part}" if _IDENTIFIER.fullmatch(part) else f"[{json.dumps(part)}]" for part in path[1:])
    return "".join([*path[:1], *rest])


def _lint_head(file: str, rule: Mapping[str, Any]) -> Iterator[Finding]:
    """**Security**: `x.deny contains …` stands where a nested package's deny would, and nobody reads it either."""
    head = rule.get("head", {})
    names = [part.get("value") for part in head.get("ref", []) if kind_of(part) in ("var", "string")]
    if file.startswith("lib/") or "value" in head or _CONSEQUENTIAL.isdisjoint(names[1:]) or names[0] in _CONSEQUENTIAL:
        return
    message = f"a rule below {names[0]} is never read; write `{min(_CONSEQUENTIAL & set(names))} contains …`"
    yield Finding(file, row_of(rule, 1), "rule_nested", message)


def _lint_intent(
    file: str,
    rule: Mapping[str, Any],
    aliases: Mapping[str, tuple[str, ...]],
    tested: frozenset[tuple[str, str]],
    read: frozenset[str],
) -> Iterator[Finding]:
    if not file.startswith("lib/"):
        for code, message, severity in intent_findings(rule, aliases, tested, read):
            yield Finding(file, row_of(rule.get("head", {}), row_of(rule, 1)), code, message, severity)


def _lint_rule(
    file: str, rule: dict[str, Any], aliases: Mapping[str, tuple[str, ...]], data: Mapping[str, JsonValue]
) -> Iterator[Finding]:
    uses = _Uses(aliases)
    own = {key: value for key, value in rule.items() if key != "else"}
    uses.collect(own)
    name = str(rule.get("head", {}).get("name", ""))
    for node, row in walk(own, row_of(rule, 1)):
        if "with" in node and isinstance(node["with"], list):
            yield Finding(file, row, "with_outside_test", "`with` belongs in tests only")
        if kind_of(node) == "ref":
            yield from _lint_reference(file, row, node["value"], uses, data)
        if kind_of(node) == "number" and not _is_spelled_plainly(node["value"]):
            yield Finding(file, row, "number_spelling", f"{node['value'].spelling} {_SPELLING}")
        call = call_of(node)
        if call is not None:
            for code, message, severity in call_findings(call[0], call[1], restricting=name in RESTRICTING):
                yield Finding(file, row, code, message, severity)


def _is_spelled_plainly(number: Any) -> bool:
    """The module takes ``1.0`` for no index and reads ``15e-1`` as a float beside 1.5."""
    return not isinstance(number, SpelledNumber) or _PLAIN_FRACTION.fullmatch(number.spelling) is not None


def _lint_reference(
    file: str, row: int, path: Sequence[Any], uses: _Uses, data: Mapping[str, JsonValue]
) -> Iterator[Finding]:
    """opa#3711: OPA's store turns a string into a list index and a number into a key; Wasm does neither."""
    prefix = uses.data_path(path[0])
    if prefix is None:
        return
    nodes: list[JsonValue] = [dict(data)]
    for part in prefix:
        nodes = _step(nodes, part)
    for operand in path[1:]:
        if any(isinstance(node, list) for node in nodes) and not uses.is_index(operand):
            yield Finding(
                file, row, "list_index", "a list in data is indexed only by a literal or an iteration variable"
            )
            return
        kind = kind_of(operand)
        literal = kind in ("string", "number")
        nodes = _step(nodes, operand["value"]) if literal else _children(nodes)


def _step(nodes: Sequence[JsonValue], key: Any) -> list[JsonValue]:
    found: list[JsonValue] = []
    for node in nodes:
        if isinstance(node, dict) and isinstance(key, str) and key in node:
            found.append(node[key])
        elif isinstance(node, list) and isinstance(key, int) and 0 <= key < len(node):
            found.append(node[key])
    return found


def _children(nodes: Sequence[JsonValue]) -> list[JsonValue]:
    """What lies one level below; lists stay first so that a cut keeps them."""
    found: list[JsonValue] = []
    for node in nodes:
        found += list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    found.sort(key=lambda child: not isinstance(child, list))
    return found[:NODES_MAX]


class _Uses:
    """How each variable of one rule is used; one that may be bound from elsewhere is no iteration variable."""

    def __init__(self, aliases: Mapping[str, tuple[str, ...]]) -> None:
        self._aliases = aliases
        self._seen: dict[str, set[str]] = {}

    def data_path(self, head: Any) -> tuple[str, ...] | None:
        """The path in data a reference begins with, or None when it begins elsewhere."""
        if kind_of(head) != "var":
            return None
        return () if head["value"] == "data" else self._aliases.get(head["value"])

    def is_index(self, operand: Any) -> bool:
        """Whether an operand can only be a number that counts through a list."""
        kind = kind_of(operand)
        if kind == "number":
            return True
        if kind != "var":
            return False
        name = operand["value"]
        return name.startswith("$") or self._seen.get(name, {"bound"}) <= _HARMLESS

    def collect(self, node: Any, use: str = "used") -> None:
        """Note every variable below ``node``, whose own direct use is ``use``."""
        if isinstance(node, list):
            for item in node:
                self.collect(item)
        elif not isinstance(node, dict):
            return
        elif kind_of(node) == "var":
            self._seen.setdefault(node["value"], set()).add(use)
        elif kind_of(node) == "ref":
            self._collect_reference(node["value"])
        elif kind_of(node) in ("array", "object", "set"):
            self._collect_literal(node["value"], use)
        elif isinstance(node.get("terms"), list):
            self._collect_call(node["terms"])
            self.collect([value for key, value in node.items() if key not in ("terms", "location")])
        elif "symbols" in node:
            self._collect_symbols(node["symbols"])
        elif "domain" in node:
            iterates = "declared" if self._is_data(node["domain"]) else "bound"
            self.collect(node["key"], iterates)
            self.collect(node["value"], "bound")
            self.collect([node["domain"], node["body"]])
        else:
            for key, value in node.items():
                if key == "args":
                    for argument in value if isinstance(value, list) else [value]:
                        self.collect(argument, "bound")
                elif key != "location":
                    self.collect(value, use if key in ("value", "terms") else "used")

    def _is_data(self, node: Any) -> bool:
        return kind_of(node) == "ref" and self.data_path(node["value"][0]) is not None

    def _collect_reference(self, path: Sequence[Any]) -> None:
        use = "data_index" if self.data_path(path[0]) is not None else "bound"
        self.collect(path[0])
        for operand in path[1:]:
            self.collect(operand, use)

    def _collect_literal(self, value: Any, use: str) -> None:
        for item in value:
            for part in item if isinstance(item, list) else [item]:
                self.collect(part, use)

    def _collect_call(self, terms: Sequence[Any]) -> None:
        operation = dotted(terms[0])
        self.collect(terms[0])
        for position, argument in enumerate(terms[1:]):
            if operation in _COMPARISONS:
                self.collect(argument, "compared")
            elif operation == "assign" and position == 1:
                self.collect(argument, "used")
            else:
                self.collect(argument, "bound")

    def _collect_symbols(self, symbols: Sequence[Any]) -> None:
        for symbol in symbols:
            if kind_of(symbol) != "call":
                self.collect(symbol, "declared")
                continue
            members = symbol["value"][1:]
            self.collect(members[-1])
            if len(members) == 3:
                self.collect(members[0], "declared" if self._is_data(members[-1]) else "bound")
            self.collect(members[-2], "bound")


def _is_var(node: Any, name: str) -> bool:
    return kind_of(node) == "var" and node["value"] == name
