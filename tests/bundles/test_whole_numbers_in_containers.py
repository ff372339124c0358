"""Numbers that a policy takes out of lists, sets, data and rules: whole ones pass, what may be a fraction is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles.canonical import JsonValue
from bundles.compiler import Opa
from bundles.profile import lint

DATA: dict[str, JsonValue] = {
    "limits": {"whole": 3, "rows": [{"n": 1}, {"n": 2}], "table": {"a": [1, 2], "b": [3.0]}},
    "mixed": [1, 2.5],
    "deep": [{"n": [1, {"m": 2.5}]}],
}

RULES = """package policies.x

counted contains x if some x in numbers.range(0, 3)

prices contains x if some x in input.args.prices

by_letter[letter] := 1 if some letter in input.args.letters

"""

REPORTED = {
    "lists with a fraction among them are joined": "sum(array.concat([1], [2.5])) > 3",
    "an element of a literal list is added to": "[1, 2][input.args.at] + 1 > 1",
    "an element of a list in a name may be a fraction": "xs := [1, 2.5]; xs[0] + 1 > 1",
    "an element of a list in a name is an argument": "xs := [input.args.price]; xs[0] + 1 > 1",
    "a name means nothing at all": "absent.n + 1 > 1",
    "a collected set holds arguments": "some price in prices; price + 1 > 1",
    "a collected set of arguments is summed": "sum(prices) > 1",
    "a list in data has a fraction there": "data.mixed[1] + 1 > 1",
    "a list in data ends before": "data.mixed[2] + 1 > 1",
    "a list in data has no first before its first": "data.mixed[-1] + 1 > 1",
    "a list in data is asked for a name": 'data.mixed["0"] + 1 > 1',
    "a number in data is asked for a member": "data.limits.whole.more + 1 > 1",
    "a fraction lies deep in data": "sum(data.deep) > 1",
}

PASSED = {
    "whole lists are joined": "sum(array.concat([1], [2])) > 3",
    "texts, truths and nothing stand among whole numbers": 'some x in [1, "a", true, null]; x + 1 > 5',
    "an element of a list in a name is whole": "xs := [1, 2]; xs[0] + 1 > 1",
    "a collected set counts": "some n in counted; n + 1 > 1",
    "a collected set that counts is summed": "sum(counted) > 1",
    "a rule gives a whole number for each letter": "by_letter[input.args.letter] + 1 > 1",
    "a list in data has a whole number there": "data.mixed[0] + 1 > 1",
    "all rows of data are whole": "sum(data.limits.rows) > 1",
    "every row of data is whole": "data.limits.rows[_] + 1 > 1",
    "a table in data holds whole lists": "sum(data.limits.table[input.args.letter]) > 1",
    "an item of whole lists in data": "data.limits.table[_][0] + 1 > 1",
}


def _codes(opa_path: Path, condition: str) -> list[str]:
    text = RULES + "deny contains 1 if {\n\t" + condition.replace("; ", "\n\t") + "\n}\n"
    findings = lint(Opa(opa_path).parse({"policies/x/x.rego": text.encode()}), DATA)
    return [finding.code for finding in findings if finding.code == "fraction_calculated"]


@pytest.mark.parametrize("condition", REPORTED.values(), ids=REPORTED.keys())
def test_lint_reports_a_calculation_when(condition: str, opa_path: Path) -> None:
    assert _codes(opa_path, condition) == ["fraction_calculated"]


@pytest.mark.parametrize("condition", PASSED.values(), ids=PASSED.keys())
def test_lint_lets_a_calculation_pass_when(condition: str, opa_path: Path) -> None:
    assert _codes(opa_path, condition) == []
