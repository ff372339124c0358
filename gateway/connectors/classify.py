"""Exact classification: which action of a signed manifest is this request?

Guarantees: a request is one action or it is refused. The match is over the method, the decoded path segments below the
manifest's ``base_path``, and the query and body discriminators the manifest names. Nothing is normalised here: segments
come from the one canonicaliser of the edge, and the path that is matched is the path that is sent. Two actions that
match one request are a refusal, never a choice.

Leaves to others: canonicalising the URL (`gateway.edge.url`), parsing the body (`arguments`), deciding (`pdp`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TypeAlias

from bundles.canonical import JsonValue
from bundles.errors import BundleRefused
from bundles.manifest import Action, ConnectorManifest, Match
from bundles.path_patterns import PathPattern, path_pattern
from gateway.edge.problem import refusal
from gateway.errors import Refusal
from pdp.value import Value

DEFAULT_PARAMETER_PATTERN = r"[A-Za-z0-9._~@:-]+"
"""What a path parameter may look like when the manifest does not say."""
REMEMBERED_MAX = 1_024
REMEMBERED_MAX_CHARACTERS = 512
"""How many paths without a query a table remembers with what they may mean, and how long one may be."""

QueryPairs: TypeAlias = Sequence[tuple[str, str]]

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\+?)\}")
_DEFAULT = re.compile(DEFAULT_PARAMETER_PATTERN)
_DEFAULT_REST = re.compile(f"{DEFAULT_PARAMETER_PATTERN}(?:/{DEFAULT_PARAMETER_PATTERN})*")
_DOT_SEGMENTS = frozenset({".", ".."})
_SEPARATOR = re.compile(r"[/\\;]")


class Classified(Value, frozen=True):
    """One request recognised as one action, with the decoded values of its path parameters."""

    action: Action
    path_arguments: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One path parameter: where it stands, what it is called, what it must fully match."""

    position: int
    name: str
    pattern: PathPattern


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """A path template cut into segments; None in `literals` marks a parameter.

    With `rest` the last parameter (``{name+}``) takes all remaining segments, at least one.
    """

    literals: tuple[str | None, ...]
    parameters: tuple[Parameter, ...]
    rest: bool

    def literals_agree(self, segments: Sequence[str]) -> bool:
        """Whether every literal segment stands where the template has it."""
        return all(literal is None or segments[at] == literal for at, literal in enumerate(self.literals))

    def extract(self, segments: Sequence[str]) -> dict[str, str] | None:
        """The decoded parameters of `segments`, whose literals already agree; None where one is not admitted.

        **Security**: security rule 2. A segment holds a separator (`/`, `\\`, `;`, which came encoded) only where the
        parameter's pattern admits it, nothing between two of them is empty or leads elsewhere, and never among the
        segments that one parameter takes together.
        """
        found: dict[str, str] = {}
        for parameter in self.parameters:
            value = segments[parameter.position]
            if self.rest and parameter is self.parameters[-1]:
                remaining = segments[parameter.position :]
                if (
                    not all(remaining)
                    or not _DOT_SEGMENTS.isdisjoint(remaining)
                    or any(map(_SEPARATOR.search, remaining))
                ):
                    return None
                value = "/".join(remaining)
            elif value in _DOT_SEGMENTS or _leads_elsewhere(value):
                return None
            if parameter.pattern.fullmatch(value) is None:
                return None
            found[parameter.name] = value
        return found


def _leads_elsewhere(value: str) -> bool:
    """Whether a value, read as a path by a service that decodes it early, would not stay where it stands."""
    if _SEPARATOR.search(value) is None:
        return False
    parts = _SEPARATOR.split(value)
    return not all(parts) or not _DOT_SEGMENTS.isdisjoint(parts)


def split_path(path: str) -> tuple[str, ...]:
    """The segments of a template or base path; ``/`` alone is the empty path."""
    trimmed = path.strip("/") if path in ("", "/") else path.removeprefix("/")
    return tuple(trimmed.split("/")) if trimmed else ()


def compile_template(base_path: str, path: str, parameters: Mapping[str, str]) -> PathTemplate:
    """Compile `base_path` + `path` once.

    Raises `BundleRefused` (``manifest_invalid``) for a parameter beside other text in a segment, a repeated name, a
    rest parameter that is not last, or a pattern that does not compile.
    """
    literals: list[str | None] = []
    found: list[Parameter] = []
    rest = False
    for segment in (*split_path(base_path.rstrip("/")), *split_path(path)):
        if rest:
            raise BundleRefused("manifest_invalid", f"a rest parameter must stand last in {path}")
        if "{" not in segment and "}" not in segment:
            literals.append(segment)
            continue
        named = _PARAMETER.fullmatch(segment)
        if named is None or any(parameter.name == named[1] for parameter in found):
            raise BundleRefused("manifest_invalid", f"segment {segment!r} of {path} is no single parameter")
        rest = bool(named[2])
        found.append(Parameter(len(literals), named[1], _compile_pattern(parameters.get(named[1]), rest)))
        literals.append(None)
    return PathTemplate(tuple(literals), tuple(found), rest)


