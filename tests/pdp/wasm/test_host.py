"""The embedded engine: right answers, and every way to give none."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from bundles.trusted_set import TrustedBundle
from pdp.documents import Effect, encode_document, encode_input, parse_decision
from pdp.errors import EngineFailed, PolicyRefused
from pdp.wasm.host import WasmEngine, WasmPolicy
from pdp.wasm.limits import WasmLimits
from tests.pdp.parts import (
    ALLOW,
    CHAINS,
    QUESTION,
    asked,
    bundle_of,
    compile_rego,
    evaluating,
    in_environment,
    module_text,
)

INPUT = encode_input(QUESTION)
ANSWER_AT = "(i32.const 1024)"
ANSWERED = b'[{"result":' + ALLOW + b"}]"
# A module whose start function never ends.
ENDLESS_START = "(func $forever (loop (br 0))) (start $forever)"


def prepared(body: str, *, answer: bytes = ANSWERED, limits: WasmLimits | None = None, **parts: object) -> WasmPolicy:
    """A policy made of a module with this ``opa_eval``."""
    wasm = module_text(body, answer=answer, **parts)  # type: ignore[arg-type]
    return WasmEngine(limits=limits).prepare_parts(wasm, {})


def failure(policy: WasmPolicy, raw: bytes = INPUT) -> str:
    """Why a question got no answer."""
    with pytest.raises(EngineFailed) as failed:
        policy.decide(raw)
    assert failed.value.code == "engine_failed"
    return failed.value.detail


@pytest.mark.parametrize(
    ("environment", "effect"), [("dev", Effect.ALLOW), ("prod", Effect.REQUIRE_HITL)], ids=["allowed", "held"]
)
@pytest.mark.parametrize("unchecked", [True, False], ids=["quick call", "typed call"])
def test_decide_gives_the_policys_decision_when_it_is_defined(
    rules: TrustedBundle, environment: str, effect: Effect, unchecked: bool
) -> None:
    engine = WasmEngine(unchecked=unchecked)
    assert engine.unchecked is unchecked
    policy = engine.prepare(rules)
    answer = policy.decide(encode_input(in_environment(environment)))
    assert parse_decision(answer, chains=CHAINS).effect is effect
    policy.close()


def test_decide_gives_the_same_bytes_when_asked_ten_thousand_times(rules: TrustedBundle, engine: WasmEngine) -> None:
    policy = engine.prepare(rules)
    questions = [encode_input(in_environment(name)) for name in ("dev", "prod")]
    first = [policy.decide(question) for question in questions]
    assert first[0] != first[1]
    for _ in range(5_000):
        assert [policy.decide(question) for question in questions] == first
    policy.close()


@pytest.mark.parametrize("size", [0, 1, 4_095, 70_000, 262_144, 262_145, 3_000_000])
def test_decide_reads_the_whole_input_when_it_is_of_any_size(
    rules: TrustedBundle, engine: WasmEngine, size: int
) -> None:
    policy = engine.prepare(rules)
    small = policy.decide(INPUT)
    large = encode_input(asked(args={"note": "x" * size, "more": [1.5] * (size % 1_000)}))
    assert policy.decide(large) == small
    assert policy.decide(INPUT) == small
    policy.close()


def test_decide_keeps_text_when_it_is_not_ascii(opa_path: Path, engine: WasmEngine) -> None:
    rego = b'package tidegate\ndecision := {"said": input.args.note, "at": data.words.a}\n'
    policy = engine.prepare_parts(
        compile_rego(opa_path, {"a.rego": rego}), {"words": {"a": '\u00fc\U0001f600\u0000\u2028"'}}
    )
    for note in ("é\u4e2d\U0001f600", "\u0000\u001f\x7f", '"\\', "\u2028\u2029"):
        answer = orjson.loads(policy.decide(encode_input(asked(args={"note": note}))))
        assert answer == {"said": note, "at": '\u00fc\U0001f600\u0000\u2028"'}
    policy.close()


# --- no decision


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(b"[]", "undefined", id="undefined"),
        pytest.param(b"", "not JSON", id="an empty answer"),
        pytest.param(b"{}", "not a list", id="an object instead of results"),
        pytest.param(b"true", "not a list", id="true"),
        pytest.param(b'[{"result":1},{"result":2}]', "2 results", id="two results"),
        pytest.param(b'[{"result":' + ALLOW + b'},{"result":' + ALLOW + b"}]", "2 results", id="two equal results"),
        pytest.param(b'[{"result":1}', "not JSON", id="cut short"),
        pytest.param(b'[{"expressions":[]}]', "another shape", id="another member"),
        pytest.param(b'[{"result":1,"x":{"result":2}}]', "another shape", id="a member too many"),
        pytest.param(b"[[]]", "another shape", id="a list of lists"),
        pytest.param(b'[{"result":\xff', "not JSON", id="not UTF-8"),
    ],
)
def test_decide_fails_when_the_engine_gave_not_exactly_one_result(answer: bytes, why: str) -> None:
    assert why in failure(prepared(evaluating(ANSWER_AT), answer=answer))


def test_decide_gives_the_result_when_the_decision_has_a_member_of_that_name() -> None:
    answer = b'[{"result":{"result":[{"result":1}]}}]'
    assert prepared(evaluating(ANSWER_AT), answer=answer).decide(INPUT) == b'{"result":[{"result":1}]}'


@pytest.mark.parametrize(
    ("body", "why"),
    [
        pytest.param("(loop (br 0)) unreachable", "out of fuel", id="a loop without end"),
        pytest.param(
            "(call $eval (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))",
            "stack exhausted",
            id="recursion without end",
        ),
        pytest.param("(call $abort (i32.const 512)) (i32.const 1024)", "aborted: gave up", id="opa_abort"),
        pytest.param("(call $abort (i32.const -1)) (i32.const 1024)", "aborted", id="opa_abort with no message"),
        pytest.param("unreachable", "unreachable", id="a trap"),
        pytest.param("(i32.div_u (i32.const 1) (i32.const 0))", "division by zero", id="a division by zero"),
        pytest.param("(i32.load (i32.const 0x7fffffff))", "out of bounds", id="a read outside the memory"),
        pytest.param("(i32.const 0)", "outside its memory", id="no answer's address"),
        pytest.param("(i32.const -1)", "outside its memory", id="an address past the memory"),
        pytest.param(
            """(memory.fill (i32.const 20000) (i32.const 32) (i32.sub (i32.mul (memory.size) (i32.const 65536))
            (i32.const 20000))) (i32.const 20000)""",
            "no end",
            id="an answer without an end",
        ),
    ],
)
@pytest.mark.parametrize("unchecked", [True, False], ids=["quick call", "typed call"])
def test_decide_fails_and_stands_again_when_the_engine_stopped(body: str, why: str, unchecked: bool) -> None:
    wasm = module_text(evaluating(body), answer=ANSWERED)
    policy = WasmEngine(unchecked=unchecked).prepare_parts(wasm, {})
    for _ in range(3):
        assert why in failure(policy)
        assert not policy.ready
    policy.close()


def test_the_deadline_is_counted_in_work_when_a_policy_runs_away() -> None:
    policy = prepared(evaluating("(loop (br 0)) unreachable"))
    started = time.process_time()
    assert failure(policy) == "out of fuel"
    # A generous bound on a busy machine; the figure itself is a benchmark's.
    assert time.process_time() - started < 1


@pytest.mark.parametrize("spare", [0, 1])
def test_fuel_ends_a_decision_exactly_when_one_unit_is_missing(spare: int) -> None:
    needed = next(fuel for fuel in range(1, 40) if _answers(fuel))
    assert _answers(needed + spare)
    assert not _answers(needed - 1 - spare)


def _answers(fuel: int) -> bool:
    policy = prepared(
        evaluating(f"(drop (i32.const 1)) (drop (i32.const 2)) {ANSWER_AT}"),
        limits=WasmLimits(decision_fuel=fuel, input_fuel_per_byte=0),
    )
    # Room for the input is made under the same fuel; a question this small needs none.
    try:
        policy.decide(b"{}")
    except EngineFailed as failed:
        assert failed.detail == "out of fuel"
        return False
    finally:
        policy.close()
    return True


def test_decide_fails_when_memory_beyond_the_cap_is_asked_for() -> None:
    grow = """(block $full (loop $more
      (br_if $full (i32.eq (memory.grow (i32.const 16)) (i32.const -1))) (br $more)))
      (call $abort (i32.const 512)) (i32.const 1024)"""
    assert failure(prepared(evaluating(grow))) == "aborted: gave up"


def test_decide_fails_when_a_compiled_policy_needs_more_memory_than_a_decision_may(opa_path: Path) -> None:
    rego = b"""package tidegate
