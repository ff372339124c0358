"""Explaining with the real OPA: the starter policies, and an OPA that does not do its work."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import orjson
import pytest

from bundles.archive import read_archive
from bundles.content import BundleContent, read_content
from pdp.documents import encode_input
from pdp.errors import InputRefused, PdpError, PolicyUnavailable
from pdp.explain import NEARLY_MAX_COUNT, explain, nearly_held, rule_document
from pdp.trace import TracedRule
from tests.pdp.parts import QUESTION

DOCUMENT: dict[str, Any] = orjson.loads(encode_input(QUESTION))


@pytest.fixture(scope="session")
def starter(starter_bundle: Path) -> BundleContent:
    """The starter bundle's content."""
    files = read_archive(starter_bundle.read_bytes())
    del files[".signatures.json"]
    return read_content(files)


def asked(**properties: Any) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    document["subject"]["properties"].update(properties)
    return document


def test_denial_names_the_closest_rule_and_its_first_failing_condition(starter: BundleContent, opa_path: Path) -> None:
    explained = explain(starter, asked(roles=["guest"]), opa_path)
    assert isinstance(explained.decision, dict) and explained.decision["effect"] == "DENY"
    assert [rule for rule in explained.rules if rule.held] == []
    nearly = {(rule.rule, rule.line): rule for rule in nearly_held(explained.rules, "servicenow")}
    writer = next(rule for (name, _), rule in nearly.items() if name == "policies.servicenow.allow" and rule.passed)
    assert writer.failing is not None
    assert (writer.file, writer.failing.text) == (
        "policies/servicenow/servicenow.rego",
        "tidegate.has_any_role(writers)",
    )
    source = starter.rego[writer.file].decode().splitlines()
    assert source[writer.failing.line - 1].strip() == writer.failing.text
    assert writer.failing.because is not None and writer.failing.because.file == "lib/tidegate/helpers.rego"


def test_hold_names_every_rule_that_held_with_its_line(starter: BundleContent, opa_path: Path) -> None:
    explained = explain(starter, asked(roles=["triage"], environment="prod"), opa_path)
    assert isinstance(explained.decision, dict) and explained.decision["effect"] == "REQUIRE_HITL"
    held = [rule for rule in explained.rules if rule.held]
    assert {rule.rule for rule in held} == {"policies.servicenow.allow", "policies.servicenow.require_hitl"}
    for rule in held:
        assert starter.rego[rule.file].decode().splitlines()[rule.line - 1].startswith(rule.rule.rpartition(".")[2])
    assert orjson.loads(orjson.dumps(rule_document(held[0])))["failing"] is None


def test_decision_is_none_when_the_policy_is_undefined(starter: BundleContent, opa_path: Path) -> None:
    content = content_of(starter, b'package tidegate\n\ndecision := {} if input.v == "none"\n')
    assert explain(content, DOCUMENT, opa_path).decision is None


def content_of(starter: BundleContent, library: bytes) -> BundleContent:
    return BundleContent("r", {}, {}, {"lib/tidegate/x.rego": library}, None, (), None, (), False)


def stand_in(directory: Path, text: str) -> Path:
    """A program that stands where OPA should and does what the test wants."""
    path = directory / "opa"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return path


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param("echo no", "trace_malformed", id="no JSON"),
        pytest.param("exit 1", "trace_malformed", id="nothing"),
        pytest.param('echo \'{"errors": [{"message": "conflict"}]}\'', "opa_failed", id="an error"),
        pytest.param('echo \'{"errors": "x"}\'', "opa_failed", id="errors that are no list"),
        pytest.param("echo 1", "trace_malformed", id="a number"),
        pytest.param('echo \'{"result": [1], "explanation": []}\'', "trace_malformed", id="a result without value"),
        pytest.param("echo '{\"result\": []}'", "trace_malformed", id="no explanation"),
    ],
)
def test_explanation_is_refused_when_opa_prints(tmp_path: Path, starter: BundleContent, text: str, code: str) -> None:
    with pytest.raises(PdpError) as caught:
        explain(starter, DOCUMENT, stand_in(tmp_path, text))
    assert caught.value.code == code


def test_explanation_is_refused_when_opa_takes_too_long(tmp_path: Path, starter: BundleContent) -> None:
    with pytest.raises(PolicyUnavailable, match="opa_too_slow"):
        explain(starter, DOCUMENT, stand_in(tmp_path, "exec tail -f /dev/null"), deadline_seconds=0.2)


def test_explanation_is_refused_when_opa_prints_too_much(tmp_path: Path, starter: BundleContent) -> None:
    with pytest.raises(PolicyUnavailable, match="trace_too_large"):
        explain(starter, DOCUMENT, stand_in(tmp_path, "exec cat /dev/zero"), trace_max_bytes=1 << 16)


def test_explanation_is_refused_when_there_is_no_opa(tmp_path: Path, starter: BundleContent) -> None:
    with pytest.raises(PolicyUnavailable, match="opa_missing"):
        explain(starter, DOCUMENT, tmp_path / "opa")


def test_explanation_is_refused_when_the_question_is_not_finite(starter: BundleContent, opa_path: Path) -> None:
    with pytest.raises(InputRefused):
        explain(starter, {**DOCUMENT, "args": {"x": float("nan")}}, opa_path)


def rule(package: str, passed: int, *, held: bool = False, line: int = 1) -> TracedRule:
    return TracedRule(f"policies.{package}.allow", f"policies/{package}/x.rego", line, held, passed, 4, None)


def test_nearly_held_begins_with_the_calls_own_policies_and_the_closest() -> None:
    rules = [rule("other", 3), rule("shop", 1), rule("shop", 2, line=2), rule("common", 0), rule("shop", 4, held=True)]
    shown = nearly_held(rules, "shop")
    assert [(each.rule, each.passed) for each in shown] == [
        ("policies.shop.allow", 2),
        ("policies.shop.allow", 1),
        ("policies.common.allow", 0),
        ("policies.other.allow", 3),
    ]


def test_nearly_held_leaves_out_other_connectors_when_nothing_of_them_held() -> None:
    assert nearly_held([rule("other", 0)], "shop") == ()


def test_nearly_held_is_bounded() -> None:
    assert len(nearly_held([rule("shop", 1, line=line) for line in range(NEARLY_MAX_COUNT + 1)], "shop")) == (
        NEARLY_MAX_COUNT
    )
