"""Calculating with fractions is found in a policy, and calculating with whole numbers is let pass.

The difference is OPA's own: its Go engine adds in binary, its Wasm in decimal, which the last test shows.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import orjson
import pytest

from bundles.compiler import Opa
from bundles.profile import lint
from pdp.input_document import encode_document
from pdp.wasm.host import WasmEngine

DATA = {"limits": {"whole": 3, "half": 0.5, "rows": [{"n": 1}, {"n": 2}]}, "mixed": [1, 2.5]}

REPORTED = {
    "a quantity is added": "units.parse(input.args.size) + 1 > 5",
    "an argument is added": "input.args.price + 1 > 5",
    "an argument is taken away": "5 - input.args.price > 1",
    "an argument is multiplied": "input.args.price * 3 > 5",
    "an argument is divided": "input.args.price / 3 > 5",
    "whole numbers are divided and compared": "count(input.args) / 3 > 1",
    "a literal has a fraction": "1 - 0.9 == 0.1",
    "a literal has an exponent": "1 + 1e-3 > 1",
    "arguments are summed": "sum(input.args.prices) > 5",
    "arguments are multiplied together": "product(input.args.prices) > 5",
    "elements are summed": "sum([x | some x in input.args.prices]) > 5",
    "a list holds a fraction": "sum([1, 2.5]) > 3",
    "a variable holds an argument": "x := input.args.price; x + 1 > 5",
    "a variable is unified with an argument": "x = input.args.price; x + 1 > 5",
    "a variable is one of two things": "some x in [1, input.args.price]; x + 1 > 5",
    "a variable is an element": "some x in input.args.prices; x + 1 > 5",
    "a variable is a set's key": "some x, _ in {input.args.price}; x + 1 > 5",
    "a variable is found by unification inside a list": "[x, _] = input.args.pair; x + 1 > 5",
    "a variable is declared and bound later": "some x; input.args.prices[_] = x; x + 1 > 5",
    "every element is added to": "every x in input.args.prices { x + 1 > 5 }",
    "it is inside a comprehension": "count({x | some y in input.args.prices; x := y * 2}) > 1",
    "it is inside a template": '$"{input.args.price * 2}" == "4"',
    "it is rounded afterwards": "round(input.args.price * 100) > 435",
    "data has a fraction": "data.limits.half + 1 > 1",
    "data has a fraction among others": "data.mixed[_] + 1 > 1",
    "data is not there": "data.limits.nothing + 1 > 1",
    "a rule gives an argument": "price + 1 > 5",
    "a function gives its argument": "same(1) + 1 > 5",
    "a function adds to its argument": "count(input.args) == more(1)",
    "a rule gives a fraction otherwise": "sometimes + 1 > 5",
    "a rule goes round in a circle": "max([1, round_trip(1)]) + 1 > 5",
    "a remainder of an argument is taken": "input.args.price % 2 == 1",
}

PASSED = {
    "times are subtracted": "time.parse_rfc3339_ns(input.args.a) - time.parse_rfc3339_ns(input.args.b) > 5",
    "a duration is multiplied": 'time.parse_duration_ns("1h") * 3 > 5',
    "parts of a date are summed": "sum(time.date(input.args.at)) > 5",
    "counts are added": "count(input.args) + 1 > 5",
    "literals are multiplied": "60 * 60 * 24 > input.args.seconds",
    "an argument is rounded first": "round(input.args.price) * 100 > 435",
    "rounded elements are summed": "sum([round(x) | some x in input.args.prices]) > 5",
    "whole numbers are divided and rounded": "round(count(input.args) / 3) > 1",
    "the minute of the day is moved": "input.context.clock.minute_of_day - 60 > 480",
    "a variable holds a count": "x := count(input.args); x + 1 > 5",
    "a variable counts": "some x in numbers.range(0, 5); x + 1 > 5",
    "a variable is an index": "some index, _ in input.args.prices; index + 1 > 5",
    "data is whole": "data.limits.whole + 1 > 1",
    "data's rows are whole": "data.limits.rows[_].n + 1 > 1",
    "a rule is whole": "number + 1 > 5",
    "a rule of another package is whole": "lib.hundred * 2 > 5",
    "a function gives a whole number": "hundredths(input.args.price) + 1 > 5",
    "a table is whole": "table[input.args.letter] + 1 > 5",
    "sets are taken from each other": "count({x | some x in input.args.prices} - {1.5}) > 0",
    "keys are taken from each other": 'count(object.keys(input.args) - {"a"}) > 0',
    "collected names are taken from each other": 'count(names - {"a"}) > 0',
    "sets in variables are taken from each other": 'x := {"a", "b"}; count(x - {input.args.b}) > 0',
    "an argument is compared": "input.args.price > 87.27",
    "the largest argument is compared": "max(input.args.prices) > 87.27",
}

LIBRARY = b"package lib\n\nhundred := 100\n"
RULES = """package policies.x

import data.lib

number := 2

price := input.args.price

default sometimes := 0

sometimes := input.args.price if input.args.a

same(x) := x

more(x) := x + 1

round_trip(x) := round_trip(x)

hundredths(text) := count(text) * 100

table := {"a": 1, "b": [2, 3]}

names contains name if some name in input.args.names

"""


def _findings(opa_path: Path, condition: str) -> list[tuple[str, int]]:
    text = RULES + "deny contains 1 if {\n\t" + condition.replace("; ", "\n\t") + "\n}\n"
    trees = Opa(opa_path).parse({"policies/x/x.rego": text.encode(), "lib/tidegate/lib.rego": LIBRARY})
    start = RULES.count("\n") + 1
    return [
        (finding.code, finding.row - start)
        for finding in lint(trees, DATA)
        if finding.code == "fraction_calculated" and finding.row >= start
    ]


@pytest.mark.parametrize("condition", REPORTED.values(), ids=REPORTED.keys())
def test_lint_reports_the_line_when(condition: str, opa_path: Path) -> None:
    if condition.endswith("more(1)"):
        text = (RULES + "deny contains 1 if " + condition + "\n").encode()
        findings = lint(Opa(opa_path).parse({"policies/x/x.rego": text}), DATA)
        rows = [finding.row for finding in findings if finding.code == "fraction_calculated"]
        assert rows == [RULES[: RULES.index("more(x)")].count("\n") + 1]
        return
    found = _findings(opa_path, condition)
    assert found
    assert {code for code, _ in found} == {"fraction_calculated"}
    assert all(0 < row <= condition.count("; ") + 1 for _, row in found)


@pytest.mark.parametrize("condition", PASSED.values(), ids=PASSED.keys())
def test_lint_is_silent_when(condition: str, opa_path: Path) -> None:
    assert _findings(opa_path, condition) == []


def test_the_engines_differ_when_fractions_are_added(opa_path: Path, tmp_path: Path) -> None:
    source = b"package tidegate\n\ndecision := input.price + input.tax > 87.27\n"
    (tmp_path / "policy.rego").write_bytes(source)
    document = encode_document({"price": 86.47, "tax": 0.8})
    command = [str(opa_path), "eval", "--data", "policy.rego", "--stdin-input", "data.tidegate.decision"]
    done = subprocess.run(command, cwd=tmp_path, input=document, capture_output=True, check=True, timeout=60)
    by_opa = json.loads(done.stdout)["result"][0]["expressions"][0]["value"]
    wasm = Opa(opa_path).build_wasm({"policy.rego": source}, entrypoints=["tidegate/decision"])
    policy = WasmEngine().prepare_parts(wasm, {})
    by_wasm = orjson.loads(policy.decide(document))
    policy.close()
    assert (by_opa, by_wasm) == (True, False)
