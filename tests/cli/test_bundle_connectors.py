"""A connector that a gate would refuse is not signed, verified or signed again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rego
from bundles.build import source_data
from bundles.errors import BundleRefused
from bundles.keys import generate_signing_key
from cli.bundle_connectors import check_connectors, check_source
from tests.bundles.parts import write_source
from tests.e2e.harness import tidegate

Change = Callable[[dict[str, Any], dict[str, Any]], object]
"""Changes the connector's document and its schema."""


def _changed(folder: Path, change: Change) -> Path:
    connector, schema = (folder / "connectors" / "shop" / name for name in ("data.yaml", "schemas/order.json"))
    document, arguments = json.loads(connector.read_text()), json.loads(schema.read_text())
    change(document, arguments)
    connector.write_text(json.dumps(document))
    schema.write_text(json.dumps(arguments))
    return folder


def _property(**schema: Any) -> Change:
    return lambda _document, arguments: arguments["properties"].update(note=schema)


def _posted(document: dict[str, Any], arguments: dict[str, Any]) -> None:
    action = document["actions"][0]
    action["match"] |= {"method": "POST", "body": {"a": "x"}}
    action["arguments"]["body"] = "json"


FAULTS: dict[str, Change] = {
    "a type is none": _property(type="strng"),
    "the draft is another": lambda _document, arguments: arguments.update(
        {"$schema": "http://json-schema.org/draft-07/schema#"}
    ),
    "a pattern looks ahead": _property(type="string", pattern="^(?=a)b$"),
    "a JSON path is none": lambda document, _arguments: document.update(rewrite={"json": ["$.a[?(@.b)]"]}),
    "a place in the body is no pointer": _posted,
    "actions differ in their upload host only": lambda document, _arguments: document["actions"].append(
        {**document["actions"][0], "name": "order.other", "upload_host": "files"}
    ),
}


@pytest.mark.parametrize("change", FAULTS.values(), ids=FAULTS.keys())
def test_source_is_refused_when(change: Change, tmp_path: Path) -> None:
    source = _changed(write_source(tmp_path / "bundle"), change)
    with pytest.raises(BundleRefused, match="shop") as refused:
        check_source(source)
    assert refused.value.code == "manifest_invalid"


def test_build_signs_nothing_when_a_schema_does_not_compile(tmp_path: Path, opa_path: Path) -> None:
    source = _changed(write_source(tmp_path / "bundle"), FAULTS["a type is none"])
    generate_signing_key(tmp_path / "bundle.pem")
    out = tmp_path / "out.tar.gz"
    done = tidegate("bundle", "build", str(source), "--key", str(tmp_path / "bundle.pem"), "--out", str(out), "--json")
    said = json.loads(done.stdout)["error"]
    assert (done.returncode, said["code"], out.exists()) == (1, "manifest_invalid", False)
    assert said["detail"].startswith("connectors/shop: schema of shop.order.read: ")


def test_connectors_are_refused_each_with_its_own_fault(tmp_path: Path) -> None:
    shop = source_data(_changed(write_source(tmp_path / "bundle"), FAULTS["a type is none"]))["connectors"]
    assert isinstance(shop, dict) and isinstance(shop["shop"], dict)
    two = {**shop, "desk": {**shop["shop"], "connector": "desk"}}
    with pytest.raises(BundleRefused) as refused:
        check_connectors({"connectors": two})
    assert [line.partition(":")[0] for line in refused.value.detail.splitlines()] == [
        "connectors/desk",
        "connectors/shop",
    ]


def test_shipped_connectors_are_what_a_gate_takes() -> None:
    check_source(rego.root() / "starter")
