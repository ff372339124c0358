"""What ships compiled is what its sources compile to, and decides what the cases say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import rego
from bundles.canonical import JsonValue, sha256_hex
from bundles.claims import parse_structured
from bundles.errors import BundleRefused
from bundles.source import read_source, sources_digest
from pdp.decision_document import comparable, parse_decision
from pdp.input_document import encode_document
from pdp.wasm.host import WasmEngine, WasmPolicy
from tests.rego.rebuild import BUILT, STARTER, committed, main, rebuild

CASES = {probe.name: probe for probe in read_source(STARTER).cases}
CHAINS = json.loads((STARTER / "chains" / "data.json").read_bytes())


@pytest.fixture(scope="module")
def shipped() -> Iterator[WasmPolicy]:
    """The shipped module with the starter's data."""
    data: dict[str, JsonValue] = {}
    for name, raw in read_source(STARTER).data_files.items():
        *folders, last, _ = name.split("/")
        node = data
        for folder in folders:
            child = node.setdefault(folder, {})
            assert isinstance(child, dict)
            node = child
        node[last] = parse_structured(name, raw)
    policy = WasmEngine().prepare_parts((BUILT / "policy.wasm").read_bytes(), data)
    yield policy
    policy.close()


def test_built_files_are_the_rebuilt_ones_byte_for_byte_when_rebuilt_here(opa_path: Path) -> None:
    assert opa_path.is_file()
    assert rebuild() == committed()


def test_built_files_are_the_same_when_sources_lie_elsewhere(opa_path: Path, tmp_path: Path) -> None:
    assert opa_path.is_file()
    elsewhere = tmp_path / "some where" / "else"
    shutil.copytree(STARTER, elsewhere)
    assert rebuild(elsewhere)["policy.wasm"] == (BUILT / "policy.wasm").read_bytes()


def test_digests_are_those_of_what_ships_when_compared() -> None:
    digests = json.loads((BUILT / "digests.json").read_bytes())
    assert digests["policy.wasm"] == sha256_hex((BUILT / "policy.wasm").read_bytes())
    assert digests["sources"] == sources_digest(read_source(STARTER).rego)


def test_rebuild_refuses_when_a_case_expects_another_decision(opa_path: Path, tmp_path: Path) -> None:
    assert opa_path.is_file()
    changed = tmp_path / "starter"
    shutil.copytree(STARTER, changed)
    case = changed / "policies" / "servicenow" / "cases" / "delete-is-denied.json"
    document = json.loads(case.read_bytes())
    document["decision"]["effect"] = "ALLOW"
    case.write_text(json.dumps(document))
    with pytest.raises(BundleRefused) as refused:
        rebuild(changed)
    assert refused.value.code == "case_failed"


def test_rebuild_says_usage_when_called_with_an_unknown_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--force"]) == 2
    assert "--check" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(CASES))
def test_shipped_module_decides_as_recorded_when_asked_a_case(shipped: WasmPolicy, name: str) -> None:
    case = CASES[name]
    raw = shipped.decide(encode_document(case.input))
    assert comparable(json.loads(raw)) == comparable(case.decision)
    assert parse_decision(raw, chains=CHAINS).effect == case.decision["effect"]


EXPECTED = {
    "case-servicenow-triage-reads": ("ALLOW", ["reader"]),
    "case-servicenow-triage-writes-outside-prod": ("ALLOW", ["incident_writer"]),
    "case-servicenow-delete-is-denied": ("DENY", ["no_deletes"]),
    "case-servicenow-approved-delete-is-denied": ("DENY", ["no_deletes"]),
    "case-servicenow-triage-writes-to-prod-is-held": ("REQUIRE_HITL", ["prod_write"]),
    "case-servicenow-approved-write-to-prod-passes": ("ALLOW", ["incident_writer", "prod_write"]),
    "case-servicenow-pending-write-to-prod-stays-held": ("REQUIRE_HITL", ["prod_write"]),
    "case-servicenow-write-approved-by-another-chain-stays-held": ("REQUIRE_HITL", ["prod_write"]),
    "case-servicenow-stranger-is-denied": ("DENY", ["no_rule_matched"]),
    "case-servicenow-unknown-action-is-denied": ("DENY", ["no_rule_matched"]),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_shipped_module_gives_effect_and_codes_when_asked_of_the_quick_start(shipped: WasmPolicy, name: str) -> None:
    decision = parse_decision(shipped.decide(encode_document(CASES[name].input)), chains=CHAINS)
    assert (decision.effect, [reason.code for reason in decision.reasons]) == EXPECTED[name]


def test_shipped_module_holds_for_the_one_approver_when_a_write_goes_to_prod(shipped: WasmPolicy) -> None:
    case = CASES["case-servicenow-triage-writes-to-prod-is-held"]
    decision = parse_decision(shipped.decide(encode_document(case.input)), chains=CHAINS)
    assert decision.approval is not None
    assert decision.approval.chains == ("one-approver",)


def test_library_is_where_root_says_when_imported() -> None:
    assert (rego.root() / "lib" / "tidegate" / "decision.rego").is_file()
    assert (rego.root() / "capabilities.json").is_file()
