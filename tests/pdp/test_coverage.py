"""OPA's coverage report, told by rule."""

from __future__ import annotations

from typing import Any

import pytest

from pdp.coverage import CoverageMalformed, FileCoverage, RuleCoverage, percent, read_coverage

NAME = "policies/shop/shop.rego"
SHOP = b"""package policies.shop

import data.tidegate

default open := false

allow contains "a" if {
	input.args.a
	input.args.b
}

deny contains "d" if input.args.d
"""


def ranges(*rows: tuple[int, int]) -> list[dict[str, Any]]:
    return [{"start": {"row": first, "col": 1}, "end": {"row": last, "col": 9}} for first, last in rows]


def report(**entry: Any) -> dict[str, Any]:
    return {"files": {NAME: entry}}


def test_lines_are_told_under_the_rule_they_stand_in() -> None:
    told = report(covered=ranges((5, 5), (7, 8)), not_covered=ranges((9, 9), (12, 12), (12, 12)))
    (file,) = read_coverage(told, {NAME: SHOP})
    assert (file.covered, file.not_covered, file.percent) == (3, 2, 60.0)
    assert file.rules == (RuleCoverage("allow", 7, (9,)), RuleCoverage("deny", 12, (12,)))


def test_line_is_covered_when_any_expression_on_it_is() -> None:
    (file,) = read_coverage(report(covered=ranges((12, 12)), not_covered=ranges((12, 12))), {NAME: SHOP})
    assert (file.not_covered, file.rules, file.percent) == (0, (), 100.0)


def test_file_is_not_covered_at_all_when_the_report_leaves_it_out() -> None:
    (file,) = read_coverage({"files": {}}, {NAME: SHOP})
    assert [rule.rule for rule in file.rules] == ["open", "allow", "deny"]
    assert file.percent == 0.0


def test_file_is_found_when_opa_writes_it_with_a_leading_slash() -> None:
    told = {"files": {f"/{NAME}": {"covered": ranges((7, 7))}, "elsewhere.rego": {}}}
    assert read_coverage(told, {NAME: SHOP}) == (FileCoverage(NAME, 1, 0, ()),)


def test_rule_has_no_name_when_a_line_stands_before_any() -> None:
    (file,) = read_coverage(report(not_covered=ranges((1, 1))), {NAME: SHOP})
    assert file.rules == (RuleCoverage("", 1, (1,)),)


@pytest.mark.parametrize(
    ("covered", "not_covered", "share"), [(0, 0, 100.0), (1, 2, 33.33), (2, 0, 100.0), (0, 3, 0.0)]
)
def test_percent_is_rounded_to_two_places(covered: int, not_covered: int, share: float) -> None:
    assert percent(covered, not_covered) == share


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(None, id="nothing"),
        pytest.param([], id="a list"),
        pytest.param({}, id="no files"),
        pytest.param({"files": []}, id="files that are a list"),
        pytest.param({"files": {NAME: 1}}, id="a file that is a number"),
        pytest.param(report(covered=[1]), id="a range that is a number"),
        pytest.param(report(covered=[{"start": {"row": 1}}]), id="a range without end"),
        pytest.param(report(covered=[{"start": {"row": "1"}, "end": {"row": 1}}]), id="a row that is text"),
        pytest.param(report(covered=ranges((0, 1))), id="row 0"),
        pytest.param(report(covered=ranges((1, 10**9))), id="a row beyond every file"),
    ],
)
def test_report_is_refused_when_it_is(told: object) -> None:
    with pytest.raises(CoverageMalformed, match="coverage_malformed"):
        read_coverage(told, {NAME: SHOP})
