"""Generated inputs: reproducible, about every action, made of what the schemas and the policies mention."""

from __future__ import annotations

from typing import Any

from bundles.manifest import load_manifest
from bundles.samples import SAMPLES_MAX_COUNT, SAMPLES_MIN_COUNT, sample_inputs

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
