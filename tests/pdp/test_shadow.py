"""Questions put to a second bundle after they were answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from bundles.trusted_set import TrustedBundle
from pdp.aside import AsidePolicy
from pdp.decided import Decided
from pdp.documents import Decision, Effect, PolicyInput, Reason
from pdp.replay import Kind
from pdp.shadow import Answered, compare
from tests.pdp.parts import QUESTION, RULES, asked, bundle_of, compile_rego, in_environment

ALLOWED = Decision(Effect.ALLOW, (Reason("role", "policies.servicenow.allow", "as triage"),))


@pytest.fixture
def policy(rules: TrustedBundle) -> Iterator[AsidePolicy]:
    """The small policy, aside."""
    aside = AsidePolicy(rules)
    yield aside
    aside.close()


def answered(question: PolicyInput, decision: Decision) -> Answered:
    return Answered(question, Decided(decision, "r0", "sha256:active", 1, "wasm", "d1", "sha256:ff", 0.0))


def test_nothing_differs_when_the_same_policy_answers_again(policy: AsidePolicy) -> None:
    assert compare(policy, [answered(QUESTION, ALLOWED)], "sha256:shadow") == (1, 0, ())


def test_difference_names_call_kind_and_both_bundles(policy: AsidePolicy) -> None:
    denied = Decision(Effect.DENY, (Reason("no", "policies.servicenow.deny", "m"),))
    compared = compare(policy, [answered(QUESTION, denied)], "sha256:shadow")
    (difference,) = compared.differences
    assert (difference.tenant, difference.workspace, difference.call) == ("acme", "ops", "call-1")
    assert difference.kind is Kind.LOOSENING
    told = orjson.loads(difference.data)
    assert (told["decision"], told["bundle"], told["shadow"]) == ("d1", "sha256:active", "sha256:shadow")
    assert (told["before"]["effect"], told["after"]["effect"]) == ("DENY", "ALLOW")
    assert b"printer" not in difference.data


def test_difference_is_stricter_when_the_second_bundle_holds(policy: AsidePolicy) -> None:
    compared = compare(policy, [answered(in_environment("prod"), ALLOWED)], "s")
    assert [difference.kind for difference in compared.differences] == [Kind.TIGHTENING]


def test_question_counts_as_failed_when_it_cannot_be_put_again(policy: AsidePolicy) -> None:
    batch = [answered(asked(args={"x": float("inf")}), ALLOWED), answered(QUESTION, ALLOWED)]
    assert compare(policy, batch, "s") == (1, 1, ())


def test_failing_policy_counts_as_stricter(opa_path: Path) -> None:
    broken = RULES.replace(b"decision := {", b"decision := {} if input.v == 7\n\nnothing := {")
    policy = AsidePolicy(bundle_of(compile_rego(opa_path, {"x.rego": broken})))
    try:
        (difference,) = compare(policy, [answered(QUESTION, ALLOWED)], "s").differences
    finally:
        policy.close()
    assert difference.kind is Kind.TIGHTENING
    assert orjson.loads(difference.data)["after"]["reasons"][0]["code"] == "engine_failed"