def _compile_pattern(pattern: str | None, rest: bool) -> PathPattern:
    if pattern is not None:
        return path_pattern(pattern)
    return _DEFAULT_REST if rest else _DEFAULT


def parse_pointer(pointer: str) -> tuple[str, ...]:
    """The reference tokens of a JSON Pointer (RFC 6901); ``""`` is the whole document."""
    if not pointer:
        return ()
    if not pointer.startswith("/"):
        raise BundleRefused("manifest_invalid", f"{pointer!r} is no JSON Pointer")
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/"))


def value_at(document: JsonValue, tokens: Sequence[str]) -> JsonValue:
    """The value a pointer leads to, or None where nothing is (objects only: arrays never discriminate)."""
    for token in tokens:
        if not isinstance(document, dict) or token not in document:
            return None
        document = document[token]
    return document


@dataclass(frozen=True, slots=True)
class _Entry:
    action: Action
    template: PathTemplate
    query: tuple[tuple[str, str], ...]
    body: tuple[tuple[tuple[str, ...], str], ...]

    def query_agrees(self, query: QueryPairs) -> bool:
        for name, expected in self.query:
            values = [value for key, value in query if key == name]
            if values != [expected]:
                return False
        return True

    def body_agrees(self, body: JsonValue) -> bool:
        return all(value_at(body, tokens) == expected for tokens, expected in self.body)


class Candidates(Value, frozen=True):
    """What method, path and query leave over. Never empty.

    `needs_body` says that the body must be parsed before the action is known. All candidates then share `body` (the
    declared media kind) and `body_max_bytes`, so the edge knows how to read it.
    """

    found: tuple[tuple[_Entry, Mapping[str, str]], ...]
    needs_body: bool

    @property
    def first(self) -> Action:
        """One of the candidates: the place to read body kind and limits from."""
        return self.found[0][0].action

    def resolve(self, body: JsonValue | None) -> Classified:
        """The one action. `body` is the parsed body when `needs_body`.

        Raises `Refusal` ``unclassified`` when none or more than one agrees.
        """
        if len(self.found) == 1 and not self.found[0][0].body:
            entry, arguments = self.found[0]
            return Classified(entry.action, arguments)
        agreeing = [(entry, found) for entry, found in self.found if not entry.body or entry.body_agrees(body)]
        if len(agreeing) != 1:
            raise refusal("unclassified", "the body names no action of this connector")
        entry, arguments = agreeing[0]
        return Classified(entry.action, arguments)


class _Shape:
    """Templates of one method and depth whose literals stand at the same positions: one dictionary look-up."""

    __slots__ = ("entries", "key", "positions")

    def __init__(self, positions: tuple[int, ...]) -> None:
        self.positions = positions
        self.key: Callable[[Sequence[str]], object] = itemgetter(*positions) if positions else _no_literals
        self.entries: dict[object, list[_Entry]] = {}


def _no_literals(_segments: Sequence[str]) -> object:
    return ()