decision := {"n": count(all)}
all := [concat("-", [x, y, z]) | some x in input.args.words; some y in input.args.words; some z in input.args.words]
"""
    limits = WasmLimits(decision_memory_max_bytes=4 << 20, decision_fuel=10**10)
    policy = WasmEngine(limits=limits).prepare_parts(compile_rego(opa_path, {"a.rego": rego}), {})
    few = encode_input(asked(args={"words": ["word"] * 5}))
    assert policy.decide(few) == b'{"n":125}'
    assert "opa_malloc" in failure(policy, encode_input(asked(args={"words": ["word" * 20] * 60})))
    assert policy.decide(few) == b'{"n":125}'
    policy.close()


def test_decide_fails_when_a_compiled_policy_works_for_a_second(opa_path: Path, engine: WasmEngine) -> None:
    rego = b"""package tidegate
decision := {"n": count({x | some a in input.args.n; some b in input.args.n; some c in input.args.n; x := (a * b) * c})}
"""
    policy = engine.prepare_parts(compile_rego(opa_path, {"a.rego": rego}), {})
    assert failure(policy, encode_input(asked(args={"n": list(range(400))}))) == "out of fuel"
    assert policy.decide(encode_input(asked(args={"n": [1, 2]}))) == b'{"n":4}'
    policy.close()


def test_decide_answers_or_fails_when_the_input_is_as_deep_as_allowed(opa_path: Path, engine: WasmEngine) -> None:
    rego = b'package tidegate\ndecision := {"n": count([1 | walk(input, [_, x]); x == 7])}\n'
    policy = engine.prepare_parts(compile_rego(opa_path, {"a.rego": rego}), {})
    deep: object = 7
    for _ in range(498):
        deep = {"a": deep}
    assert policy.decide(encode_document({"a": deep})) == b'{"n":1}'
    policy.close()


@pytest.mark.parametrize(
    "rego",
    [
        pytest.param(b"package tidegate\ndecision := 1 if input.never\n", id="an undefined rule"),
        pytest.param(
            b"package tidegate\ndecision := input.args.note if true\ndecision := 2 if true\n", id="a conflict"
        ),
        pytest.param(b"package tidegate\ndecision := x if x := 1 / (input.args.state - 2)\n", id="a division by zero"),
    ],
)
def test_decide_fails_when_a_compiled_policy_has_no_value(opa_path: Path, engine: WasmEngine, rego: bytes) -> None:
    policy = engine.prepare_parts(compile_rego(opa_path, {"a.rego": rego}), {})
    assert failure(policy)
    policy.close()


def test_the_next_decision_is_right_when_an_instance_was_poisoned() -> None:
    # Answers rightly once, stops the second time, and would answer nothing but [] ever after.
    body = f"""(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (if (i32.eq (global.get $calls) (i32.const 2)) (then (i32.store8 (i32.const 1025) (i32.const 93))
        (i32.store8 (i32.const 1026) (i32.const 0)) (unreachable)))
      {ANSWER_AT}"""
    policy = prepared(evaluating(body))
    assert policy.decide(INPUT) == ALLOW
    failure(policy)
    assert policy.decide(INPUT) == ALLOW


def test_the_next_decision_is_right_when_an_undefined_one_was_a_sign_of_poison() -> None:
    body = f"""(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (if (result i32) (i32.ge_u (global.get $calls) (i32.const 2)) (then (i32.const 8190)) (else {ANSWER_AT}))"""
    policy = prepared(evaluating(body) + '(data (i32.const 8189) "\\00[]")', builtins=b"{}")
    assert policy.decide(INPUT) == ALLOW
    failure(policy)
    assert policy.decide(INPUT) == ALLOW


def test_the_next_decision_is_right_when_json_is_valid_poisoned_the_runtime(opa_path: Path, engine: WasmEngine) -> None:
    # A builtin outside the profile; what it leaves behind is why an instance that gave nothing is never asked again.
    rego = b"""package tidegate
decision := {"ok": input.args.a == 2, "all": [x | x := [true, false][_]]} if not json.is_valid(input.args.b)
decision := {"ok": true, "all": [x | x := [true, false][_]]} if json.is_valid(input.args.b)
"""
    policy = engine.prepare_parts(compile_rego(opa_path, {"a.rego": rego}), {})
    question = encode_document({"args": {"a": 2, "b": "true"}})
    answers = set()
    for _ in range(50):
        try:
            answers.add(policy.decide(question))
        except EngineFailed:
            assert not policy.ready
    assert len({orjson.dumps(orjson.loads(answer), option=orjson.OPT_SORT_KEYS) for answer in answers}) <= 1
    policy.close()


# --- what is not admitted


def refusal(bundle: TrustedBundle, engine: WasmEngine) -> str:
    """The code for which a bundle is not loaded."""
    with pytest.raises(PolicyRefused) as refused:
        engine.prepare(bundle)
    return refused.value.code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"profile": None}, "policy_profile_missing", id="no profile"),
        pytest.param({"profile": "2"}, "policy_profile_missing", id="an unknown profile"),
        pytest.param({"profile": ""}, "policy_profile_missing", id="an empty profile"),
        pytest.param({"entrypoints": ()}, "policy_entrypoint_missing", id="no entry point"),
        pytest.param({"entrypoints": ("tidegate/decision/x",)}, "policy_entrypoint_missing", id="another entry point"),
        pytest.param({"wasm": None}, "policy_wasm_missing", id="no module"),
        pytest.param({"wasm": b""}, "policy_wasm_invalid", id="an empty module"),
        pytest.param({"wasm": b"\0asm\x01\0\0\0"}, "policy_wasm_invalid", id="a module of nothing"),
        pytest.param({"wasm": b"\0asm garbage"}, "policy_wasm_invalid", id="garbage"),
        pytest.param(
            {"data": {"tidegate": {"decision": True}}}, "policy_data_overlap", id="data that replaces the decision"
        ),
        pytest.param({"data": {"tidegate": {}}}, "policy_data_overlap", id="data at the package"),
        pytest.param({"data": {"tidegate": 1}}, "policy_data_overlap", id="a number at the package"),
        pytest.param({"data": {"a": object()}}, "policy_data_invalid", id="data that is not JSON"),
        pytest.param({"data": {"2": True}}, "policy_data_numeric_key", id="a first key that reads as a number"),
        pytest.param(
            {"data": {"a": {"2.5": True}}}, "policy_data_numeric_key", id="a second key that reads as a number"
        ),
        pytest.param(
            {"data": {"a": [{"b": {"-1": {}}}]}}, "policy_data_numeric_key", id="a deep key that reads as a number"
        ),
        pytest.param({"data": {"a": [{"1e3": {}}]}}, "policy_data_numeric_key", id="a key with an exponent"),
        pytest.param({"rego": {"a.rego": b"# nothing"}}, "policy_package_unreadable", id="a file without a package"),
    ],
)
def test_prepare_refuses_when_the_bundle_is_outside_the_profile(
    rules_wasm: bytes, engine: WasmEngine, changes: dict[str, Any], code: str
) -> None:
    assert refusal(bundle_of(rules_wasm, **changes), engine) == code


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param(b"yaml.marshal(input.args)", id="yaml"),
        pytest.param(b'http.send({"method": "GET", "url": "http://127.0.0.1:1"})', id="http.send"),
        pytest.param(b"time.now_ns()", id="the clock"),
        pytest.param(b"opa.runtime()", id="the environment"),
        pytest.param(b'rand.intn("x", 10)', id="chance"),
    ],
)
def test_prepare_refuses_when_a_builtin_is_neither_native_nor_the_hosts(
    opa_path: Path, engine: WasmEngine, expression: bytes
) -> None:
    wasm = compile_rego(opa_path, {"a.rego": b"package tidegate\ndecision := " + expression + b"\n"})
    assert refusal(bundle_of(wasm), engine) == "policy_builtin_unknown"


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param('(import "env" "fetch" (func (param i32)))', id="a name OPA has not"),
        pytest.param(
            '(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))', id="files"
        ),
        pytest.param(
            '(import "env" "opa_builtin9" (func (param i32 i32) (result i32)))', id="a builtin of nine arguments"
        ),
        pytest.param(
            '(import "env" "opa_builtin0" (func (param i64 i32) (result i32)))', id="a builtin of another type"
        ),
        pytest.param('(import "env" "opa_println" (func (param i32) (result i32)))', id="printing with a result"),
        pytest.param('(import "env" "g" (global i32))', id="a global"),
    ],
)
def test_prepare_refuses_when_an_import_is_unknown(engine: WasmEngine, wanted: str) -> None:
    wasm = module_text(evaluating(ANSWER_AT), imports=wanted)
    assert refusal(bundle_of(wasm), engine) == "policy_import_unknown"


@pytest.mark.parametrize(
    ("body", "parts", "code"),
    [
        pytest.param("", {}, "policy_wasm_invalid", id="no opa_eval"),
        pytest.param(
            evaluating(ANSWER_AT), {"builtins": b"[]"}, "policy_wasm_invalid", id="builtins that are no object"
        ),
        pytest.param(evaluating(ANSWER_AT), {"builtins": b"{"}, "policy_wasm_invalid", id="builtins that are no JSON"),
        pytest.param(evaluating(ANSWER_AT), {"pages": 30_000}, "policy_wasm_invalid", id="more memory than allowed"),
        pytest.param(
            evaluating(ANSWER_AT) + ENDLESS_START, {}, "policy_load_failed", id="a start function without end"
        ),
    ],
)
def test_prepare_refuses_when_the_module_is_not_as_opa_makes_it(body: str, parts: dict[str, object], code: str) -> None:
    engine = WasmEngine(limits=WasmLimits(load_fuel=1_000_000))
    assert refusal(bundle_of(module_text(body, **parts)), engine) == code  # type: ignore[arg-type]


def test_prepare_refuses_when_the_interface_is_older() -> None:
    text = module_text(evaluating(ANSWER_AT))
    older = text.replace(b"\x00\x41\x03\x0b", b"\x00\x41\x01\x0b", 1)
    assert older != text
    assert refusal(bundle_of(older), WasmEngine()) == "policy_wasm_invalid"


def test_prepare_refuses_when_the_module_lacks_the_entry_point(opa_path: Path, engine: WasmEngine) -> None:
    wasm = module_text(evaluating(ANSWER_AT)).replace(b"tidegate/decision", b"tidegate/decisive")
    assert refusal(bundle_of(wasm), engine) == "policy_entrypoint_missing"


@pytest.mark.parametrize(
    ("rules_count", "text_bytes"),
    [
        pytest.param(300, 1, id="many small rules"),
        pytest.param(1, 1_500_000, id="a long text"),
        pytest.param(1, 900_000, id="a text of nearly the memory that every module gets"),
    ],
)
def test_prepare_accepts_a_module_when_its_texts_go_beyond_the_least_memory_that_it_names(
    opa_path: Path, engine: WasmEngine, rules_count: int, text_bytes: int
) -> None:
    rules = "\n".join(f'r{at} := [x | x := input.v; x != "{at}{"x" * text_bytes}"]' for at in range(rules_count))
    all_of_them = ", ".join(f'"r{at}": r{at}' for at in range(rules_count))
    rego = f"package tidegate\n\n{rules}\n\ndecision := {{{all_of_them}}}\n"
    policy = engine.prepare_parts(compile_rego(opa_path, {"a.rego": rego.encode()}), {})
    assert orjson.loads(policy.decide(b'{"v":"7x"}')) == {
        f"r{at}": [] if at == 7 else ["7x"] for at in range(rules_count)
    }
    policy.close()


def test_prepare_refuses_when_data_needs_more_fuel_or_memory_than_loading_may_use(rules_wasm: bytes) -> None:
    bundle = bundle_of(rules_wasm, data={"rows": {f"k{row}": ["x" * 20] * 10 for row in range(5_000)}})
    WasmEngine().prepare(bundle).close()
    assert refusal(bundle, WasmEngine(limits=WasmLimits(load_fuel=1_000_000))) == "policy_load_failed"
    assert refusal(bundle, WasmEngine(limits=WasmLimits(load_memory_max_bytes=4 << 20))) == "policy_load_failed"


def test_prepare_refuses_when_the_module_is_one_byte_too_large(rules_wasm: bytes) -> None:
    WasmEngine(limits=WasmLimits(wasm_max_bytes=len(rules_wasm))).prepare(bundle_of(rules_wasm)).close()
    engine = WasmEngine(limits=WasmLimits(wasm_max_bytes=len(rules_wasm) - 1))
    assert refusal(bundle_of(rules_wasm), engine) == "policy_wasm_invalid"


@pytest.mark.parametrize("spare", [0, 1])
def test_decide_fails_when_the_answer_is_one_byte_too_long(spare: int) -> None:
    limits = WasmLimits(answer_max_bytes=len(ANSWERED) - spare)
    policy = prepared(evaluating(ANSWER_AT), limits=limits)
    if spare:
        assert "no end" in failure(policy)
    else:
        assert policy.decide(INPUT) == ALLOW


@pytest.mark.parametrize("data", [[], None, {"a": object()}, {"a": b""}], ids=repr)
def test_prepare_parts_refuses_when_data_is_no_object_of_json(rules_wasm: bytes, engine: WasmEngine, data: Any) -> None:
    with pytest.raises(PolicyRefused) as refused:
        engine.prepare_parts(rules_wasm, data)
    assert refused.value.code == "policy_data_invalid"


@pytest.mark.parametrize("name", ["2nd", "v2", "INC001", 'a"5', "", "1.2.3.4"])
def test_prepare_accepts_data_when_a_key_only_begins_like_a_number(
    rules_wasm: bytes, engine: WasmEngine, name: str
) -> None:
    engine.prepare(bundle_of(rules_wasm, data={"a": {name: {name: "5"}}})).close()


def test_integers_are_integers_to_the_engine_when_data_wrote_them_as_floats(opa_path: Path, engine: WasmEngine) -> None:
    rego = b'package tidegate\ndecision := {"a": data.t.list[data.t.at], "b": substring("abcdef", data.t.at, 1)}\n'
    policy = engine.prepare_parts(compile_rego(opa_path, {"a.rego": rego}), {"t": {"list": [10, 20, 30], "at": 2.0}})
    assert orjson.loads(policy.decide(INPUT)) == {"a": 30, "b": "c"}
    policy.close()


def test_decide_fails_when_the_policy_is_closed(rules: TrustedBundle, engine: WasmEngine) -> None:
    policy = engine.prepare(rules)
    policy.close()
    assert "closed" in failure(policy)
    policy.close()


def test_many_failures_leave_no_memory_behind(rules: TrustedBundle) -> None:
    resource = pytest.importorskip("resource")
    policy = WasmEngine(limits=WasmLimits(decision_fuel=100, input_fuel_per_byte=0)).prepare(
        bundle_of(rules.wasm, data={"a": {"b": ["x" * 100] * 1_000}})
    )
    for _ in range(20):
        failure(policy)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(200):
        failure(policy)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000
    policy.close()
