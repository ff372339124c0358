"""One of OPA's cases before the embedded engine: built under the profile, evaluated, compared.

A case ends in one of six ways. It agrees; it differs, which must never be; it is refused at build, with what was
refused and its line; a builtin of the host declines it, which ends the decision; its error is the one that was wanted; or it
asks what a bundle cannot be asked at all.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

import rego
from bundles.canonical import sha256_hex
from bundles.compiler import Opa
from bundles.errors import BundleRefused
from bundles.profile import check_data_shapes, lint
from pdp.errors import EngineFailed, InputRefused, PolicyRefused
from pdp.input_document import encode_document
from pdp.wasm.builtins.table import NAMES
from pdp.wasm.host import WasmEngine
from pdp.wasm.packages import check_apart
from tests.agreement.cases import ASKING, Case

ENTRYPOINT = "tidegate/decision"
CAPABILITIES = rego.root() / "capabilities.json"
PLACEMENT = frozenset(("package_misplaced", "package_nested", "rule_nested"))
"""Findings on where a package stands in a bundle: the cases' packages stand in none."""

_MESSAGE = re.compile(r"(case\d+|asking)\.rego:(\d+)(?::\d+)?: (\w+): ([^\n]*)")
_FUNCTION = re.compile(r"undefined function ([\w.]+)")