class ActionTable:
    """The actions of one manifest, compiled for lookup by method, depth and literal segments."""

    __slots__ = ("_by_name", "_known", "_manifest", "_rest_entries", "_shapes")

    def __init__(self, manifest: ConnectorManifest) -> None:
        """Compile `manifest`. Raises `BundleRefused` where a template or its discriminators cannot be exact."""
        self._manifest = manifest
        self._by_name: dict[str, Action] = {action.name: action for action in manifest.actions}
        self._shapes: dict[tuple[str, int], list[_Shape]] = {}
        self._rest_entries: dict[str, list[_Entry]] = {}
        self._known: dict[tuple[str, tuple[str, ...]], Candidates] = {}
        entries = [_compile_entry(manifest, action) for action in manifest.actions]
        _check_body_kinds(entries)
        for entry in entries:
            self._add(entry)

    def _add(self, entry: _Entry) -> None:
        method = entry.action.match.method
        if entry.template.rest:
            self._rest_entries.setdefault(method, []).append(entry)
            return
        literals = entry.template.literals
        positions = tuple(at for at, literal in enumerate(literals) if literal is not None)
        shapes = self._shapes.setdefault((method, len(literals)), [])
        shape = next((known for known in shapes if known.positions == positions), None)
        if shape is None:
            shape = _Shape(positions)
            shapes.append(shape)
        shape.entries.setdefault(shape.key([literal or "" for literal in literals]), []).append(entry)

    @property
    def manifest(self) -> ConnectorManifest:
        """The manifest this table was compiled from."""
        return self._manifest

    def action(self, name: str) -> Action:
        """The action called `name`. Raises `Refusal` ``unclassified`` when the manifest has none."""
        found = self._by_name.get(name)
        if found is None:
            raise refusal("unclassified", "this connector has no such action")
        return found

    def taking_tickets(self, segments: Sequence[str]) -> frozenset[str]:
        """The names of the actions whose caller is known by an upload ticket at the decoded path `segments`."""
        found: set[str] = set()
        for name, action in self._by_name.items():
            if "ticket" in (action.caller_token or self._manifest.caller_token):
                try:
                    candidates = self.candidates(action.match.method, segments, ())
                except Refusal:
                    continue
                found.update({name} & {entry.action.name for entry, _ in candidates.found})
        return frozenset(found)

    def candidates(self, method: str, segments: Sequence[str], query: QueryPairs) -> Candidates:
        """What `method`, decoded `segments` and `query` leave over.

        Raises `Refusal` ``unclassified`` when nothing matches, or when two match that no body could tell apart.
        """
        if query or type(segments) is not tuple:
            return self._candidates(method, segments, query)
        asked = (method, segments)
        known = self._known.get(asked)
        if known is None:
            known = self._candidates(method, segments, query)
            if sum(map(len, segments)) <= REMEMBERED_MAX_CHARACTERS:
                if len(self._known) >= REMEMBERED_MAX:
                    self._known.clear()
                self._known[asked] = known
        return known

    def _candidates(self, method: str, segments: Sequence[str], query: QueryPairs) -> Candidates:
        if len(segments) == 1 and not segments[0]:
            segments = ()
        matched: list[tuple[_Entry, dict[str, str]]] = []
        for shape in self._shapes.get((method, len(segments)), ()):
            _collect(shape.entries.get(shape.key(segments), ()), segments, query, matched)
        for entry in self._rest_entries.get(method, ()):
            if len(segments) >= len(entry.template.literals) and entry.template.literals_agree(segments):
                _collect((entry,), segments, query, matched)
        if not matched:
            if any(map(_SEPARATOR.search, segments)):
                raise refusal("malformed_request", "the path holds an encoded separator where no action takes one")
            raise refusal("unclassified", "no action of this connector matches method and path")
        by_body = sum(1 for entry, _ in matched if entry.body)
        if len(matched) - by_body > 1 or (by_body and by_body != len(matched)):
            raise refusal("unclassified", "more than one action matches")
        return Candidates(tuple(matched), bool(by_body))

    def classify(
        self, method: str, path_segments: Sequence[str], query: QueryPairs, body_probe: JsonValue | None = None
    ) -> Classified:
        """The one action of a request whose body, if it matters, is already parsed as `body_probe`.

        Raises `Refusal` ``unclassified``; there is no default action.
        """
        return self.candidates(method, path_segments, query).resolve(body_probe)


def _collect(
    entries: Sequence[_Entry],
    segments: Sequence[str],
    query: QueryPairs,
    into: list[tuple[_Entry, dict[str, str]]],
) -> None:
    for entry in entries:
        found = entry.template.extract(segments)
        if found is not None and (not entry.query or entry.query_agrees(query)):
            into.append((entry, found))


def _check_body_kinds(entries: Sequence[_Entry]) -> None:
    """Actions told apart by body must be read the same way, or reading would decide the action."""
    seen: dict[tuple[str, tuple[str | None, ...]], Action] = {}
    for entry in entries:
        if not entry.body:
            continue
        action = entry.action
        if action.arguments.body == "none":
            raise BundleRefused("manifest_invalid", f"{action.name} is told apart by a body it does not declare")
        other = seen.setdefault((action.match.method, entry.template.literals), action)
        if (other.arguments.body, other.arguments.body_max_bytes) != (
            action.arguments.body,
            action.arguments.body_max_bytes,
        ):
            raise BundleRefused("manifest_invalid", f"{action.name} and {other.name} read their body differently")


def _compile_entry(manifest: ConnectorManifest, action: Action) -> _Entry:
    match: Match = action.match
    template = compile_template(manifest.base_path, match.path, action.arguments.parameters)
    body = tuple((parse_pointer(pointer), value) for pointer, value in match.body.items())
    return _Entry(action, template, tuple(match.query.items()), body)
