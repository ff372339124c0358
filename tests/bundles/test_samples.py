"""Generated inputs: reproducible, about every action, made of what the schemas and the policies mention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bundles.compiler import Opa
from bundles.manifest import load_manifest
from bundles.profile import string_literals
from bundles.samples import SAMPLES_MAX_COUNT, SAMPLES_MIN_COUNT, compared_texts, sample_inputs

PROPERTIES: dict[str, Any] = {
    "state": {"enum": ["open", "closed"]},
    "kind": {"const": "order"},
    "note": {"type": "string"},
    "count": {"type": "integer"},
    "price": {"type": "number"},
    "urgent": {"type": "boolean"},
    "nothing": {"type": "null"},
    "either": {"type": ["string", "null"]},
    "one": {"oneOf": [{"type": "integer"}, {"type": "boolean"}]},
    "lines": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}}}},
    "matrix": {"type": "array", "items": {"type": "array", "items": {"type": "array", "items": {"type": "array"}}}},
    "deep": {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {
        "type": "object", "properties": {"c": {"type": "object", "properties": {"d": {"anyOf": [{}]}}}}}}}}},
    "any": True,
    "list": {"type": "array"},
}  # fmt: skip


def _shop(count: int = 1) -> Any:
    actions = [
        {
            "name": f"order.a{index}", "match": {"method": "POST", "path": f"/orders/{index}/{{id}}"}, "mode": "write",
            "arguments": {"schema": {"type": "object", "properties": PROPERTIES, "required": ["state"]}, "body": "json"},
        }
        for index in range(count)
    ]  # fmt: skip
    document: dict[str, Any] = {
        "connector": "shop", "version": "1.0.0", "caller_token": ["bearer"], "credential_places": ["bearer"],
        "auth": {"kind": "none"}, "actions": actions,
    }  # fmt: skip
    return {"shop": load_manifest(document)}


TEXTS = ["reader", "prod_write", "Not a role", "tidegate.call.read", "tidegate.switch.set"]


def test_inputs_are_the_same_when_made_again() -> None:
    assert sample_inputs(_shop(), TEXTS) == sample_inputs(_shop(), TEXTS)


def test_inputs_are_about_every_action_and_our_own() -> None:
    inputs: Any = sample_inputs(_shop(3), TEXTS)
    assert len(inputs) == SAMPLES_MIN_COUNT
    names = {document["action"]["name"] for document in inputs}
    assert names == {"shop.order.a0", "shop.order.a1", "shop.order.a2", "tidegate.call.read", "tidegate.switch.set"}
    modes = {document["action"]["properties"]["mode"] for document in inputs if "switch" in document["action"]["name"]}
    assert modes == {"write"}


def test_inputs_are_never_more_than_the_limit() -> None:
    assert len(sample_inputs(_shop(200), TEXTS)) == SAMPLES_MAX_COUNT


def test_inputs_hold_what_schemas_and_policies_name() -> None:
    inputs: Any = sample_inputs(_shop(), ["reader"])
    arguments = [document["args"] for document in inputs]
    assert {args["state"] for args in arguments} == {"open", "closed"}
    assert all(isinstance(args["count"], int) for args in arguments if "count" in args)
    assert any("lines" in args and args["lines"] for args in arguments)
    roles = {role for document in inputs for role in document["subject"]["properties"]["roles"]}
    assert roles == {"reader"}
    assert any("approval" in document["context"] for document in inputs)


def test_inputs_are_made_when_policies_name_nothing() -> None:
    assert len(sample_inputs(_shop(), [])) == SAMPLES_MIN_COUNT


def test_no_inputs_are_made_when_there_is_nothing_to_ask() -> None:
    assert sample_inputs({}, []) == []


POLICY = """package policies.shop

import data.tidegate

restricted := {"qa-9"}

deny contains "unlabelled" if {
	tidegate.in_environment("uat")
	input.action.name == "shop.order.a1"
	labels := [line | some line in input.args.lines]
	not "owner" in labels
}

deny contains "abroad" if input.subject.properties.tenant in {"umbrella", "Wayne"}

deny contains "weak" if input.subject.properties.acr == "urn:weak"

deny contains "closed" if input.subject.properties.workspace in restricted

