"""Both engines on the same inputs: equal, or named."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from pdp.agreement import agree
from pdp.documents import encode_input
from pdp.errors import PolicyRefused, PolicyUnavailable
from tests.pdp.parts import CHAINS, RULES, asked, compile_rego, in_environment

FILES = {"policies/rules.rego": RULES, "policies/rules_test.rego": b"package broken {"}
INPUTS = [orjson.loads(encode_input(in_environment(name))) for name in ("dev", "prod", "test")]


def test_agree_finds_nothing_when_both_decide_alike(opa_path: Path, rules_wasm: bytes) -> None:
    assert agree(FILES, {"chains": CHAINS}, rules_wasm, INPUTS * 80, opa_path) == []


def test_agree_finds_nothing_when_neither_gives_a_decision(opa_path: Path, rules_wasm: bytes) -> None:
    assert agree(FILES, {}, rules_wasm, [{}], opa_path) == []


def test_agree_names_the_inputs_when_the_module_is_of_another_policy(opa_path: Path) -> None:
    other = compile_rego(opa_path, {"a.rego": RULES.replace(b'"triage" in', b'"nobody" in')})
    found = agree(FILES, {"chains": CHAINS}, other, INPUTS, opa_path)
    assert [(one.index, one.input) for one in found] == [(0, INPUTS[0]), (2, INPUTS[2])]
    for one in found:
        assert isinstance(one.by_opa, dict)
        assert isinstance(one.by_wasm, dict)
        assert (one.by_opa["effect"], one.by_wasm["effect"]) == ("ALLOW", "DENY")


def test_agree_names_the_input_when_a_key_that_is_a_number_loses_a_denial(opa_path: Path) -> None:
    # OPA's store finds the key "2" by the number 2, the compiled policy does not: why the build refuses such data.
    rego = b'package tidegate\ndefault decision := "ALLOW"\ndecision := "DENY" if data.barred[input.args.state]\n'
    wasm = compile_rego(opa_path, {"a.rego": rego})
    inputs = [orjson.loads(encode_input(asked(args={"state": state}))) for state in (1, 2)]
    (found,) = agree({"a.rego": rego}, {"barred": {"2": True}}, wasm, inputs, opa_path)
    assert (found.index, found.by_opa, found.by_wasm) == (1, "DENY", "ALLOW")


def test_agree_is_unavailable_when_opa_cannot_be_run(tmp_path: Path, rules_wasm: bytes) -> None:
    with pytest.raises(PolicyUnavailable):
        agree(FILES, {}, rules_wasm, INPUTS, tmp_path / "absent")


def test_agree_is_unavailable_when_opa_refuses_the_policy(opa_path: Path, rules_wasm: bytes) -> None:
    with pytest.raises(PolicyUnavailable):
        agree({"a.rego": b"package tidegate\ndecision := "}, {}, rules_wasm, INPUTS, opa_path)


def test_agree_refuses_when_the_module_cannot_be_loaded(opa_path: Path) -> None:
    with pytest.raises(PolicyRefused):
        agree(FILES, {}, b"\0asm", INPUTS, opa_path)
