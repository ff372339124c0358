"""Facts that a policy reads, found in its text."""

from __future__ import annotations

from typing import Any

import pytest

from pdp.facts import FACTS_MAX_COUNT, facts_read, missing_facts

LIBRARY = b"""package tidegate

has_role(role) if role in input.subject.properties.roles

approved(chain) if chain in input.context.approval.chains

twice(role) if {
	has_role(role)
	input.context.clock.minute_of_day > 5
}

default quiet := false

quiet if input.context.quiet
"""


def read(policy: str, connector: str = "shop") -> set[str]:
    rego = {"policies/shop/shop.rego": policy.encode(), "lib/tidegate/helpers.rego": LIBRARY}
    return {".".join(path) for path in facts_read(rego, connector)}


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        pytest.param("x if input.args.amount > 5", {"args.amount"}, id="dots"),
        pytest.param('x if input.context["facts"]["ci"].passed', {"context.facts.ci.passed"}, id="brackets"),
        pytest.param("x if some r in input.subject.properties.roles", {"subject.properties.roles"}, id="iterated"),
        pytest.param("x if input.args.items[i].price > 1", {"args.items"}, id="an index ends what text can tell"),
        pytest.param('x if "input.args.a" == y', set(), id="in a string"),
        pytest.param("x if `input.args.a` == y", set(), id="in a raw string"),
        pytest.param('x if "\\"" == input.args.a', {"args.a"}, id="after an escaped quote"),
        pytest.param("# input.args.a\nx := 1", set(), id="in a comment"),
        pytest.param("x if data.input.args.a", set(), id="below data"),
        pytest.param("x if my_input.args.a", set(), id="another name that ends alike"),
        pytest.param('x if tidegate.has_role("a")', {"subject.properties.roles"}, id="through a helper"),
        pytest.param(
            'x if data.tidegate.twice("a")',
            {"subject.properties.roles", "context.clock.minute_of_day"},
            id="through a helper of a helper",
        ),
        pytest.param("x if tidegate.quiet", {"context.quiet"}, id="through a helper with a default"),
        pytest.param("x if tidegate.nosuch(1)", set(), id="through a helper that is not there"),
    ],
)
def test_facts_are_found_when_they_stand(text: str, facts: set[str]) -> None:
    assert read(f"package policies.shop\n\n{text}\n") == facts


@pytest.mark.parametrize(
    "name",
    ["policies/other/x.rego", "policies/shopping/x.rego", "policies/shop/shop_test.rego", "lib/other/x.rego"],
)
def test_facts_are_left_out_when_the_file_grants_nothing_to_the_call(name: str) -> None:
    assert facts_read({name: b"x if input.args.a"}, "shop") == frozenset()


def test_facts_of_common_policies_count_for_every_connector() -> None:
    assert facts_read({"policies/common/c.rego": b"x if input.args.a"}, "shop") == {("args", "a")}


def question(**args: Any) -> dict[str, Any]:
    return {"resource": {"properties": {"connector": "shop"}}, "args": args, "context": {}}


def test_missing_names_the_whole_when_several_inside_are_missing() -> None:
    policy = b"x if { input.context.approval.state; input.context.approval.chains; input.args.a; input.args.b.c }"
    lacking = missing_facts({"policies/shop/x.rego": policy}, question(a=None, b=[]))
    assert lacking == ("args.b.c", "context.approval")


def test_missing_is_empty_when_everything_is_there() -> None:
    assert missing_facts({"policies/shop/x.rego": b"x if input.args.a == false"}, question(a=False)) == ()


@pytest.mark.parametrize("resource", [None, {}, {"properties": []}, {"properties": {"connector": 1}}])
def test_missing_is_the_connector_when_the_question_names_none(resource: object) -> None:
    assert missing_facts({}, {"resource": resource}) == ("resource.properties.connector",)


def test_missing_is_bounded_when_a_policy_reads_very_much() -> None:
    policy = " ".join(f"input.args.a{number:03d}" for number in range(FACTS_MAX_COUNT + 1)).encode()
    found = missing_facts({"policies/shop/x.rego": policy}, question())
    assert len(found) == FACTS_MAX_COUNT and found[0] == "args.a000"
