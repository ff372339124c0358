"""The description of the interface: whole, and no operation without its parameters, body and refusals."""

from __future__ import annotations

import json
import re

import jsonschema_rs
import pytest

from gateway.api.openapi import description

OPERATIONS = [(path, method) for path, item in description()["paths"].items() for method in item]


def test_description_is_plain_json_and_always_the_same() -> None:
    assert description() is description()
    assert json.loads(json.dumps(description())) == description()
    assert (description()["openapi"], description()["info"]["title"]) == ("3.1.0", "Tidegate")


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=[f"{method} {path}" for path, method in OPERATIONS])
def test_operation_says_what_it_takes_and_how_it_refuses(path: str, method: str) -> None:
    operation = description()["paths"][path][method]
    in_path = [given for given in operation["parameters"] if given["in"] == "path"]
    assert [given["name"] for given in in_path] == re.findall(r"\{([^}]+)\}", path)
    assert all(given["required"] is (given["in"] == "path") for given in operation["parameters"])
    for given in operation["parameters"]:
        jsonschema_rs.Draft202012Validator(given["schema"])
    assert operation["summary"]
    refused = operation["responses"]["default"]
    reference = refused["content"]["application/problem+json"]["schema"]["$ref"]
    assert reference.rpartition("/")[2] in description()["components"]["schemas"]
    assert any(status.startswith("2") for status in operation["responses"])
    body = operation.get("requestBody")
    if body is not None:
        assert method in ("post", "put") and body["required"]
        jsonschema_rs.Draft202012Validator(body["content"]["application/json"]["schema"])


def test_operations_that_change_something_are_all_there() -> None:
    assert {("/v1/calls", "post"), ("/v1/approvals/{id}/votes", "post")} <= set(OPERATIONS)
