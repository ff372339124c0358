"""OPA's own trace of one evaluation, read for people: which rules held, and where the others stopped.

Guarantees: every rule of a policy package that was tried comes out once, held or with the first condition that did not
hold, its file, line and text, and the conditions below that one which made it fail. Anything in the trace that is not of
the known form is refused, never guessed. Leaves running OPA to ``pdp.explain``.

**Source**: OPA ``v1/topdown/trace.go`` (events ``Enter``, ``Eval``, ``Fail``, ``Exit``, ``Redo``; one query id for each
evaluation of a body; expressions carry their index in it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bundles.content import package_of
from bundles.errors import BundleRefused
from pdp.errors import PdpError

RULE_NAMES: Final = frozenset({"allow", "deny", "require_step_up", "require_hitl", "throttle", "route", "redact"})
CAUSES_DEPTH_MAX: Final = 8
TEXT_MAX_CHARACTERS: Final = 240


class TraceMalformed(PdpError):
    """What OPA printed is not a trace as this version knows it."""

    code = "trace_malformed"


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that did not hold: where it stands, and which one inside the rule it asks made it fail."""

    file: str
    line: int
    column: int
    text: str
    because: Condition | None = None


@dataclass(frozen=True, slots=True)
class TracedRule:
    """One rule as it went: ``passed`` of ``conditions`` held before ``failing``, which is None when it held."""

    rule: str
    file: str
    line: int
    held: bool
    passed: int
    conditions: int
    failing: Condition | None


@dataclass(slots=True)
class _Query:
    """One evaluation of one rule's body, gathered while the events go by."""

    name: str
    file: str
    line: int
    written: tuple[int, ...]
    parent: int
    parent_index: int
    held: bool = False
    index: int = 0
    failed: tuple[int, int, int] | None = None
    children: list[_Query] = field(default_factory=list)


class Trace:
    """Takes a trace event by event, so that a long one need not be held."""

    def __init__(self, rego: Mapping[str, bytes]) -> None:
        """``rego`` are the files that were evaluated, under the names OPA saw; raises ``TraceMalformed``."""
        self._packages = _packages(rego)
        self._lines = {name: raw.decode("utf-8", "replace").splitlines() for name, raw in rego.items()}
        self._queries: dict[int, _Query] = {}

    def take(self, event: object) -> None:
        """One event, in its order; raises ``TraceMalformed``."""
        _take(event, self._queries)

    def rules(self) -> tuple[TracedRule, ...]:
        """The policy rules of what was taken, by file and line."""
        found: dict[tuple[str, int], TracedRule] = {}
        for query in self._queries.values():
            package = self._packages.get(query.file, ())
            if len(package) != 2 or package[0] != "policies" or query.name not in RULE_NAMES:
                continue
            traced = _traced(query, ".".join((*package, query.name)), self._lines)
            earlier = found.get((query.file, query.line))
            if earlier is None or (traced.held, traced.passed) > (earlier.held, earlier.passed):
                found[query.file, query.line] = traced
        return tuple(found[place] for place in sorted(found))


