"""OPA's trace, event by event."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from pdp.trace import CAUSES_DEPTH_MAX, TEXT_MAX_CHARACTERS, ReportLines, Trace, TracedRule, TraceMalformed

SHOP = b"""package policies.shop

allow contains "reader" if {
	is_reader
	input.args.amount < 5
}

is_reader if "reader" in input.subject.properties.roles
"""
REGO = {"policies/shop/shop.rego": SHOP, "lib/tidegate/x.rego": b"package tidegate\n\nallow := 1\n"}
FILE = "policies/shop/shop.rego"


def traced_rules(events: object, rego: dict[str, bytes]) -> tuple[TracedRule, ...]:
    """The policy rules of a whole trace, its report read as `opa eval` prints it."""
    trace = Trace(rego)
    lines = ReportLines(trace)
    for line in json.dumps({"explanation": events}, indent=2).encode().splitlines(keepends=True):
        lines.take(line)
    lines.finish()
    return trace.rules()


def enter(query: int, parent: int, name: str, line: int, *, conditions: int = 1, file: str = FILE) -> dict[str, Any]:
    body = [{"index": index, "terms": {}} for index in range(conditions)]
    return event("Enter", query, line, {"head": {"name": name}, "body": body}, parent=parent, file=file)


def event(
    kind: str, query: int, line: int, node: Any, *, parent: int = 0, file: str = FILE, column: int = 2
) -> dict[str, Any]:
    place = {"file": file, "row": line, "col": column}
    return {"Op": kind, "QueryID": query, "ParentID": parent, "Node": node, "Location": place}


def step(kind: str, query: int, line: int, index: int) -> dict[str, Any]:
    return event(kind, query, line, {"index": index})


def leave(query: int, name: str, line: int) -> dict[str, Any]:
    return event("Exit", query, line, {"head": {"name": name}})


ALLOW = enter(1, 0, "allow", 3, conditions=2)
READER = enter(2, 1, "is_reader", 8)


def test_rule_held_when_it_was_left_by_its_exit() -> None:
    (rule,) = traced_rules([ALLOW, step("Eval", 1, 4, 0), step("Eval", 1, 5, 1), leave(1, "allow", 3)], REGO)
    assert (rule.rule, rule.file, rule.line) == ("policies.shop.allow", FILE, 3)
    assert (rule.held, rule.passed, rule.conditions, rule.failing) == (True, 2, 2, None)


def test_rule_failed_at_the_furthest_condition_of_all_attempts() -> None:
    attempts = [step("Eval", 1, 4, 0), step("Eval", 1, 5, 1), step("Fail", 1, 5, 1), step("Fail", 1, 4, 0)]
    (rule,) = traced_rules([ALLOW, *attempts], REGO)
    assert rule.failing is not None
    assert (rule.failing.line, rule.failing.text, rule.passed) == (5, "input.args.amount < 5", 1)


def test_cause_is_the_condition_inside_the_rule_that_was_asked() -> None:
    inside = [step("Eval", 1, 4, 0), READER, step("Eval", 2, 8, 0), step("Fail", 2, 8, 0), step("Fail", 1, 4, 0)]
    (rule,) = traced_rules([ALLOW, *inside], REGO)
    assert rule.failing is not None and rule.failing.because is not None
    assert (rule.failing.line, rule.failing.because.line) == (4, 8)


def test_cause_is_left_out_when_the_asked_rule_held() -> None:
    inside = [step("Eval", 1, 4, 0), READER, leave(2, "is_reader", 8), step("Fail", 1, 4, 0)]
    (rule,) = traced_rules([ALLOW, *inside], REGO)
    assert rule.failing is not None and rule.failing.because is None


def test_causes_end_when_rules_ask_one_another_without_end() -> None:
    events = [ALLOW, step("Eval", 1, 4, 0)]
    for number in range(2, CAUSES_DEPTH_MAX + 10):
        events += [enter(number, number - 1, "is_reader", 8), step("Eval", number, 8, 0)]
    events += [step("Fail", number, 8, 0) for number in range(CAUSES_DEPTH_MAX + 9, 1, -1)]
    (rule,) = traced_rules([*events, step("Fail", 1, 4, 0)], REGO)
    depth, cause = 0, rule.failing
    while cause is not None:
        depth, cause = depth + 1, cause.because
    assert depth == CAUSES_DEPTH_MAX + 1


def test_rule_held_when_one_of_its_evaluations_did() -> None:
    again = enter(5, 0, "allow", 3, conditions=2)
    events = [ALLOW, step("Fail", 1, 4, 0), again, leave(5, "allow", 3)]
    assert [rule.held for rule in traced_rules(events, REGO)] == [True]


def test_name_is_found_when_the_head_is_a_reference() -> None:
    head = {"ref": [{"type": "var", "value": "deny"}]}
    entered = event("Enter", 1, 3, {"head": head, "body": []})
    assert [rule.rule for rule in traced_rules([entered], REGO)] == ["policies.shop.deny"]


@pytest.mark.parametrize(
    "entered",
    [
        pytest.param(enter(1, 0, "is_reader", 8), id="a rule that decides nothing"),
        pytest.param(enter(1, 0, "allow", 3, file="lib/tidegate/x.rego"), id="a rule of the library"),
        pytest.param(enter(1, 0, "allow", 3, file="elsewhere.rego"), id="a file that was not asked about"),
        pytest.param(event("Enter", 1, 3, [{"index": 0}]), id="a body without a rule"),
        pytest.param(event("Note", 1, 3, None), id="a note"),
    ],
)
def test_rule_is_left_out_when_it_is(entered: dict[str, Any]) -> None:
    assert traced_rules([entered], REGO) == ()


def test_text_is_cut_when_a_line_is_very_long() -> None:
    long = {FILE: SHOP.replace(b"input.args.amount < 5", b"x" * 1000)}
    (rule,) = traced_rules([ALLOW, step("Fail", 1, 5, 1)], long)
    assert rule.failing is not None and len(rule.failing.text) == TEXT_MAX_CHARACTERS


@pytest.mark.parametrize("line", [0, -1, 99])
def test_text_is_empty_when_the_line_is_none_of_the_file(line: int) -> None:
    (rule,) = traced_rules([ALLOW, step("Fail", 1, line, 1)], REGO)
    assert rule.failing is not None and rule.failing.text == ""


def spoilt(**members: Any) -> list[dict[str, Any]]:
    first = copy.deepcopy(ALLOW)
    first.update(members)
    return [first]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(None, id="no list"),
        pytest.param({}, id="an object"),
        pytest.param([1], id="an event that is a number"),
        pytest.param(spoilt(Op=None), id="no kind"),
        pytest.param(spoilt(QueryID="1"), id="a query that is text"),
        pytest.param(spoilt(ParentID=None), id="no parent"),
        pytest.param(spoilt(Location=None), id="no location"),
        pytest.param(spoilt(Location={"file": FILE, "row": "3", "col": 1}), id="a row that is text"),
        pytest.param(spoilt(Location={"row": 3, "col": 1}), id="no file"),
        pytest.param(spoilt(Node={"head": {"name": "allow"}}), id="no body"),
        pytest.param(spoilt(Node={"head": {}, "body": []}), id="no name"),
        pytest.param(spoilt(Node={"head": {"ref": [1]}, "body": []}), id="a reference of numbers"),
    ],
)
def test_trace_is_refused_when_it_has(events: object) -> None:
    with pytest.raises(TraceMalformed, match="trace_malformed"):
        traced_rules(events, REGO)


def test_trace_is_refused_when_a_file_has_no_package() -> None:
    with pytest.raises(TraceMalformed):
        traced_rules([], {"policies/x.rego": b"allow := 1\n"})


EVENTS = [ALLOW, step("Eval", 1, 4, 0), READER, step("Fail", 2, 8, 0), step("Fail", 1, 4, 0)]


def read_lines(text: str) -> tuple[dict[str, Any], Trace]:
    """The rest of a report and its trace, read as OPA's output is."""
    trace = Trace(REGO)
    lines = ReportLines(trace)
    for line in text.encode().splitlines(keepends=True):
        lines.take(line)
    return lines.finish(), trace


