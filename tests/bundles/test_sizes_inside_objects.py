"""Objects that are compared as literals: sizes that differ inside them are found, equal sizes are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles.compiler import Opa
from bundles.profile import lint

FOUND = {
    "a list in an object is longer": 'not {"a": [input.a]} == {"a": []}',
    "an object in an object has a member more": 'not {"a": {"b": input.a}} == {"a": {}}',
    "a list in an object in a list is longer": 'not [{"a": [input.a, 1]}] == [{"a": [1]}]',
    "a list under a key from input is longer": 'not {input.k: [1]} == {"a": []}',
}

CLEAN = {
    "lists in objects have one size": 'not {"a": [input.a]} == {"a": [1]}',
    "objects hold no lists": 'not {"a": input.a} == {"a": 1}',
    "an object holds a list and the other a name": 'not {"a": [1]} == {"a": input.a}',
    "a list is compared with an object": 'not {"a": [1]} == {"a": {"b": 1}}',
}


def _codes(opa_path: Path, body: str) -> list[str]:
    source = f"package policies.x\n\ndeny contains 1 if {{ {body} }}\n"
    return [finding.code for finding in lint(Opa(opa_path).parse({"policies/x/x.rego": source.encode()}), {})]


@pytest.mark.parametrize("body", FOUND.values(), ids=FOUND.keys())
def test_lint_finds_sizes_that_differ_when(body: str, opa_path: Path) -> None:
    assert "sizes_differ" in _codes(opa_path, body)


@pytest.mark.parametrize("body", CLEAN.values(), ids=CLEAN.keys())
def test_lint_finds_no_difference_of_sizes_when(body: str, opa_path: Path) -> None:
    assert _codes(opa_path, body) == []
