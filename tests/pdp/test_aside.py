"""A bundle asked aside: its answers are what the gate would enforce, failures included."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles.trusted_set import TrustedBundle
from pdp.aside import AsidePolicy
from pdp.decided import NO_ANSWER, REFUSED_BY
from pdp.documents import Effect, encode_input
from pdp.errors import PolicyRefused
from tests.pdp.parts import QUESTION, bundle_of, compile_rego, in_environment


def test_aside_decides_as_the_policy_says(rules: TrustedBundle) -> None:
    policy = AsidePolicy(rules)
    try:
        assert policy.engine == "wasm"
        assert policy.decide(encode_input(QUESTION)).effect is Effect.ALLOW
        assert policy.decide(encode_input(in_environment("prod"))).effect is Effect.REQUIRE_HITL
    finally:
        policy.close()


@pytest.mark.parametrize(
    ("decision", "code", "by"),
    [
        pytest.param('{"effect": "ALLOW"}', "decision_malformed", REFUSED_BY, id="a malformed decision"),
        pytest.param(
            '{"effect": "ROUTE", "reasons": [], "obligations": {"route": {"target": 1}}}',
            "decision_malformed",
            REFUSED_BY,
            id="an obligation of a wrong type",
        ),
        pytest.param("1 if input.v == 2", "engine_failed", NO_ANSWER, id="no decision"),
    ],
)
def test_aside_denies_when_the_policy_gives(opa_path: Path, decision: str, code: str, by: str) -> None:
    policy = AsidePolicy(
        bundle_of(compile_rego(opa_path, {"x.rego": f"package tidegate\n\ndecision := {decision}\n".encode()}))
    )
    try:
        for _ in range(2):
            decided = policy.decide(encode_input(QUESTION))
            assert decided.effect is Effect.DENY
            assert [(reason.code, reason.rule) for reason in decided.reasons] == [(code, by)]
    finally:
        policy.close()


def test_aside_denies_when_it_is_closed(rules: TrustedBundle) -> None:
    policy = AsidePolicy(rules)
    policy.close()
    assert policy.decide(encode_input(QUESTION)).reasons[0].code == "engine_failed"


@pytest.mark.parametrize("changes", [{"profile": None}, {"wasm": None}, {"entrypoints": ()}])
def test_aside_refuses_a_bundle_that_the_gate_would_refuse(rules: TrustedBundle, changes: dict[str, object]) -> None:
    with pytest.raises(PolicyRefused):
        AsidePolicy(bundle_of(rules.wasm, **changes) if "wasm" not in changes else bundle_of(None))