End = Literal["agrees", "differs", "refused", "declined", "error as wanted", "cannot be asked"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a case ended; ``reason`` and ``row`` say what was refused and where."""

    family: str
    note: str
    end: End
    reason: str = ""
    row: int = 0
    detail: str = ""


class Judge:
    """Builds and evaluates cases. What OPA compiled is kept by the digest of what it compiled from."""

    def __init__(self, opa: Path, cache_dir: Path | None = None) -> None:
        self._opa = Opa(opa)
        self._program = opa
        self._cache_dir = cache_dir
        self._engine = WasmEngine()
        self._capabilities = CAPABILITIES.read_bytes()

    def judge(self, case: Case) -> Judgement:
        """Build, evaluate and compare one case."""
        if not case.reads_whole_input:
            return ended(case, "cannot be asked", "an input that is no object")
        refusal = self._refused_data(case)
        if refusal is not None:
            return refusal
        try:
            wasm = self._compiled(case.files)
            findings = self._findings(case)
        except BundleRefused as refused:
            return _refused_by_opa(case, refused.detail)
        for finding in findings[:1]:
            return ended(case, "refused", finding[0], finding[1])
        return self._evaluated(case, wasm)

    def _refused_data(self, case: Case) -> Judgement | None:
        found = check_data_shapes(case.data)
        if found:
            return ended(case, "refused", f"data: {found[0].code}")
        try:
            check_apart(case.data, [("tidegate",)])
        except PolicyRefused as refused:
            return ended(case, "refused", f"data: {refused.code}")
        return None

    def _findings(self, case: Case) -> list[tuple[str, int]]:
        """What the profile's lint refuses in the case's own modules and in its query."""
        trees = self._opa.parse(case.files)
        found = [
            (finding.code, finding.row)
            for finding in lint(trees, case.data)
            if finding.severity == "error" and finding.code not in PLACEMENT
        ]
        try:
            check_apart(case.data, [_package(tree) for tree in trees.values()])
        except PolicyRefused as refused:
            found.append((f"data: {refused.code}", 1))
        return found

    def _compiled(self, files: dict[str, bytes]) -> bytes:
        key = sha256_hex(self._capabilities + orjson.dumps({name: text.decode() for name, text in files.items()}))
        kept = None if self._cache_dir is None else self._cache_dir / key
        if kept is not None and kept.is_file():
            raw = kept.read_bytes()
            if raw.startswith(b"\0asm"):
                return raw
            raise BundleRefused("rego_invalid", raw.decode())
        try:
            raw = self._opa.build_wasm(files, entrypoints=[ENTRYPOINT], capabilities=CAPABILITIES)
        except BundleRefused as refused:
            if kept is not None:
                kept.write_text(refused.detail)
            raise
        if kept is not None:
            kept.write_bytes(raw)
        return raw

    def _evaluated(self, case: Case, wasm: bytes) -> Judgement:
        document = case.input_document if isinstance(case.input_document, dict) else {}
        try:
            policy = self._engine.prepare_parts(wasm, case.data)
        except PolicyRefused as refused:
            return ended(case, "refused", f"load: {refused.code}", detail=refused.detail)
        try:
            answer: Any = orjson.loads(policy.decide(encode_document(document)))
        except InputRefused as refused:
            return ended(case, "cannot be asked", f"input: {refused.code}")
        except EngineFailed as failed:
            builtin, _, reason = failed.detail.partition(": ")
            if builtin in NAMES:
                return ended(case, "declined", builtin, detail=reason)
            if case.wants_error:
                return ended(case, "error as wanted", detail=failed.detail)
            return ended(case, "differs", "engine failed", detail=failed.detail)
        finally:
            policy.close()
        return compared(case, answer, lambda: bindings_by_opa(self._program, case))


def compared(case: Case, answers: list[dict[str, Any]], ordinary: Callable[[], list[dict[str, Any]]]) -> Judgement:
    """What the answers are worth; ``ordinary`` gives OPA's own bindings, without strict errors, where they are needed."""
    given = [unordered(answer["binding"], answer["sets"]) for answer in answers]
    wanted = case.bindings
    if case.wants_error or wanted is None:
        if case.wants_error and not case.only_strict:
            return ended(case, "differs", "an error was wanted", detail=json.dumps(answers)[:300])
        # The error is wanted in strict mode alone; what OPA gives in its ordinary mode is what counts here.
        wanted = tuple(ordinary())
    if case.sorts_bindings:
        given = [_sorted_below(binding) for binding in given]
        wanted = tuple(_sorted_below(binding) for binding in wanted)
    if same_bindings(given, list(wanted)):
        return ended(case, "agrees")
    if not case.has_input and same_bindings(given, ordinary()):
        return ended(case, "agrees", "with an empty input instead of none")
    detail = f"given {json.dumps(given)[:300]}, wanted {json.dumps(wanted)[:300]}"
    return ended(case, "differs", "another value", detail=detail)


def bindings_by_opa(program: Path, case: Case) -> list[dict[str, Any]]:
    """The bindings by OPA's Go engine in its ordinary mode; none when it fails."""
    with tempfile.TemporaryDirectory(prefix="agreement-") as scratch:
        folder = Path(scratch)
        for name, text in case.files.items():
            (folder / name).write_bytes(text)
        (folder / "data.json").write_bytes(orjson.dumps(case.data))
        document = orjson.dumps(case.input_document if case.has_input else {})
        command = [str(program), "eval", "--format", "json", "--bundle", ".", "--stdin-input"]
        done = subprocess.run(
            [*command, "data.tidegate.decision"], cwd=folder, input=document, capture_output=True, timeout=60
        )
    result = orjson.loads(done.stdout).get("result", [])
    if not result:
        return []
    return [answer["binding"] for answer in result[0]["expressions"][0]["value"]]


def unordered(value: Any, sets: list[list[Any]]) -> Any:
    """``value`` with everything at the paths of ``sets`` marked as a set, outermost first."""
    for path in sorted(sets, key=len):
        value = _marked(value, path)
    return value


def _marked(value: Any, path: list[Any]) -> Any:
    if isinstance(value, dict) and value.keys() == {SET}:
        return value  # below a set everything is compared without order already
    if not path:
        return {SET: sorted(map(_sorted_below, value), key=_key)}
    step = path[0]
    if isinstance(value, list) and isinstance(step, int):
        return [_marked(item, path[1:]) if index == step else item for index, item in enumerate(value)]
    name = step if isinstance(step, str) else orjson.dumps(step).decode()
    if isinstance(value, dict) and name in value:
        return {key: _marked(item, path[1:]) if key == name else item for key, item in value.items()}
    return value


SET = "\u0000set"


def same_bindings(given: list[Any], wanted: list[Any]) -> bool:
    """Whether the bindings are the same, in whatever order they come."""
    left = list(given)
    for binding in wanted:
        found = next((index for index, other in enumerate(left) if same(other, binding)), None)
        if found is None:
            return False
        del left[found]
    return not left


def same(given: Any, wanted: Any) -> bool:
    """Whether two JSON values are the same; what ``given`` marks as a set has no order in ``wanted`` either."""
    if isinstance(given, dict) and given.keys() == {SET}:
        marked = isinstance(wanted, list) and sorted(map(_sorted_below, wanted), key=_key)
        return marked is not False and same(given[SET], marked)
    if isinstance(given, dict) and isinstance(wanted, dict):
        return given.keys() == wanted.keys() and all(same(given[key], wanted[key]) for key in given)
    if isinstance(given, list) and isinstance(wanted, list):
        return len(given) == len(wanted) and all(map(same, given, wanted))
    if isinstance(given, bool) or isinstance(wanted, bool):
        return given is wanted
    return type(given) is type(wanted) or _both_numbers(given, wanted) if given == wanted else False


def _both_numbers(left: Any, right: Any) -> bool:
    return isinstance(left, (int, float)) and isinstance(right, (int, float))


def _sorted_below(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted_below(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted(map(_sorted_below, value), key=_key)
    return value


def _key(value: Any) -> str:
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _package(tree: Any) -> tuple[str, ...]:
    return tuple(str(part["value"]) for part in tree["package"]["path"][1:])


def _refused_by_opa(case: Case, said: str) -> Judgement:
    found = _MESSAGE.search(said)
    if found is None:
        return ended(case, "error as wanted" if case.wants_error else "cannot be asked", said.strip()[:80])
    where, row, code, message = found.groups()
    named = _FUNCTION.search(said)
    if named is not None:
        return ended(case, "refused", named[1], int(row), detail=where)
    if case.wants_error:
        return ended(case, "error as wanted", code, int(row))
    if f"{where}.rego" == ASKING:
        return ended(case, "cannot be asked", f"{code}: {message}"[:80])
    return ended(case, "refused", f"{code}: {message}"[:80], int(row))


def ended(case: Case, end: End, reason: str = "", row: int = 0, detail: str = "") -> Judgement:
    """The judgement of a case."""
    return Judgement(case.family, case.note, end, reason, row, detail)
