"""Reading OPA's syntax trees, as ``opa parse --format json`` writes them.

Guarantees: every node is seen once, with the row it stands in. Leaves to its callers what a node means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bundles.profile_calls import kind_of


def walk(node: Any, row: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Every object of a tree with the row it stands in."""
    if isinstance(node, list):
        for item in node:
            yield from walk(item, row)
    elif isinstance(node, dict):
        row = row_of(node, row)
        yield node, row
        for key, value in node.items():
            if key != "location":
                yield from walk(value, row)


def row_of(node: Mapping[str, Any], otherwise: int) -> int:
    """The row a node says it stands in."""
    location = node.get("location")
    return location.get("row", otherwise) if isinstance(location, dict) else otherwise


def rules_of(tree: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every rule of a file, what stands behind an `else` included."""
    for rule in tree.get("rules", []):
        current: Any = rule
        while isinstance(current, dict):
            yield current
            current = current.get("else")


def words_of(tree: Any) -> set[str]:
    """Every name and text in a tree."""
    kinds = ("var", "string")
    return {str(node["value"]) for node, _ in walk(tree, 0) if kind_of(node) in kinds}


def call_of(node: Mapping[str, Any]) -> tuple[str, Sequence[Any]] | None:
    """The dotted name and arguments, for a call in either of its two forms."""
    terms = node.get("terms") if isinstance(node.get("terms"), list) else None
    if terms is None and kind_of(node) == "call":
        terms = node["value"]
    return (dotted(terms[0]), terms[1:]) if terms else None


def dotted(node: Any) -> str:
    """A reference, variable or literal as Rego writes it with points."""
    parts = node["value"] if kind_of(node) == "ref" else [node]
    return ".".join(str(part.get("value")) for part in parts)
