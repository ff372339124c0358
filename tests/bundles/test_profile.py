"""The profile's lint over OPA's own trees: what loses a deny in one of the engines is found, its neighbour is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles.canonical import JsonValue
from bundles.compiler import Opa
from bundles.profile import (
    FINDINGS_MAX,
    NODES_MAX,
    Finding,
    check_data_shapes,
    is_cacheable,
    lint,
    lint_tests,
    string_literals,
)

DATA: dict[str, JsonValue] = {
    "limits": {
        "list": [{"a": 1}, {"a": 2}],
        "by_name": {"x": {"a": 1}},
        "nested": {"x": [1, 2]},
        "matrix": [[1, 2], {"a": 1}],
    }
}

POLICY = "policies/x/x.rego"

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
    "a list in a list is indexed by input": ("data.limits.matrix[0][input.i] == 1", "list_index"),
    "a list somewhere in a list is indexed by input": ("data.limits.matrix[_][input.i] == 1", "list_index"),
    "a list is indexed in every": ("every i, _ in input.m { data.limits.list[i].a == 1 }", "list_index"),
    "an imported list is indexed by input": ("lim.list[input.i].a == 1", "list_index"),
    "a pattern comes from input": ("regex.match(input.p, input.s)", "pattern_outside_profile"),
    "a pattern names a class of letters": (r"regex.match(`\pL`, input.s)", "pattern_outside_profile"),
    "a pattern names a group": (r"regex.match(`(?P<n>a)`, input.s)", "pattern_outside_profile"),
    "replace looks for what input says": ('replace(input.s, input.t, "") == ""', "empty_replace"),
    "a list is compared with none": ('not ["a", "b"] == []', "sizes_differ"),
    "a list is compared with a shorter one inside": ("not [[input.a], 1] == [[], 1]", "sizes_differ"),
    "an object is compared with none": ('not {"a": input.a} == {}', "sizes_differ"),
    "no list is unified with one": ("not [] = [input.a]", "sizes_differ"),
    "indexof looks for nothing": ('indexof(input.s, "") == 0', "empty_search"),
    "indexof looks for what input says": ("indexof(input.s, input.t) == 0", "empty_search"),
    "replace looks for nothing": ('replace(input.s, "", "x") == ""', "empty_replace"),
    "replace_n looks for nothing": ('strings.replace_n({"": "x"}, input.s) == ""', "several_replacements"),
    "replace_n takes its texts from input": ('strings.replace_n(input.m, input.s) == ""', "several_replacements"),
    "replace_n takes its texts from a name": (
        'm := {"a": "b"}; strings.replace_n(m, input.s) == ""',
        "several_replacements",
    ),
    "replace_n looks for two texts": (
        'strings.replace_n({"&amp;": "&", "&lt;": "<"}, input.s) == ""',
        "several_replacements",
    ),
    "replace_n looks for no text": ('strings.replace_n({}, input.s) == ""', "several_replacements"),
    "replace_n looks for what input says": ('strings.replace_n({input.t: "b"}, input.s) == ""', "several_replacements"),
    "replace takes its text from a name": ('t := "a"; replace(input.s, t, "") == ""', "empty_replace"),
    "a pattern is put together": ('regex.match(concat("", ["a", input.p]), input.s)', "pattern_outside_profile"),
    "a pattern is tried": ("regex.is_valid(input.p)", "pattern_outside_profile"),
    "a pattern names a letter beyond ASCII": ("regex.match(`ä`, input.s)", "pattern_outside_profile"),
    "a pattern is found within a character": (r"regex.match(`\B`, input.s)", "pattern_outside_profile"),
    "a found pattern repeats what may be nothing": (
        "regex.find_all_string_submatch_n(`(|a)*`, input.s, 1) == []",
        "pattern_outside_profile",
    ),
    "a found pattern is found within a character": (
        r"regex.find_all_string_submatch_n(`a\B`, input.s, 1) == []",
        "pattern_outside_profile",
    ),
    "a found pattern comes from input": (
        "regex.find_all_string_submatch_n(input.p, input.s, 1) == []",
        "pattern_outside_profile",
    ),
    "fewer than all are found": (
        "regex.find_all_string_submatch_n(`a`, input.s, -2) == []",
        "count_outside_profile",
    ),
    "input says how many are found": (
        "regex.find_all_string_submatch_n(`a`, input.s, input.n) == []",
        "count_outside_profile",
    ),
    "the host's pattern comes from input": ("regex.replace(input.s, input.p, `x`) == `x`", "pattern_outside_profile"),
    "the host's pattern is put together": (
        "regex.split(concat(``, [`a`, input.p]), input.s) == []",
        "pattern_outside_profile",
    ),
    "the host's pattern is outside the subset": (r"regex.find_n(`a\B`, input.s, 1) == []", "pattern_outside_profile"),
    "a format comes from input": ("sprintf(input.f, [1]) == `1`", "format_outside_profile"),
    "a format has a verb nobody proved": ('sprintf("%c", [65]) == "A"', "format_outside_profile"),
    "a format ends in the middle": ('sprintf("10%", []) == "10"', "format_outside_profile"),
    "a format takes its width from an operand": ('sprintf("%*d", [1, 2]) == "2"', "format_outside_profile"),
    "a restriction reads networks": (
        "net.cidr_contains_matches(`10.0.0.0/8`, input.ip) == set()",
        "fallible_restriction",
    ),
    "a restriction reads a time beside the clock": (
        "time.parse_rfc3339_ns(input.context.times) > 1",
        "fallible_restriction",
    ),
    "a restriction reads a time": ("time.parse_rfc3339_ns(input.t) > 1", "fallible_restriction"),
    "an index has a point": ('input.list[1.0] == "a"', "number_spelling"),
    "an index is nothing with a point": ('input.list[0.0] == "a"', "number_spelling"),
    "an index is minus nothing with a point": ('input.list[-0.0] == "a"', "number_spelling"),
    "an index has many noughts": ('input.list[2.000] == "a"', "number_spelling"),
    "a position has a point": ('substring(input.s, 1.0, 2) == "a"', "number_spelling"),
    "a name stands for a number with a point": ('i := 3.0; input.list[i] == "a"', "number_spelling"),
    "a key has an exponent": ('{15e-1: "a"}[input.n] == "a"', "number_spelling"),
    "a member has a large exponent": ("input.n in {1E+21}", "number_spelling"),
    "a number has a point and an exponent": ("input.n > 1.00e2", "number_spelling"),
    "a number within a comprehension has a point": ("count([x | some x in input.m; x > 5.0]) > 1", "number_spelling"),
    "with stands outside a test": ("input.a with input as {}", "with_outside_test"),
    "a restriction can fail": ("1 / input.n == 1", "fallible_restriction"),
}

CLEAN = {
    "a list is indexed by a number": "data.limits.list[0].a == 1",
    "a list is walked without a name": "data.limits.list[_].a == input.i",
    "a list is walked by an iteration variable": "some i; data.limits.list[i].a == 1; i > 0",
    "a list is walked by its own key": "some i, _ in data.limits.list; data.limits.list[i].a == 1",
    "a list is walked in every": "every i, _ in data.limits.list { data.limits.list[i].a == 1 }",
    "an object in a list is indexed by input": "data.limits.matrix[1][input.i] == 1",
    "a list is asked for more than it has": "data.limits.matrix[2][input.i] == 1",
    "a list is asked for less than its first": "data.limits.matrix[-2][input.i] == 1",
    "nothing in data has the name": "data.limits.absent[input.i] == 1",
    "an object is indexed by input": "data.limits.by_name[input.n].a == 1",
    "a list of input is indexed by input": "input.list[input.i] == 1",
    "a literal list is indexed by input": "[1, 2][input.i] == 1",
    "numbers are written plainly": "input.n in {0, -1, 0.5, -12.50, 1.05, 100, 9007199254740993, 1000000000000000000000}",
    "a text has a number's point": 'input.s in {"1.0", "1e3", "$1.0"}',
    "a pattern is plain": "regex.match(`^[a-z]+$`, input.s)",
    "a pattern that only answers may repeat nothing": "regex.match(`^(a*)*$`, input.s)",
    "a found pattern is plain": r"regex.find_all_string_submatch_n(`a(b?)\b`, input.s, -1) == []",
    "so many are found": "regex.find_all_string_submatch_n(`a`, input.s, 2) == []",
    "a pattern for the host is plain": r"regex.replace(input.s, `^[a-z]+(\d{2,3})$`, `$1`) == `1`",
    "a format is plain": 'sprintf("%5.2f%% of %-10s (%v, %03d, %+d, %q, %x, %t)", [1, 2, 3, 4, 5, "a", 7, true]) == ""',
    "a format holds nothing": 'sprintf("none", []) == "none"',
    "a restriction reads the question's own time": "time.parse_rfc3339_ns(input.context.time) > 1",
    "replace looks for a text": 'replace(input.s, "a", "") == ""',
    "replace_n looks for one text": 'strings.replace_n({"a": "b"}, input.s) == ""',
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


IMPORTS = {
    "all of data has another name": ("import data as d", "d.limits.list[input.i].a == 1", ["list_index"]),
    "all of data is imported": ("import data", "data.limits.list[input.i].a == 1", ["list_index"]),
    "the list itself is imported": ("import data.limits.list", "list[input.i].a == 1", ["list_index"]),
    "the list has another name": ("import data.limits.list as l", "l[input.i].a == 1", ["list_index"]),
    "part of input has the list's name": ("import input.limits", "limits.list[input.i] == 1", []),
    "all of input has another name": ("import input as d", "d.limits.list[input.i] == 1", []),
}


@pytest.mark.parametrize(("line", "body", "codes"), IMPORTS.values(), ids=IMPORTS.keys())
def test_lint_knows_what_an_import_names_when(line: str, body: str, codes: list[str], opa_path: Path) -> None:
    source = f"package policies.x\n\n{line}\n\ndeny contains 1 if {{ {body} }}\n"
    assert [finding.code for finding in lint(Opa(opa_path).parse({POLICY: source.encode()}), DATA)] == codes


def test_lint_finds_a_list_index_when_a_function_takes_it(opa_path: Path) -> None:
    source = b"package policies.x\n\nf(i) := 1 if false\n\nelse := data.limits.list[i]\n"
    findings = lint(Opa(opa_path).parse({"policies/x/x.rego": source}), DATA)
    assert [(finding.code, finding.row) for finding in findings] == [("list_index", 5)]
    assert str(findings[0]).startswith("policies/x/x.rego:5: list_index: ")


def test_lint_shows_a_number_as_it_is_written_when_it_has_a_point(opa_path: Path) -> None:
    source = b"package policies.x\n\ndefault f(_) := 100000000000000000000\n\nf(i) := 1 if {\n\ti == 7\n\tinput.list[1.00]\n}\n"
    findings = lint(Opa(opa_path).parse({"policies/x/x.rego": source}), {})
    assert [str(finding)[:45] for finding in findings] == ["policies/x/x.rego:7: number_spelling: 1.00 is"]


@pytest.mark.parametrize("count", [NODES_MAX - 1, NODES_MAX, NODES_MAX + 1])
def test_lint_finds_a_list_index_when_the_list_is_the_last_of_many(count: int, opa_path: Path) -> None:
    many: dict[str, JsonValue] = {"many": {**{f"k{number}": {} for number in range(count)}, "last": [1]}}
    source = b"package policies.x\n\ndeny contains 1 if data.many[input.k][input.i] == 1\n"
    assert [finding.code for finding in lint(Opa(opa_path).parse({POLICY: source}), many)] == ["list_index"]


MISPLACED = {
    "a policy declares the library's package": (POLICY, "tidegate", "package tidegate does not"),
    "a policy declares another's package": (POLICY, "policies.y", "package policies.y does not"),
    "a policy declares a package below another's": (POLICY, "policies.y.x", "package policies.y.x does not"),
    "a policy declares the package above its own": (POLICY, "policies", "package policies does not"),
    "a policy has no folder of its own": ("policies/x.rego", "policies.x", "does not belong in policies"),
    "a name reads like a path": (POLICY, 'policies["x.y"]', 'package policies["x.y"] does not'),
    "the library declares a policy": ("lib/tidegate/x.rego", "policies.x", "does not belong in lib/tidegate"),
}

NESTED = {
    "a policy's package stands one below": (POLICY, "policies.x.y", "write `package policies.x`"),
    "a policy's package stands two below": (POLICY, "policies.x.y.z", "write `package policies.x`"),
    "the file lies in a folder of the same name": ("policies/x/y/y.rego", "policies.x.y", "write `package policies.x`"),
    "the package is named like a rule": (POLICY, "policies.x.deny", "package policies.x.deny are never read"),
    "a name is no plain word": ("policies/a-b/x.rego", 'policies["a-b"].c', 'write `package policies["a-b"]`'),
}

PLACED = {
    "a policy's package is its folder's": (POLICY, "policies.x"),
    "a policy's file lies deeper than its package": ("policies/x/deep/y.rego", "policies.x"),
    "a name is no plain word": ("policies/a-b/x.rego", 'policies["a-b"]'),
    "the library has a package of its own below": ("lib/tidegate/x.rego", "tidegate.x"),
}


def _package_findings(name: str, package: str, opa_path: Path) -> list[Finding]:
    source = f"# A remark.\n\npackage {package}\n\ndeny contains 1 if input.x\n"
    return lint(Opa(opa_path).parse({name: source.encode()}), {})


@pytest.mark.parametrize(("name", "package", "words"), MISPLACED.values(), ids=MISPLACED.keys())
def test_lint_finds_a_misplaced_package_when(name: str, package: str, words: str, opa_path: Path) -> None:
    findings = _package_findings(name, package, opa_path)
    assert [(finding.code, finding.row) for finding in findings] == [("package_misplaced", 3)]
    assert words in findings[0].message


@pytest.mark.parametrize(("name", "package", "words"), NESTED.values(), ids=NESTED.keys())
def test_lint_finds_a_nested_package_when(name: str, package: str, words: str, opa_path: Path) -> None:
    findings = _package_findings(name, package, opa_path)
    assert [(finding.code, finding.row, finding.severity) for finding in findings] == [("package_nested", 3, "error")]
    assert words in findings[0].message


@pytest.mark.parametrize(("name", "package"), PLACED.values(), ids=PLACED.keys())
def test_lint_finds_no_fault_with_a_package_when(name: str, package: str, opa_path: Path) -> None:
    assert _package_findings(name, package, opa_path) == []


UNREAD = {
    "a deny stands below a name": ("b.deny contains 1 if input.x", "write `deny contains …`"),
    "a deny stands below a name in brackets": ('b["deny"] contains 1 if input.x', "a rule below b is never read"),
    "a deny stands below a name that varies": ("b[input.y].deny contains 1 if input.x", "write `deny contains …`"),
    "a hold stands two below": ("b.c.require_hitl contains 1 if input.x", "write `require_hitl contains …`"),
    "a step-up stands below a name": ("b.require_step_up contains 1 if input.x", "write `require_step_up contains …`"),
    "a throttle stands below a name": ("b.throttle contains 1 if input.x", "write `throttle contains …`"),
    "a route stands below a name": ("b.route contains 1 if input.x", "write `route contains …`"),
    "a redaction stands below a name": ("b.redact contains 1 if input.x", "write `redact contains …`"),
    "an allow stands above": ("allow.deny contains 1 if input.x", "write `deny contains …`"),
}

READ = {
    "a deny stands at the top": "deny contains 1 if input.x",
    "the deny itself is no plain set, which the library refuses": "deny.throttle contains 1 if input.x",
    "a set below a name has another name": "hosts.known contains 1 if input.x",
    "a value below a name is no set": 'limits["throttle"] := 1 if input.x',
    "a function below a name is named like a rule": "rules.deny(x) := 1 if input[x]",
}


@pytest.mark.parametrize(("rule", "words"), UNREAD.values(), ids=UNREAD.keys())
def test_lint_finds_a_nested_rule_when(rule: str, words: str, opa_path: Path) -> None:
    findings = lint(Opa(opa_path).parse({POLICY: f"package policies.x\n\n{rule}\n".encode()}), {})
    assert [(finding.code, finding.row, finding.severity) for finding in findings] == [("rule_nested", 3, "error")]
    assert words in findings[0].message


@pytest.mark.parametrize("rule", READ.values(), ids=READ.keys())
def test_lint_finds_no_nested_rule_when(rule: str, opa_path: Path) -> None:
    assert lint(Opa(opa_path).parse({POLICY: f"package policies.x\n\n{rule}\n".encode()}), {}) == []


def test_lint_leaves_the_librarys_rules_where_they_are_when_it_gathers(opa_path: Path) -> None:
    source = b'package tidegate\n\nobligation.throttle contains "a" if input.x\n'
    assert lint(Opa(opa_path).parse({"lib/tidegate/x.rego": source}), {}) == []


IN_TESTS = {
    "a deny stands among the tests": ("policies.x", "deny contains 1 if input.x", ["rule_in_test"]),
    "a hold stands in the tests' own package": ("policies.x_test", "require_hitl contains {}", ["rule_in_test"]),
    "an allow stands among the tests": ("policies.x", "allow contains 1 if input.x", ["rule_in_test"]),
    "a redaction is a plain set": ("policies.x", 'redact := {"/a"} if input.x', ["rule_in_test"]),
    "a route has an else": ("policies.x", "route := {1} if input.x\n\nelse := {2}", 2 * ["rule_in_test"]),
    "a default is given": ("policies.x", "default throttle := set()", ["rule_in_test"]),
    "there are only tests": ("policies.x", "test_deny if 1 in data.policies.x.deny", []),
    "a helper of the tests has another name": ("policies.x_test", "denied := data.policies.x.deny", []),
}


@pytest.mark.parametrize(("package", "rule", "codes"), IN_TESTS.values(), ids=IN_TESTS.keys())
def test_lint_of_tests_finds_what_the_bundle_would_lack_when(
    package: str, rule: str, codes: list[str], opa_path: Path
) -> None:
    trees = Opa(opa_path).parse({"policies/x/x_test.rego": f"package {package}\n\n{rule}\n".encode()})
    findings = lint_tests(trees)
    assert [finding.code for finding in findings] == codes
    assert not findings or (findings[0].row == 3 and "*_test.rego" in findings[0].message)


def test_lint_of_tests_passes_over_what_is_no_tree() -> None:
    assert lint_tests({"policies/x/x_test.rego": None}) == []


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


FALLIBLE = {
    "a deny divides": ("deny contains 1 if round(1 / round(input.n)) == 1", ["fallible_restriction"]),
    "a hold reads a number": ("require_hitl contains 1 if to_number(input.n) > 1", ["fallible_restriction"]),
    "a redaction has a remainder": ("redact contains 1 if round(input.n) % 2 == 1", ["fallible_restriction"]),
    "an allow divides": ("allow contains 1 if round(1 / round(input.n)) == 1", []),
    "a helper divides": ("half := round(round(input.n) / 2)", []),
    "a deny adds": ("deny contains 1 if count(input.n) + 1 == 2", []),
    "a hold reads an amount": (
        "require_hitl contains 1 if data.tidegate.hundredths(input.n) > 1",
        ["fallible_restriction"],
    ),
    "a hold reads an amount and another rule is about the unreadable": (
        "require_hitl contains 1 if data.tidegate.hundredths(input.n) > 1\n\n"
        "require_hitl contains 2 if not data.tidegate.hundredths(input.n)",
        [],
    ),
    "only an allow is about the unreadable": (
        "deny contains 1 if data.tidegate.hundredths(input.n) > 1\n\n"
        "allow contains 2 if not data.tidegate.hundredths(input.n)",
        ["fallible_restriction"],
    ),
    "an allow reads an amount": ("allow contains 1 if data.tidegate.hundredths(input.n) < 1", []),
}


@pytest.mark.parametrize(("rule", "codes"), FALLIBLE.values(), ids=FALLIBLE.keys())
def test_lint_warns_of_what_can_fail_only_in_a_restriction_when(rule: str, codes: list[str], opa_path: Path) -> None:
    findings = lint(Opa(opa_path).parse({POLICY: f"package policies.x\n\n{rule}\n".encode()}), {})
    assert [finding.code for finding in findings] == codes
    assert all(finding.severity == "warning" for finding in findings)


@pytest.mark.parametrize("count", [FINDINGS_MAX, FINDINGS_MAX + 1])
def test_findings_end_at_their_limit_when_there_are_more(count: int, opa_path: Path) -> None:
    rules = "".join(f"b{number}.deny contains 1 if input.x\n" for number in range(count))
    trees = Opa(opa_path).parse({POLICY: f"package policies.x\n\n{rules}".encode()})
    assert len(lint(trees, {})) == FINDINGS_MAX
    assert len(check_data_shapes({"a": {str(number): {} for number in range(count)}})) == FINDINGS_MAX
    assert len(check_data_shapes({"a": [{str(number): {}} for number in range(count)]})) == FINDINGS_MAX


def test_errors_are_kept_when_warnings_reach_the_limit_before_them(opa_path: Path) -> None:
    rules = "".join(f"deny contains {number} if round(1 / round(input.n)) == 1\n" for number in range(FINDINGS_MAX))
    source = f"package policies.x\n\n{rules}deny contains 1 if data.limits.list[input.i].a == 1\n"
    findings = lint(Opa(opa_path).parse({POLICY: source.encode()}), DATA)
    assert len(findings) == FINDINGS_MAX
    assert [finding.code for finding in findings if finding.severity == "error"] == ["list_index"]


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
    'input.context.approval.state == "approved"': True,
    "time.now_ns() > input.n": False,
    'rand.intn("x", 2) == 1': False,
    'http.send({"method": "GET", "url": "https://a.example"}).status_code == 200': False,
}


@pytest.mark.parametrize(("body", "cacheable"), CACHE.items(), ids=CACHE.keys())
def test_policy_is_cacheable_only_when_it_reads_nothing_that_changes(
    body: str, cacheable: bool, opa_path: Path
) -> None:
    source = f"package policies.x\n\nallow contains 1 if {body}\n"
    assert is_cacheable(Opa(opa_path).parse({"policies/x/x.rego": source.encode()})) is cacheable


@pytest.mark.parametrize(
    ("line", "body", "cacheable"),
    [
        pytest.param("import input as d", "d.context.time == 1", False, id="all of input has another name"),
        pytest.param("import input.context", "context.time == 1", False, id="the context is imported"),
        pytest.param("import input.context.clock as c", "c.weekday == 1", False, id="the clock has another name"),
        pytest.param("import input.subject", "subject.id == 1", True, id="the subject is imported"),
    ],
)
def test_policy_is_cacheable_by_what_it_imports_when(line: str, body: str, cacheable: bool, opa_path: Path) -> None:
    source = f"package policies.x\n\n{line}\n\nallow contains 1 if {body}\n"
    assert is_cacheable(Opa(opa_path).parse({POLICY: source.encode()})) is cacheable


LIBRARY = {
    "lib/tidegate/a.rego": b"""package tidegate