deny contains "own" if {
	some mine in ["bot-77"]
	input.subject.id == mine
}

deny contains "night" if input.context.clock.zone == "Asia/Tokyo"

deny contains "placed" if input.resource.properties.placement == "basement"

allow contains "clerks" if "desk-clerk" in input.subject.properties.roles
"""
COMMON = """package policies.common

deny contains "eu" if input.resource.properties.instance == "shop-eu-2"
"""
OTHER = """package policies.other

deny contains "x" if input.subject.properties.environment == "elsewhere"
"""


@pytest.fixture(scope="module")
def trees(opa_path: Path) -> dict[str, Any]:
    """Three policies and a helper of the library, as OPA parses them."""
    files = {
        "lib/tidegate/x.rego": b'package tidegate\n\nlate if input.subject.properties.tenant == "nobody"\n',
        "policies/shop/shop.rego": POLICY.encode(),
        "policies/common/common.rego": COMMON.encode(),
        "policies/other/other.rego": OTHER.encode(),
    }
    return dict(Opa(opa_path).parse(files))


@pytest.fixture(scope="module")
def drawn(trees: dict[str, Any]) -> Any:
    """The inputs for these policies and three actions of a shop."""
    return sample_inputs(_shop(3), string_literals(trees), compared_texts(trees))


def test_compared_texts_are_those_beside_a_members_name(trees: dict[str, Any]) -> None:
    compared = compared_texts(trees)
    assert compared["common"] == {"instance": ["shop-eu-2"]}
    assert compared["other"] == {"environment": ["elsewhere"]}
    shop = compared["shop"]
    assert shop["environment"] == ["uat"]
    assert shop["tenant"] == ["Wayne", "umbrella"]
    assert shop["workspace"] == ["qa-9"]
    assert {"bot-77"} <= set(shop["id"])
    assert shop["zone"] == ["Asia/Tokyo"]
    assert shop["roles"] == ["desk-clerk"]


def test_compared_texts_pass_over_what_is_no_policy() -> None:
    assert compared_texts({"policies/x/x.rego": None, "policies/y.rego": {}, "policies/z/z.rego": {"rules": None}}) == {
        "z": {}
    }


NAMED = {
    "environment": {"uat"},
    "tenant": {"umbrella", "Wayne", "acme"},
    "workspace": {"qa-9", "it"},
    "acr": {"urn:weak", "phr"},
}


@pytest.mark.parametrize(("name", "wanted"), NAMED.items(), ids=NAMED.keys())
def test_inputs_are_of_the_subjects_that_policies_name(name: str, wanted: set[str], drawn: Any) -> None:
    assert wanted <= {document["subject"]["properties"].get(name) for document in drawn}


def test_inputs_are_of_the_things_and_times_that_policies_name(drawn: Any) -> None:
    assert "bot-77" in {document["subject"]["id"] for document in drawn}
    assert "shop-eu-2" in {document["resource"]["properties"]["instance"] for document in drawn}
    assert {"UTC", "Asia/Tokyo"} <= {document["context"]["clock"]["zone"] for document in drawn}
    assert any("desk-clerk" in document["subject"]["properties"]["roles"] for document in drawn)


@pytest.mark.parametrize("empty", [True, False], ids=["all empty", "filled"])
@pytest.mark.parametrize("action", ["shop.order.a0", "shop.order.a1", "shop.order.a2"])
def test_inputs_hold_every_container_in_an_environment_that_a_policy_names_when(
    action: str, empty: bool, drawn: Any
) -> None:
    in_it = [
        document["args"]
        for document in drawn
        if document["action"]["name"] == action and document["subject"]["properties"]["environment"] == "uat"
    ]
    for name, nothing in (("lines", []), ("matrix", []), ("list", []), ("deep", {})):
        assert any((args.get(name) == nothing) is empty for args in in_it if name in args)


def test_inputs_are_placed_where_a_policy_looks_for_them(drawn: Any) -> None:
    resources = [document["resource"]["properties"] for document in drawn if "resource" in document]
    placed = {properties["placement"] for properties in resources if "placement" in properties}
    assert "basement" in placed


def test_inputs_hold_what_is_required_alone(drawn: Any) -> None:
    assert any(document["args"].keys() == {"state"} for document in drawn)