@pytest.mark.parametrize("indent", [None, 1, 2, 4])
@pytest.mark.parametrize("first", ["result", "explanation"])
def test_report_is_read_alike_however_it_is_written(indent: int | None, first: str) -> None:
    parts = {"result": [{"expressions": [{"value": {"text": "a\n    }\n"}}]}], "explanation": EVENTS}
    ordered = {first: parts.pop(first), **parts}
    report, trace = read_lines(json.dumps(ordered, indent=indent))
    assert report == {"result": ordered["result"]}
    assert trace.rules() == traced_rules(EVENTS, REGO) != ()


@pytest.mark.parametrize("indent", [None, 2])
def test_report_is_refused_when_it_is_cut_anywhere(indent: int | None) -> None:
    text = json.dumps({"explanation": EVENTS[:2], "result": []}, indent=indent)
    for length in range(len(text)):
        with pytest.raises(TraceMalformed):
            read_lines(text[:length])


def test_report_needs_no_explanation_when_it_has_errors() -> None:
    report, trace = read_lines(json.dumps({"errors": [{"message": "m"}]}, indent=2))
    assert report["errors"][0]["message"] == "m" and trace.rules() == ()


@pytest.mark.parametrize("text", ["", "[]", "1", '{"result": []}', '{"explanation": {}}', '{"explanation": [1]}'])
def test_report_is_refused_when_it_says(text: str) -> None:
    with pytest.raises(TraceMalformed):
        read_lines(text)
