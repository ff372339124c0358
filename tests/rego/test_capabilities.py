"""The profile's capabilities: OPA's own declarations, of native and sound builtins alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import rego

CAPABILITIES = json.loads((rego.root() / "capabilities.json").read_bytes())
DECLARED = {builtin["name"]: builtin for builtin in CAPABILITIES["builtins"]}

# Each answers wrongly in Wasm, loses a denial, poisons the instance, traps, or reaches outside.
REFUSED = [
    "base64.decode",
    "base64.is_valid",
    "base64url.decode",
    "bits.and",
    "ceil",
    "crypto.sha256",
    "floor",
    "format_int",
    "glob.match",
    "graph.reachable",
    "http.send",
    "io.jwt.decode_verify",
    "json.filter",
    "json.is_valid",
    "json.marshal",
    "json.remove",
    "json.unmarshal",
    "net.cidr_contains",
    "net.cidr_expand",
    "net.cidr_intersects",
    "net.lookup_ip_addr",
    "opa.runtime",
    "providers.aws.sign_req",
    "rand.intn",
    "regex.replace",
    "regex.split",
    "rego.parse_module",
    "sprintf",
    "time.now_ns",
    "to_number",
    "trace",
    "uuid.rfc4122",
    "yaml.unmarshal",
]


@pytest.mark.parametrize("name", REFUSED)
def test_capabilities_leave_out_a_builtin_when_it_is_unsound_or_not_native(name: str) -> None:
    assert name not in DECLARED


@pytest.mark.parametrize("name", REFUSED)
def test_opa_refuses_a_policy_when_it_uses_a_refused_builtin(opa_path: Path, tmp_path: Path, name: str) -> None:
    policy = tmp_path / "policy.rego"
    policy.write_text(f"package policies.x\n\ndeny contains x if x := {name}(input.a)\n")
    command = [str(opa_path), "check", "--capabilities", str(rego.root() / "capabilities.json"), str(policy)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert "undefined function" in ended.stderr


def test_capabilities_declare_builtins_as_the_pinned_opa_does_when_compared(opa_path: Path) -> None:
    command = [str(opa_path), "capabilities", "--current"]
    current = json.loads(subprocess.run(command, capture_output=True, timeout=60, check=True).stdout)
    known = {builtin["name"]: builtin for builtin in current["builtins"]}
    assert {name: known.get(name) for name in DECLARED} == DECLARED
    assert CAPABILITIES["features"] == current["features"]
    assert CAPABILITIES["future_keywords"] == current["future_keywords"]


def test_capabilities_allow_no_host_when_a_policy_asks_the_network() -> None:
    assert CAPABILITIES["allow_net"] == []
