"""The profile's lint over OPA's own trees: what loses a deny in one of the engines is found, its neighbour is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles.canonical import JsonValue
from bundles.compiler import Opa
from bundles.profile import check_data_shapes, is_cacheable, lint, string_literals

DATA: dict[str, JsonValue] = {
    "limits": {"list": [{"a": 1}, {"a": 2}], "by_name": {"x": {"a": 1}}, "nested": {"x": [1, 2]}}
}

FOUND = {
    "a list is indexed by input": ("data.limits.list[input.i].a == 1", "list_index"),
    "a list is indexed by a text": ('data.limits.list["0"].a == 1', "list_index"),
    "a list is indexed by a local that input bound": ("x := input.i; data.limits.list[x].a == 1", "list_index"),
    "a list is indexed by a key of input": ("some i; input.m[i]; data.limits.list[i].a == 1", "list_index"),
    "a list is indexed by a member's key of input": ("some i, _ in input.m; data.limits.list[i].a == 1", "list_index"),
    "a list is indexed by a member": ("some i in input.m; data.limits.list[i].a == 1", "list_index"),
    "a list is indexed by what unification bound": ("some i; i = input.i; data.limits.list[i].a == 1", "list_index"),
    "a list is indexed by a destructured value": ("[i, _] = input.p; data.limits.list[i].a == 1", "list_index"),
    "a list is indexed by a call": ("data.limits.list[count(input.m)].a == 1", "list_index"),
    "a list is indexed by what a relation put out": ("lower(input.s, i); data.limits.list[i].a == 1", "list_index"),
    "a list behind a name is indexed by input": ("data.limits.nested[input.n][input.i] == 1", "list_index"),
    "a list is indexed in every": ("every i, _ in input.m { data.limits.list[i].a == 1 }", "list_index"),
    "an imported list is indexed by input": ("lim.list[input.i].a == 1", "list_index"),
    "a pattern comes from input": ("regex.match(input.p, input.s)", "pattern_outside_profile"),
    "a pattern names a class of letters": (r"regex.match(`\pL`, input.s)", "pattern_outside_profile"),
    "a pattern names a group": (r"regex.match(`(?P<n>a)`, input.s)", "pattern_outside_profile"),
    "replace looks for what input says": ('replace(input.s, input.t, "") == ""', "empty_replace"),
    "replace looks for nothing": ('replace(input.s, "", "x") == ""', "empty_replace"),
    "replace_n looks for nothing": ('strings.replace_n({"": "x"}, input.s) == ""', "empty_replace"),
    "with stands outside a test": ("input.a with input as {}", "with_outside_test"),
    "a restriction can fail": ("1 / input.n == 1", "fallible_restriction"),
}

CLEAN = {
    "a list is indexed by a number": "data.limits.list[0].a == 1",
    "a list is walked without a name": "data.limits.list[_].a == input.i",
    "a list is walked by an iteration variable": "some i; data.limits.list[i].a == 1; i > 0",
    "a list is walked by its own key": "some i, _ in data.limits.list; data.limits.list[i].a == 1",
    "a list is walked in every": "every i, _ in data.limits.list { data.limits.list[i].a == 1 }",
    "an object is indexed by input": "data.limits.by_name[input.n].a == 1",
    "a list of input is indexed by input": "input.list[input.i] == 1",
    "a literal list is indexed by input": "[1, 2][input.i] == 1",
    "a pattern is plain": "regex.match(`^[a-z]+$`, input.s)",
    "replace looks for a text": 'replace(input.s, "a", "") == ""',
    "replace_n looks for texts": 'strings.replace_n({"a": "b"}, input.s) == ""',
}


def _findings(opa_path: Path, body: str) -> list[str]:
    source = (
        f"package policies.x\n\nimport data.limits as lim\nimport rego.v1\n\ndeny contains lim.none if {{ {body} }}\n"
    )
    return [finding.code for finding in lint(Opa(opa_path).parse({"policies/x/x.rego": source.encode()}), DATA)]


@pytest.mark.parametrize(("body", "code"), FOUND.values(), ids=FOUND.keys())
def test_lint_finds_it_when(body: str, code: str, opa_path: Path) -> None:
    assert code in _findings(opa_path, body)


@pytest.mark.parametrize("body", CLEAN.values(), ids=CLEAN.keys())
def test_lint_finds_nothing_when(body: str, opa_path: Path) -> None:
    assert _findings(opa_path, body) == []


def test_lint_finds_a_list_index_when_a_function_takes_it(opa_path: Path) -> None:
    source = b"package policies.x\n\nf(i) := 1 if false\n\nelse := data.limits.list[i]\n"
    findings = lint(Opa(opa_path).parse({"policies/x/x.rego": source}), DATA)
    assert [(finding.code, finding.row) for finding in findings] == [("list_index", 5)]
    assert str(findings[0]).startswith("policies/x/x.rego:5: list_index: ")


MISPLACED = {
    "a policy declares the library's package": ("policies/x/x.rego", "tidegate"),
    "a policy declares another's package": ("policies/x/x.rego", "policies.y"),
    "the library declares a policy": ("lib/tidegate/x.rego", "policies.x"),
}


@pytest.mark.parametrize(("name", "package"), MISPLACED.values(), ids=MISPLACED.keys())
def test_lint_finds_a_misplaced_package_when(name: str, package: str, opa_path: Path) -> None:
    trees = Opa(opa_path).parse({name: f"package {package}\n".encode()})
    assert [finding.code for finding in lint(trees, {})] == ["package_misplaced"]


def test_lint_passes_over_what_is_no_tree() -> None:
    assert lint({"policies/x/x.rego": None}, {}) == []


NUMERIC = ["2", "-1", "2.5", "1e5", "0"]
TEXTUAL = ["a", "2a", "", "1.2.3", "v1", "-", "0x1"]


@pytest.mark.parametrize("key", NUMERIC)
def test_data_is_found_when_a_key_reads_as_a_number(key: str) -> None:
    findings = check_data_shapes({"a": [{"b": {key: 1}}]})
    assert [finding.code for finding in findings] == ["numeric_key"]
    assert f"/a/0/b/{key}" in findings[0].message


@pytest.mark.parametrize("key", TEXTUAL)
def test_data_is_clean_when_no_key_reads_as_a_number(key: str) -> None:
    assert check_data_shapes({"a": [{"b": {key: 1}}]}) == []


CACHE = {
    "input.subject.id == 1": True,
    "input.context.ticket == 1": True,
    "input.context.time == 1": False,
    "input.context.clock.weekday == 1": False,
    "input.context.facts.x == 1": False,
    "input.context[input.x] == 1": False,
    "input[input.x] == 1": False,
    "count(input.context) == 1": False,
    "count(input) == 1": False,
}


@pytest.mark.parametrize(("body", "cacheable"), CACHE.items(), ids=CACHE.keys())
def test_policy_is_cacheable_only_when_it_reads_nothing_that_changes(
    body: str, cacheable: bool, opa_path: Path
) -> None:
    source = f"package policies.x\n\nallow contains 1 if {body}\n"
    assert is_cacheable(Opa(opa_path).parse({"policies/x/x.rego": source.encode()})) is cacheable


def test_texts_of_a_policy_are_listed(opa_path: Path) -> None:
    source = b'package policies.x\n\nallow contains "a" if input.x in {"b", "c"}\n'
    assert {"a", "b", "c"} <= set(string_literals(Opa(opa_path).parse({"policies/x/x.rego": source})))
