"""The profile's capabilities: OPA's own declarations, of builtins that are native and sound or that the host answers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import rego
from pdp.wasm.builtins.table import NAMES, find
from pdp.wasm.host import WasmEngine
from tests.pdp.parts import compile_rego

CAPABILITIES = json.loads((rego.root() / "capabilities.json").read_bytes())
DECLARED = {builtin["name"]: builtin for builtin in CAPABILITIES["builtins"]}

# Each answers wrongly in Wasm, loses a denial, poisons the instance, traps, or reaches outside.
REFUSED = [
    "base64.decode",
    "base64.is_valid",
    "base64url.decode",
    "bits.and",
    "cast_string",
    "ceil",
    "crypto.x509.parse_certificates",
    "floor",
    "format_int",
    "glob.match",
    "graphql.parse",
    "graph.reachable",
    "http.send",
    "io.jwt.decode_verify",
    "json.filter",
    "json.is_valid",
    "json.marshal",
    "json.match_schema",
    "json.remove",
    "json.unmarshal",
    "net.cidr_contains",
    "net.cidr_intersects",
    "net.lookup_ip_addr",
    "object.union_n",
    "opa.runtime",
    "providers.aws.sign_req",
    "rand.intn",
    "regex.template_match",
    "rego.parse_module",
    "strings.render_template",
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


def test_capabilities_declare_every_builtin_that_the_host_answers() -> None:
    assert DECLARED.keys() >= NAMES


def test_the_host_answers_every_builtin_that_is_not_native(opa_path: Path, tmp_path: Path) -> None:
    # What OPA's compiler leaves to the host is what a module with every declared builtin lists.
    calls = []
    for number, name in enumerate(sorted(NAMES)):
        count = len(DECLARED[name]["decl"].get("args", []))
        operands = ", ".join(f"input.a{index}" for index in range(count))
        calls.append(f"answers contains {number} if _ = {name}({operands})")
    files = {"a.rego": ("package tidegate\n\ndecision := answers\n\n" + "\n\n".join(calls) + "\n").encode()}
    policy = WasmEngine().prepare_parts(compile_rego(opa_path, files), {})
    assert policy.decide(b"{}") == b"[]"
    policy.close()
    assert find(NAMES).keys() == NAMES


def test_capabilities_allow_no_host_when_a_policy_asks_the_network() -> None:
    assert CAPABILITIES["allow_net"] == []
