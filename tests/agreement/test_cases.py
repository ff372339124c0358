"""OPA's own cases on the embedded engine: none that the profile accepts is answered otherwise."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.agreement.cases import Case, all_cases
from tests.agreement.judging import SET, Judge, same, same_bindings, unordered
from tests.agreement.page import asked, judged, page

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "engine-agreement.md"
CASES_COUNT = 2289
STRIDE = 70
_FINDING = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*|data: \w+|load: \w+|rego_\w+: .*", re.DOTALL)


@pytest.fixture(scope="session")
def judge(opa_path: Path) -> Judge:
    """Judges without a cache."""
    return Judge(opa_path)


def _case(**changes: Any) -> Case:
    plain = Case("x", "x/x", "data.x.p = x", ("package x\n\np := [1, 2]\n",), {}, {}, True, None, False, False, False)
    return replace(plain, **changes)


@pytest.mark.timeout(300)
def test_a_sample_of_opas_cases_agrees_or_is_refused_with_its_line(judge: Judge) -> None:
    found = [judge.judge(case) for case in all_cases()[::STRIDE]]
    assert [judgement for judgement in found if judgement.end == "differs"] == []
    assert {judgement.end for judgement in found} >= {"agrees", "refused"}
    for judgement in found:
        if judgement.end == "refused":
            assert _FINDING.fullmatch(judgement.reason), judgement
            assert judgement.row > 0 or judgement.reason.startswith(("data: ", "load: ")), judgement


def test_the_page_speaks_of_all_cases_of_the_pinned_opa() -> None:
    families = {case.family for case in all_cases()}
    text = PAGE.read_text(encoding="utf-8")
    assert len(all_cases()) == CASES_COUNT
    assert f"OPA ships {CASES_COUNT} evaluation cases" in text
    assert families == set(re.findall(r"^\| (\w[\w-]*) \| \d", text, re.MULTILINE))
    assert "| accepted, and the answer is another one | **0** |" in text
    assert "| accepted, and a builtin of the host declines: the decision ends as `engine_failed` | " in text
    assert f"The same {CASES_COUNT} cases" in text
    assert "| the answer is another one | **0** |" in text


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_page_is_current_when_all_cases_are_judged_again() -> None:
    numbers = range(len(all_cases()))
    assert page(judged(numbers), asked(numbers)) == PAGE.read_text(encoding="utf-8")


ENDS = {
    "the value is the wanted one": (_case(bindings=({"x": [1, 2]},)), "agrees"),
    "the value is another one": (_case(bindings=({"x": [1, 3]},)), "differs"),
    "a list has another order": (_case(bindings=({"x": [2, 1]},)), "differs"),
    "a number is a boolean": (_case(bindings=({"x": [True, 2]},)), "differs"),
    "there is a value and none is wanted": (_case(bindings=()), "differs"),
    "there is none and one is wanted": (
        _case(modules=("package x\n\np := 1 if false\n",), bindings=({"x": 1},)),
        "differs",
    ),
    "a set has another order": (_case(modules=('package x\n\np := {"b", "a"}\n',), bindings=({"x": ["a", "b"]},)), "agrees"),
    "a set lacks an element": (_case(modules=('package x\n\np := {"b", "a"}\n',), bindings=({"x": ["a"]},)), "differs"),
    "an error is wanted and comes": (
        _case(modules=("package x\n\np := v if some v in [1, 2]\n",), wants_error=True),
        "error as wanted",
    ),
    "an error is wanted and a value comes": (_case(wants_error=True), "differs"),
    "an error comes and a value is wanted": (
        _case(modules=("package x\n\np := v if some v in [1, 2]\n",), bindings=({"x": 1},)),
        "differs",
    ),
    "a builtin is not in the profile": (_case(modules=('package x\n\np := yaml.marshal([])\n',)), "refused"),
    "a format is no literal": (_case(modules=('package x\n\np := sprintf(input.a, [])\n',)), "refused"),
    "a builtin of the host declines": (_case(modules=('package x\n\np := hex.decode("ff")\n',)), "declined"),
    "a number is beyond JSON": (_case(modules=("package x\n\np := 1e400\n",)), "refused"),
    "fractions are added": (_case(modules=("package x\n\np := 0.5 + input.a\n",)), "refused"),
    "a key of data reads as a number": (_case(data={"1": 2}), "refused"),
    "the input is a number": (_case(input_document=1), "cannot be asked"),
}  # fmt: skip


@pytest.mark.parametrize(("case", "end"), ENDS.values(), ids=ENDS.keys())
def test_a_case_ends_so_when(case: Case, end: str, judge: Judge) -> None:
    assert judge.judge(case).end == end


def test_a_decline_names_the_builtin(judge: Judge) -> None:
    found = judge.judge(_case(modules=('package x\n\np := hex.decode("ff")\n',), wants_error=True))
    assert (found.end, found.reason) == ("declined", "hex.decode")


def test_a_refusal_names_builtin_and_line(judge: Judge) -> None:
    found = judge.judge(_case(modules=("package x\n\n# one line more\np := yaml.marshal([])\n",)))
    assert (found.reason, found.row, found.detail) == ("yaml.marshal", 4, "case0")


SAME = [([1, 2], [1, 2]), ({"a": 1.0}, {"a": 1}), ("1", "1"), (None, None), ([], [])]
NOT_SAME = [
    ([1, 2], [2, 1]),
    ({"a": 1}, {"b": 1}),
    (1, True),
    (0, False),
    ("1", 1),
    (None, False),
    ([], {}),
    ([1], [1, 1]),
]


@pytest.mark.parametrize(("left", "right"), SAME)
def test_values_are_the_same_when_json_says_so(left: Any, right: Any) -> None:
    assert same(left, right)


@pytest.mark.parametrize(("left", "right"), NOT_SAME)
def test_values_differ_when_json_says_so(left: Any, right: Any) -> None:
    assert not same(left, right)


def test_only_what_is_marked_a_set_loses_its_order() -> None:
    value = unordered({"x": [["b", "a"], ["b", "a"]]}, [["x", 1]])
    assert value == {"x": [["b", "a"], {SET: ["a", "b"]}]}
    assert same(value, {"x": [["b", "a"], ["a", "b"]]})
    assert not same(value, {"x": [["a", "b"], ["a", "b"]]})


def test_bindings_count_when_they_repeat() -> None:
    assert same_bindings([{"x": 1}, {"x": 2}], [{"x": 2}, {"x": 1}])
    assert not same_bindings([{"x": 1}, {"x": 1}], [{"x": 1}])
    assert not same_bindings([{"x": 1}], [{"x": 1}, {"x": 1}])