class ReportLines:
    """Reads what ``opa eval --format=json`` prints, line by line; hands each event on and keeps only the rest.

    OPA indents by two: a line of four spaces and a brace begins or ends an event, for no string in JSON has a line end
    in it. A report that is written otherwise is kept whole and read at the end.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._rest: list[bytes] = []
        self._event: list[bytes] = []
        self._inside = False

    def take(self, line: bytes) -> None:
        """One line with its end; raises ``TraceMalformed``."""
        text = line.rstrip()
        if not self._inside:
            self._rest.append(line)
            self._inside = text == b'  "explanation": ['
        elif text in (b"    }", b"    },"):
            self._event.append(b"}")
            self._trace.take(_parsed(b"".join(self._event)))
            self._event = []
        elif text in (b"  ]", b"  ],"):
            if self._event:
                raise TraceMalformed("an event is not an object")
            self._rest.append(line)
            self._inside = False
        else:
            self._event.append(line)

    def finish(self) -> dict[str, Any]:
        """The report, its events handed on and gone; raises ``TraceMalformed``."""
        report = _parsed(b"".join(self._rest))
        if self._inside or not isinstance(report, dict):
            raise TraceMalformed("the report is not an object, or is cut")
        for event in _listed(report.pop("explanation", None)) if not report.get("errors") else ():
            self._trace.take(event)
        return report


def _parsed(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as failed:
        raise TraceMalformed("opa eval printed no JSON") from failed


def _listed(events: object) -> list[object]:
    if not isinstance(events, list):
        raise TraceMalformed("the explanation is not a list")
    return events


def _packages(rego: Mapping[str, bytes]) -> dict[str, tuple[str, ...]]:
    try:
        return {name: package_of(name, raw) for name, raw in rego.items()}
    except BundleRefused as refused:
        raise TraceMalformed(refused.detail) from refused


def _take(event: object, queries: dict[int, _Query]) -> None:
    """Let one event change what is known of its query."""
    if not isinstance(event, dict):
        raise TraceMalformed("an event is not an object")
    kind, number, node = event.get("Op"), event.get("QueryID"), event.get("Node")
    if not isinstance(kind, str) or not isinstance(number, int):
        raise TraceMalformed("an event has no kind or no query")
    if kind == "Enter" and isinstance(node, dict) and isinstance(node.get("head"), dict):
        if number not in queries:
            queries[number] = _entered(event, node, queries)
        return
    query = queries.get(number)
    if query is None or not isinstance(node, dict):
        return
    if kind == "Exit" and "head" in node:
        query.held = True
    elif kind in ("Eval", "Fail") and isinstance(node.get("index"), int):
        query.index = node["index"]
        if kind == "Fail" and (query.failed is None or query.index > query.failed[0]):
            _, line, column = _place(event)
            query.failed = (query.index, line, column)


def _entered(event: dict[str, Any], node: dict[str, Any], queries: Mapping[int, _Query]) -> _Query:
    file, line, _ = _place(event)
    body, parent = node.get("body"), event.get("ParentID")
    if not isinstance(body, list) or not isinstance(parent, int):
        raise TraceMalformed("a rule has no body or no parent")
    written = tuple(
        expression["index"]
        for expression in body
        if isinstance(expression, dict) and isinstance(expression.get("index"), int) and not expression.get("generated")
    )
    above = queries.get(parent)
    query = _Query(_name(node["head"]), file, line, written, parent, above.index if above is not None else 0)
    if above is not None:
        above.children.append(query)
    return query


def _name(head: Mapping[str, Any]) -> str:
    """A rule's name; one that is written as a reference has it in the reference's first term."""
    name, terms = head.get("name"), head.get("ref")
    if not name and isinstance(terms, list) and terms and isinstance(terms[0], dict):
        name = terms[0].get("value")
    if not isinstance(name, str):
        raise TraceMalformed("a rule has no name")
    return name


def _place(event: Mapping[str, Any]) -> tuple[str, int, int]:
    location = event.get("Location")
    if not isinstance(location, dict):
        raise TraceMalformed("an event has no location")
    file, line, column = location.get("file"), location.get("row"), location.get("col")
    if not isinstance(file, str) or not isinstance(line, int) or not isinstance(column, int):
        raise TraceMalformed("a location has no file, row or column")
    return file.removeprefix("/").removeprefix("./"), line, column


def _traced(query: _Query, rule: str, lines: Mapping[str, list[str]]) -> TracedRule:
    failing = None if query.held else _failing(query, lines, 0)
    stopped = query.failed[0] if query.failed is not None and not query.held else None
    passed = len(query.written) if stopped is None else sum(index < stopped for index in query.written)
    return TracedRule(rule, query.file, query.line, query.held, passed, len(query.written), failing)


def _failing(query: _Query, lines: Mapping[str, list[str]], depth: int) -> Condition | None:
    """The first condition that could not be made true: the furthest that any attempt came."""
    if query.failed is None:
        return None
    index, line, column = query.failed
    because = None
    if depth < CAUSES_DEPTH_MAX:
        asked = [child for child in query.children if child.parent_index == index and not child.held]
        causes = (_failing(child, lines, depth + 1) for child in asked)
        because = next((cause for cause in causes if cause is not None), None)
    return Condition(query.file, line, column, _line_of(lines, query.file, line), because)


def _line_of(lines: Mapping[str, list[str]], file: str, line: int) -> str:
    text = lines.get(file, [])
    return text[line - 1].strip()[:TEXT_MAX_CHARACTERS] if 0 < line <= len(text) else ""
