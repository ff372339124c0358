"""Drawn policies before both engines, and a difference made as small as leaving things out makes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from bundles.canonical import canonical_json
from bundles.compiler import Opa
from bundles.errors import BundleRefused
from bundles.profile import lint
from pdp.errors import EngineFailed
from pdp.input_document import encode_document
from pdp.wasm.host import WasmEngine
from pdp.wasm.limits import WasmLimits
from tests.agreement.judging import CAPABILITIES, ENTRYPOINT, PLACEMENT
from tests.agreement.programs import DATA, Policy, draw_inputs, draw_policies, program

DECISION_FUEL = 1_000_000_000
"""One decision asks all policies of a batch at once."""
MINIMISING_BUILDS_MAX = 60
INTERNAL = object()
"""What OPA's own engine could not evaluate for a fault of its own: there is nothing to compare with."""
_INTERNAL_ERROR = "eval_internal_error"
_FILE = re.compile(r"gen/(p\d+)\.rego:")


@dataclass(frozen=True, slots=True)
class Difference:
    """A policy and an input that the engines answer differently."""

    seed: int
    policy: Policy
    document: dict[str, Any]
    by_opa: Any
    by_wasm: Any

    def __str__(self) -> str:
        return (
            f"seed {self.seed}\n{self.policy.text}\ninput: {orjson.dumps(self.document).decode()}\n"
            f"OPA: {self.by_opa!r}\nWasm: {self.by_wasm!r}\n"
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one batch showed."""

    seed: int
    policies: int
    pairs: int
    values: int
    refused: int
    differences: tuple[Difference, ...]


class Comparer:
    """Builds batches of drawn policies and asks both engines."""

    def __init__(self, opa: Path) -> None:
        self._opa = Opa(opa)
        self._engine = WasmEngine(limits=WasmLimits(decision_fuel=DECISION_FUEL))

    def compare(self, seed: int, policies_count: int, inputs_count: int) -> Comparison:
        """One batch of this seed."""
        drawn = draw_policies(seed, policies_count)
        policies = self._compiling([policy for policy in drawn if self._accepts(policy)])
        inputs = draw_inputs(seed, inputs_count)
        by_opa, by_wasm = self.decided(policies, inputs)
        inputs, by_opa, by_wasm = _answerable(inputs, by_opa, by_wasm)
        found = []
        values = 0
        for document, theirs, ours in zip(inputs, by_opa, by_wasm, strict=True):
            for policy in policies:
                left, right = _of(theirs, policy), _of(ours, policy)
                values += len(left) if isinstance(left, dict) else 0
                if not alike(left, right):
                    found.append(self.smaller(Difference(seed, policy, document, left, right)))
        pairs = len(policies) * len(inputs)
        return Comparison(seed, len(policies), pairs, values, len(drawn) - len(policies), tuple(found))

    def decided(self, policies: Sequence[Policy], inputs: Sequence[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
        """What OPA's Go engine and the embedded engine answer; None where one fails or has no answer."""
        files = program(list(policies))
        wasm = self._opa.build_wasm(files, entrypoints=[ENTRYPOINT], capabilities=CAPABILITIES)
        by_opa = [
            INTERNAL if _INTERNAL_ERROR in answer.detail else answer.value if answer.state == "defined" else None
            for answer in self._opa.eval(files, DATA, inputs, entrypoint=ENTRYPOINT)
        ]
        prepared = self._engine.prepare_parts(wasm, DATA)
        by_wasm: list[Any] = []
        try:
            for document in inputs:
                try:
                    by_wasm.append(orjson.loads(prepared.decide(encode_document(document))))
                except EngineFailed:
                    by_wasm.append(None)
        finally:
            prepared.close()
        return by_opa, by_wasm

    def smaller(self, difference: Difference) -> Difference:
        """The same difference with every rule and input member left out that it does not need."""
        builds = 0
        shrinking = True
        while shrinking and builds < MINIMISING_BUILDS_MAX:
            shrinking = False
            for candidate in _candidates(difference):
                builds += 1
                tried = self._tried(candidate)
                if tried is not None:
                    difference, shrinking = tried, True
                    break
                if builds >= MINIMISING_BUILDS_MAX:
                    break
        return difference

    def _tried(self, candidate: Difference) -> Difference | None:
        try:
            by_opa, by_wasm = self.decided([candidate.policy], [candidate.document])
        except BundleRefused:
            return None  # what was left out is needed to compile
        left, right = _of(by_opa[0], candidate.policy), _of(by_wasm[0], candidate.policy)
        return None if alike(left, right) else replace(candidate, by_opa=left, by_wasm=right)

    def _compiling(self, policies: list[Policy]) -> list[Policy]:
        """Those that OPA's type checker takes: it sees at once that some comparisons can never hold."""
        while policies:
            try:
                self._opa.build_wasm(program(policies), entrypoints=[ENTRYPOINT], capabilities=CAPABILITIES)
            except BundleRefused as refused:
                named = set(_FILE.findall(refused.detail))
                if named:
                    policies = [policy for policy in policies if policy.name not in named]
                elif len(policies) == 1:
                    return []  # some mistakes of its own OPA reports without a file
                else:
                    policies = [policy for alone in policies for policy in self._compiling([alone])]
            else:
                return policies
        return policies

    def _accepts(self, policy: Policy) -> bool:
        """Whether the profile and OPA's own checks accept a policy; the generator draws few that they do not."""
        files = {f"gen/{policy.name}.rego": policy.text.encode()}
        try:
            trees = self._opa.parse(files)
        except BundleRefused:
            return False
        findings = lint(trees, DATA)
        return not any(finding.severity == "error" and finding.code not in PLACEMENT for finding in findings)


def _answerable(
    inputs: list[dict[str, Any]], by_opa: list[Any], by_wasm: list[Any]
) -> tuple[list[dict[str, Any]], list[Any], list[Any]]:
    kept = [index for index, answer in enumerate(by_opa) if answer is not INTERNAL]
    return [inputs[index] for index in kept], [by_opa[index] for index in kept], [by_wasm[index] for index in kept]


def alike(left: Any, right: Any) -> bool:
    """Whether two answers are the same; members whose name begins with ``set_`` have no order."""
    return _written(left) == _written(right)


def _written(answer: Any) -> bytes | None:
    if not isinstance(answer, dict):
        return None if answer is None else canonical_json(answer)
    ordered = {
        name: sorted(value, key=canonical_json) if name.startswith("set_") and isinstance(value, list) else value
        for name, value in answer.items()
    }
    return canonical_json(ordered)


def _of(decision: Any, policy: Policy) -> Any:
    return decision.get(policy.name) if isinstance(decision, dict) else None


def _candidates(difference: Difference) -> list[Difference]:
    policy, document = difference.policy, difference.document
    without_rule = [
        replace(difference, policy=Policy(policy.name, policy.rules[:index] + policy.rules[index + 1 :]))
        for index in range(len(policy.rules) - 1, -1, -1)
    ]
    without_member = [
        replace(difference, document={key: value for key, value in document.items() if key != name})
        for name in document
    ]
    return without_rule + without_member
