"""Builtins that a policy asks its host for, through a compiled module and through modules that misbehave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from pdp.errors import EngineFailed
from pdp.input_document import encode_document
from pdp.wasm.host import WasmEngine, WasmPolicy
from pdp.wasm.limits import WasmLimits
from tests.pdp.parts import ALLOW, bundle_of, compile_rego, evaluating, module_text

REGO = b"""package tidegate

decision := {
	"starts": [text | some text in input.args.texts; strings.any_prefix_match(text, {"ab", "\xc3\xa9"})],
	"digest": digest,
	"patched": patched,
	"range": object.get(input.args, "range", null),
	"more": more,
}

default digest := "undefined"

digest := hex.decode(input.args.hex)

default patched := {}

patched := json.patch({"a": {1, 2}}, input.args.patch)

more := [sprintf("%v %d", [text, 7]) | some text in input.args.texts]
"""


@pytest.fixture(scope="module")
def wasm(opa_path: Path) -> bytes:
    """The module that asks for several builtins."""
    return compile_rego(opa_path, {"a.rego": REGO})


@pytest.fixture(params=[True, False], ids=["quick", "typed"])
def prepared(request: pytest.FixtureRequest, wasm: bytes) -> Callable[..., WasmPolicy]:
    """Prepares the module, called in either of the two ways."""

    def prepare(**limits: int) -> WasmPolicy:
        return WasmEngine(limits=WasmLimits(**limits), unchecked=request.param).prepare_parts(wasm, {})

    return prepare


def _question(**args: object) -> bytes:
    return encode_document({"args": {"texts": [], "hex": "6162", "patch": [], **args}})


def test_host_answers_when_a_policy_asks(prepared: Callable[..., WasmPolicy]) -> None:
    policy = prepared()
    question = _question(texts=["abc", "éa", "x"], hex="6162", patch=[{"op": "add", "path": ["b"], "value": "ß\n\0"}])
    for _ in range(3):
        answer = orjson.loads(policy.decide(question))
        assert answer["starts"] == ["abc", "éa"]
        assert answer["digest"] == "ab"
        assert answer["patched"] == {"a": [1, 2], "b": "ß\n\0"}
        assert answer["more"] == ["abc 7", "éa 7", "x 7"]
    policy.close()


def test_a_call_is_undefined_when_opa_would_report_an_error(prepared: Callable[..., WasmPolicy]) -> None:
    policy = prepared()
    answer = orjson.loads(policy.decide(_question(hex="6", patch=[{"op": "remove", "path": "/zz"}])))
    assert (answer["digest"], answer["patched"]) == ("undefined", {})
    policy.close()


def test_a_decision_fails_and_the_next_is_right_when_a_builtin_declines(prepared: Callable[..., WasmPolicy]) -> None:
    policy = prepared()
    with pytest.raises(EngineFailed, match="hex.decode: "):
        policy.decide(_question(hex="ff"))
    assert orjson.loads(policy.decide(_question()))["digest"] == "ab"
    policy.close()


def test_a_decision_ends_out_of_fuel_when_it_asks_too_often(prepared: Callable[..., WasmPolicy]) -> None:
    policy = prepared(host_call_fuel=1_000_000)
    policy.decide(_question(texts=["a"] * 10))
    with pytest.raises(EngineFailed, match="out of fuel"):
        policy.decide(_question(texts=["a"] * 60))
    policy.close()


def test_a_decision_ends_out_of_fuel_when_operands_are_long(prepared: Callable[..., WasmPolicy]) -> None:
    policy = prepared(host_fuel_per_byte=10_000)
    with pytest.raises(EngineFailed, match="out of fuel"):
        policy.decide(_question(texts=["a" * 10_000]))
    policy.close()


def test_a_decision_fails_when_an_operand_is_beyond_the_bound(prepared: Callable[..., WasmPolicy]) -> None:
    policy = prepared(host_value_max_bytes=1_000)
    with pytest.raises(EngineFailed, match="no end"):
        policy.decide(_question(texts=["a" * 2_000]))
    policy.close()


IMPORT = """(import "env" "opa_builtin1" (func $ask (param i32 i32 i32) (result i32)))
  (import "env" "opa_builtin2" (func $ask2 (param i32 i32 i32 i32) (result i32)))"""
HELPERS = """(func (export "opa_value_dump") (param i32) (result i32) (local.get 0))
  (func (export "opa_value_parse") (param i32 i32) (result i32) (i32.const {parsed}))
  (data (i32.const 2048) "\\22ab\\22\\00")"""
LISTED = b'{"hex.encode": 7}'


def _policy(body: str, *, builtins: bytes = LISTED, parsed: int = 1024, more: str = "") -> WasmPolicy:
    text = evaluating(body) + HELPERS.format(parsed=parsed) + more
    return WasmEngine().prepare(
        bundle_of(module_text(text, answer=b'[{"result":' + ALLOW + b"}]", builtins=builtins, imports=IMPORT))
    )


def test_a_module_gets_the_address_it_parsed_when_it_asks() -> None:
    policy = _policy("(call $ask (i32.const 7) (i32.const 0) (i32.const 2048))")
    assert policy.decide(b"{}") == ALLOW


MISBEHAVING = {
    "the builtin is not listed": ("(call $ask (i32.const 8) (i32.const 0) (i32.const 2048))", {}, "does not list"),
    "the operand lies outside": ("(call $ask (i32.const 7) (i32.const 0) (i32.const 0x7ffffff0))", {}, "outside its memory"),
    "the operand lies below zero": ("(call $ask (i32.const 7) (i32.const 0) (i32.const -16))", {}, "hex.encode failed"),
    "there are too many operands": (
        "(call $ask2 (i32.const 7) (i32.const 0) (i32.const 2048) (i32.const 2048))",
        {},
        "hex.encode failed: TypeError",
    ),
    "the operand is no value": ("(call $ask (i32.const 7) (i32.const 0) (i32.const 512))", {}, "hex.encode: a value"),
    "the answer is not read": (
        "(call $ask (i32.const 7) (i32.const 0) (i32.const 2048))",
        {"parsed": 0},
        "does not read the answer",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "parts", "reason"), MISBEHAVING.values(), ids=MISBEHAVING.keys())
def test_a_decision_fails_when(body: str, parts: dict[str, int], reason: str) -> None:
    policy = _policy(body, **parts)
    with pytest.raises(EngineFailed, match=reason):
        policy.decide(b"{}")
    assert not policy.ready


def test_preparing_fails_when_a_builtin_is_called_while_loading() -> None:
    start = "(func $early (drop (call $ask (i32.const 7) (i32.const 0) (i32.const 2048)))) (start $early)"
    with pytest.raises(Exception, match="before the module was loaded"):
        _policy("(i32.const 1024)", more=start)


def test_preparing_refuses_when_the_module_cannot_be_asked_for_values() -> None:
    text = module_text(evaluating("(i32.const 1024)"), builtins=LISTED)
    with pytest.raises(Exception, match="does not export opa_value_dump"):
        WasmEngine().prepare(bundle_of(text))
