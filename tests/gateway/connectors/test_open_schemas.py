"""Actions of high risk are never open, whatever their manifest says."""

from __future__ import annotations

from typing import Any

import pytest

from bundles.errors import BundleRefused
from bundles.manifest import ConnectorManifest
from gateway.connectors.arguments import SchemaSet
from tests.gateway.connectors.parts import action, manifest


def _opened(schema: dict[str, Any], risk: str) -> ConnectorManifest:
    """A manifest whose one action says ``additional: true``; made past the manifest's own check."""
    loaded = manifest(action("a.x", "POST", "/a", body="json", additional=True))
    one = loaded.actions[0]
    arguments = one.arguments.model_copy(update={"schema_": schema})
    return loaded.model_copy(update={"actions": (one.model_copy(update={"arguments": arguments, "risk": risk}),)})


OPEN: dict[str, dict[str, Any]] = {
    "nothing of it": {},
    "all of it": {"additionalProperties": True},
    "a part of it": {"properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}},
    "what composition leaves over": {"allOf": [{"properties": {}}], "unevaluatedProperties": True},
}


@pytest.mark.parametrize("left", OPEN)
def test_schema_is_refused_when_the_risk_is_high_and_it_leaves_open(left: str) -> None:
    with pytest.raises(BundleRefused, match="open where it must be closed") as caught:
        SchemaSet(_opened(OPEN[left], "high"))
    assert caught.value.code == "manifest_invalid"


@pytest.mark.parametrize("risk", ["low", "medium"])
def test_schema_is_taken_when_the_risk_is_lower_and_it_leaves_all_of_it_open(risk: str) -> None:
    SchemaSet(_opened({"additionalProperties": True}, risk)).validate("svc.a.x", {"anything": 1})


def test_schema_is_taken_when_the_risk_is_high_and_it_closes_itself() -> None:
    closed = {"properties": {"a": {"type": "string"}}, "additionalProperties": False}
    SchemaSet(_opened(closed, "high")).validate("svc.a.x", {"a": "b"})
