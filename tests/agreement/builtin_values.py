"""What OPA's Go engine answers to single builtin calls, many in one run, to hold the host's own builtins against."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from pdp.wasm.builtins.values import Declined, RegoSet, Undefined, Value, order, read_value, write_value

Operands = Sequence[Value]
UNDEFINED = "\u0000undefined"
"""Stands for a call without a result; no builtin answers so."""


def by_opa(opa: Path, name: str, calls: Sequence[Operands]) -> list[Value]:
    """OPA's answers to ``name`` with each of these operands, in order; ``UNDEFINED`` where it has none."""
    with_sets = [any(map(_has_sets, operands)) for operands in calls]
    plain = [number for number, has in enumerate(with_sets) if not has]
    others = [number for number, has in enumerate(with_sets) if has]
    arity = len(calls[0])
    operands = ", ".join(f"call[{index}]" for index in range(arity))
    lines = ["package x", ""]
    lines.append(
        f'answers[key] := {{"v": v, "set": is_set(v)}} if {{ some key, call in input; v := {name}({operands}) }}'
    )
    for number in others:
        text = ", ".join(write_value(operand).decode() for operand in calls[number])
        lines.append(f'answers["{number}"] := {{"v": v, "set": is_set(v)}} if {{ v := {name}({text}) }}')
    given = b"{" + b",".join(b'"%d":' % number + write_value(list(calls[number])) for number in plain) + b"}"
    with tempfile.TemporaryDirectory(prefix="builtins-") as scratch:
        module = Path(scratch) / "x.rego"
        module.write_text("\n".join(lines) + "\n")
        command = [str(opa), "eval", "--format", "json", "--stdin-input", "--data", str(module), "data.x.answers"]
        done = subprocess.run(command, input=given, capture_output=True, timeout=120, check=False)
    document = json.loads(done.stdout, parse_float=Decimal)
    if "result" not in document:
        raise AssertionError(f"OPA refuses the calls: {document}")
    found: dict[str, Any] = document["result"][0]["expressions"][0]["value"]
    return [_answer(found.get(str(number))) for number in range(len(calls))]


def _answer(found: dict[str, Any] | None) -> Value:
    if found is None:
        return UNDEFINED
    return RegoSet.of(found["v"]) if found["set"] else found["v"]  # type: ignore[no-any-return]


def _has_sets(value: Value) -> bool:
    if isinstance(value, RegoSet):
        return True
    children = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return any(map(_has_sets, children))


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of a comparison: calls that differ, with both answers, and how many ended how."""

    differing: list[tuple[Operands, Value, Value]]
    declined: list[Operands]
    undefined_count: int
    agreeing_count: int


def compare(opa: Path, name: str, function: Callable[..., Value], calls: Sequence[Operands]) -> Comparison:
    """The host's ``function`` beside OPA's ``name``, on operands that went through Wasm's notation first."""
    differing: list[tuple[Operands, Value, Value]] = []
    declined: list[Operands] = []
    undefined = agreeing = 0
    for operands, theirs in zip(calls, by_opa(opa, name, calls), strict=True):
        try:
            ours = read_value(write_value(function(*(read_value(write_value(operand)) for operand in operands))))
        except Undefined:
            ours = UNDEFINED
        except Declined:
            declined.append(operands)
            continue
        if order(ours) != order(theirs):
            differing.append((operands, ours, theirs))
        elif ours == UNDEFINED:
            undefined += 1
        else:
            agreeing += 1
    return Comparison(differing, declined, undefined, agreeing)
