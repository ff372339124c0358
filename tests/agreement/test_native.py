"""What the module answers by itself beside `opa eval`: every operand of a pool before the builtins that the profile admits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from bundles.compiler import Opa
from bundles.profile import lint
from pdp.wasm.host import WasmEngine
from pdp.wasm.limits import WasmLimits
from tests.agreement.judging import CAPABILITIES, ENTRYPOINT

POOL = """pool := [
	null, true, false, 0, 1, 2, -1, 1.5, 0.1, 50, "", "a", "ab", "é", "aé😀b", "\\u0000", "a\\u0000b", " a ", "1", "a,b", ",",
	[], [1], [1, 2], ["a"], ["b", "a"], [[1, 2]], [{}], [{"a": 1}, {"a": 2, "b": 3}], [set()], {}, {"a": 1}, {"b": {"c": 1}},
	{"a": null}, {"": 1}, {1: "x"}, {"a": [1]}, set(), {1}, {1, 2}, {"a"}, {{1}, {2}}, {[1]}, {set()},
]
"""
ONE = (
    *(
        "abs",
        "array.reverse",
        "array.flatten",
        "base64.encode",
        "base64url.encode",
        "count",
        "intersection",
        "is_array",
    ),
    *("is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string", "lower", "max", "min", "object.keys"),
    *("round", "strings.reverse", "trim_space", "type_name", "union", "upper"),
)
TWO = (
    *("array.concat", "contains", "endswith", "object.filter", "object.remove", "object.union", "split", "startswith"),
    *("trim", "trim_left", "trim_prefix", "trim_right", "trim_suffix", "equal", "neq", "lt", "lte", "gt", "gte"),
)
CALLS = {
    **{name: f"[[i, y] | some i, a in pool; y := {name}(a)]" for name in ONE},
    **{name: f"[[i, j, y] | some i, a in pool; some j, b in pool; y := {name}(a, b)]" for name in TWO},
    "and": "[[i, j, y] | some i, a in pool; some j, b in pool; y := a & b]",
    "or": "[[i, j, y] | some i, a in pool; some j, b in pool; y := a | b]",
    "in": "[[i, j] | some i, a in pool; some j, b in pool; a in b]",
    "index": "[[i, j, y] | some i, a in pool; some j, b in pool; y := a[b]]",
    "object.get": '[[i, j, y] | some i, a in pool; some j, b in pool; y := object.get(a, b, "none")]',
    "array.slice": "[[i, j, y] | some i, a in pool; some j, b in pool; y := array.slice(a, b, 2)]",
    "substring": "[[i, j, y] | some i, a in pool; some j, b in pool; y := substring(a, b, 2)]",
    "replace": '[[i, j, y] | some i, a in pool; some j, b in pool; y := replace(a, "a", b)]',
    "strings.replace_n": '[[i, y] | some i, a in pool; y := strings.replace_n({"a": "ba"}, a)]',
    "regex.match": r"[[i, y] | some i, a in pool; y := regex.match(`^(a*)*\b.?$`, a)]",
    "regex.find_all_string_submatch_n": "[[i, y] | some i, a in pool; y := regex.find_all_string_submatch_n(`(a)|b*`, a, -1)]",
    "every": "[i | some i, a in pool; every x in a { x == 1 }]",
    "walk": "[[i, x] | some i, a in pool; walk(a, x)]",
}


def _unordered(value: Any) -> Any:
    """OPA goes through sets in another order than its Wasm, so that lists made of them count as sets here."""
    if isinstance(value, dict):
        return sorted((key, _unordered(item)) for key, item in value.items())
    return sorted(map(_unordered, value), key=repr) if isinstance(value, list) else (type(value), value)


def _answers(opa: Opa, names: Sequence[str]) -> tuple[Any, Any]:
    """What OPA and what the module answer to these calls over the whole pool."""
    rules = "\n\n".join(f"r{at} := {CALLS[name]}" for at, name in enumerate(names))
    members = ", ".join(f'"{name}": r{at}' for at, name in enumerate(names))
    files = {"lib/tidegate/a.rego": f"package tidegate\n\n{POOL}\n{rules}\n\ndecision := {{{members}}}\n".encode()}
    opa.check(files, capabilities=CAPABILITIES)
    assert [str(finding) for finding in lint(opa.parse(files), {})] == []
    wasm = opa.build_wasm(files, entrypoints=[ENTRYPOINT], capabilities=CAPABILITIES)
    limits = WasmLimits(decision_fuel=20_000_000_000, answer_max_bytes=1 << 26)
    policy = WasmEngine(limits=limits).prepare_parts(wasm, {})
    (by_opa,) = opa.eval(files, {}, [{}])
    ours = orjson.loads(policy.decide(b"{}"))
    policy.close()
    return by_opa.value, ours


@pytest.mark.timeout(300)
def test_module_answers_as_opa_does_when_operands_are_of_every_type(opa_path: Path) -> None:
    by_opa, ours = _answers(Opa(opa_path), list(CALLS))
    assert by_opa.keys() == ours.keys() == CALLS.keys()
    assert [name for name in CALLS if _unordered(by_opa[name]) != _unordered(ours[name])] == []
    assert sum(len(answers) for answers in by_opa.values()) > 10_000
