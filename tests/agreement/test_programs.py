"""Drawn policies and inputs: both engines answer alike, and a difference would be found, made smaller and shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agreement.comparing import Comparer, Difference, alike
from tests.agreement.programs import Policy, draw_inputs, draw_policies

SHORT_SEEDS = (1, 2, 3)
SHORT_PAIRS = 300
LONG_PAIRS = 10_000
POLICIES_COUNT = 10


@pytest.fixture(scope="module")
def comparer(opa_path: Path) -> Comparer:
    """Both engines."""
    return Comparer(opa_path)


@pytest.mark.timeout(300)
def test_engines_agree_when_policies_and_inputs_are_drawn(comparer: Comparer) -> None:
    found = [comparer.compare(seed, POLICIES_COUNT, 12) for seed in SHORT_SEEDS]
    assert sum(batch.pairs for batch in found) >= SHORT_PAIRS
    assert sum(batch.values for batch in found) > 4 * SHORT_PAIRS
    assert [str(difference) for batch in found for difference in batch.differences] == []


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_engines_agree_when_ten_thousand_pairs_are_drawn(comparer: Comparer) -> None:
    seed = pairs = 0
    while pairs < LONG_PAIRS:
        batch = comparer.compare(seed, POLICIES_COUNT, 25)
        assert [str(difference) for difference in batch.differences] == []
        seed, pairs = seed + 1, pairs + batch.pairs
        assert seed < LONG_PAIRS // 100, "too many policies were refused"


def test_the_same_seed_draws_the_same_when_drawn_again() -> None:
    assert draw_policies(7, 3) == draw_policies(7, 3)
    assert draw_inputs(7, 3) == draw_inputs(7, 3)
    assert draw_policies(7, 3) != draw_policies(8, 3)
    assert draw_inputs(7, 3) != draw_inputs(8, 3)


def test_a_difference_is_made_smaller_when_rules_and_members_do_not_matter(comparer: Comparer) -> None:
    policy = Policy("p00", ('out["other"] := 1', "total := input.price + input.tax", 'out["over"] := total > 87.27'))
    document = {"price": 86.47, "tax": 0.8, "note": "x"}
    by_opa, by_wasm = comparer.decided([policy], [document])
    found = Difference(5, policy, document, by_opa[0]["p00"], by_wasm[0]["p00"])
    assert not alike(found.by_opa, found.by_wasm)
    smaller = comparer.smaller(found)
    assert smaller.policy.rules == policy.rules[1:]
    assert smaller.document == {"price": 86.47, "tax": 0.8}
    assert (smaller.by_opa, smaller.by_wasm) == ({"over": True}, {"over": False})
    assert "seed 5" in str(smaller)
    assert "total > 87.27" in str(smaller)


DIFFERENT = [
    ({"a": 1}, {"a": 2}),
    ({"a": [1, 2]}, {"a": [2, 1]}),
    ({"a": 1}, None),
    (None, {}),
    ({"set_a": [1]}, {"set_a": []}),
]


@pytest.mark.parametrize(("left", "right"), DIFFERENT)
def test_answers_differ_when_a_value_or_an_order_does(left: object, right: object) -> None:
    assert not alike(left, right)


def test_answers_are_alike_when_only_a_set_has_another_order() -> None:
    assert alike({"set_a": [2, 1], "b": 1}, {"b": 1, "set_a": [1, 2]})