decision := 1 if steady

steady if input.subject.id == "x"

late if input.context.clock.unix > 1

after_hours if late

early if not after_hours
""",
}
USES = {
    "a rule that reads no clock": ("", "tidegate.steady", True),
    "a rule that reads the clock": ("", "tidegate.late", False),
    "a rule that uses one which does": ("", "tidegate.early", False),
    "its full name": ("", "data.tidegate.late", False),
    "its name in brackets": ("", 'data["tidegate"]["late"]', False),
    "a name that is computed": ("", "data.tidegate[input.name]", False),
    "a package that is computed": ("", "data[input.name].late", False),
    "all of the library": ("", "count(data.tidegate) == 1", False),
    "all of data": ("", "count(data) == 1", False),
    "other data by a name that is computed": ("", "data.limits[input.name] == 1", True),
    "another name of the library": ("import data.tidegate as t", "t.late", False),
    "a computed name below another name of the library": ("import data.tidegate as t", "t[input.name]", False),
    "the library under a variable's name": ("", "{ l := tidegate; l[input.name] }", False),
    "another name of the rule": ("import data.tidegate.late as l", "l", False),
    "a steady rule under another name": ("import data.tidegate as t", "t.steady", True),
}


@pytest.mark.parametrize(("line", "body", "cacheable"), USES.values(), ids=USES.keys())
def test_policy_is_cacheable_by_what_it_uses_of_the_library_when_it_names(
    line: str, body: str, cacheable: bool, opa_path: Path
) -> None:
    source = f"package policies.x\n\nimport data.tidegate\n{line}\n\nallow contains 1 if {body}\n"
    assert is_cacheable(Opa(opa_path).parse({POLICY: source.encode(), **LIBRARY})) is cacheable


def test_nothing_is_cacheable_when_the_decision_itself_reads_the_clock(opa_path: Path) -> None:
    library = {"lib/tidegate/a.rego": b"package tidegate\n\ndecision := 1 if late\n\nlate if input.context.time\n"}
    source = b"package policies.x\n\nallow contains 1 if input.n == 1\n"
    assert not is_cacheable(Opa(opa_path).parse({POLICY: source, **library}))


def test_texts_of_a_policy_are_listed(opa_path: Path) -> None:
    source = b'package policies.x\n\nallow contains "a" if input.x in {"b", "c"}\n'
    assert {"a", "b", "c"} <= set(string_literals(Opa(opa_path).parse({"policies/x/x.rego": source})))


UNREAD = {
    "a hold is misspelt": ("require_hitll contains 1 if input.a", "error", "did you mean require_hitl?"),
    "a deny is in the plural": ("denys contains 1 if input.a", "error", "did you mean deny?"),
    "a set is for nobody": ("secretive contains 1 if input.a", "warning", "the library reads allow, cache, deny"),
}


@pytest.mark.parametrize(("rule", "severity", "words"), UNREAD.values(), ids=UNREAD.keys())
def test_lint_finds_a_set_that_nothing_reads_when(rule: str, severity: str, words: str, opa_path: Path) -> None:
    (finding,) = lint(Opa(opa_path).parse({POLICY: f"package policies.x\n\n{rule}\n".encode()}), {})
    assert (finding.code, finding.severity, finding.row) == ("rule_unread", severity, 3)
    assert words in finding.message


def test_lint_finds_nothing_when_a_rule_reads_the_set(opa_path: Path) -> None:
    rego = "package policies.x\n\nteam contains 1 if input.a\n\nallow contains 2 if input.b in team\n"
    assert lint(Opa(opa_path).parse({POLICY: rego.encode()}), {}) == []


def test_lint_knows_the_library_by_the_name_it_was_imported_under(opa_path: Path) -> None:
    rego = "package policies.x\n\nimport data.tidegate as t\n\ndeny contains 1 if t.hundredths(input.a) > 1\n"
    assert [f.code for f in lint(Opa(opa_path).parse({POLICY: rego.encode()}), {})] == ["fallible_restriction"]
