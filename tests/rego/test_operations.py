"""The starter policy grants the gate's own operations: each that exists, and none that does not."""

from __future__ import annotations

import re

from gateway.api.operations import OPERATIONS, action_name
from tests.rego.rebuild import STARTER

POLICY = STARTER / "policies" / "tidegate" / "tidegate.rego"


def test_starter_policy_grants_each_operation_when_read_beside_those_of_the_gate() -> None:
    granted = set(re.findall(r'"(tidegate\.[a-z_.]+)"', POLICY.read_text(encoding="utf-8")))
    assert granted == {action_name(operation) for operation in OPERATIONS}
