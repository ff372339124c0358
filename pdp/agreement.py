"""Proof by trial that a compiled policy decides as OPA's own engine does.

Guarantees that every given input was decided by both, and names each one decided differently. Leaves choosing the
inputs, and refusing the bundle, to the build.

**Security**: OPA's WebAssembly runtime is a second implementation of Rego; a difference found nowhere else is found
here, before the bundle is signed.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from bundles.compiler import opa_environment
from pdp.decision_document import comparable
from pdp.engine import ENTRYPOINT
from pdp.errors import EngineFailed, PolicyUnavailable
from pdp.input_document import encode_document
from pdp.wasm.host import WasmEngine

if TYPE_CHECKING:
    from bundles.canonical import JsonValue

OPA_DEADLINE_SECONDS = 120.0
_BATCH_COUNT = 200


class OpaBinary(Protocol):
    """Anything that knows where the ``opa`` program lies."""

    @property
    def path(self) -> Path:
        """The program."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One input that the two engines decide differently; a decision is None where an engine gave none."""

    index: int
    input: Mapping[str, Any]
    by_opa: JsonValue
    by_wasm: JsonValue


def agree(
    files: Mapping[str, bytes],
    data: Mapping[str, JsonValue],
    wasm: bytes,
    inputs: Sequence[Mapping[str, Any]],
    opa: OpaBinary | Path,
) -> list[Difference]:
    """Decide every input with both engines and return the differences, in the order of the inputs.

    ``files`` are the bundle's Rego files; tests among them are left out. Raises ``PolicyRefused`` when the module
    cannot be loaded, ``PolicyUnavailable`` when OPA cannot be run.
    """
    program = opa if isinstance(opa, Path) else opa.path
    encoded = [encode_document(document) for document in inputs]
    by_wasm = _decided_by_wasm(wasm, data, encoded)
    by_opa = _decided_by_opa(program, files, data, encoded)
    return [
        Difference(index, document, theirs, ours)
        for index, (document, theirs, ours) in enumerate(zip(inputs, by_opa, by_wasm, strict=True))
        if (theirs is None) != (ours is None) or comparable(theirs) != comparable(ours)
    ]


def _decided_by_wasm(wasm: bytes, data: Mapping[str, JsonValue], encoded: Sequence[bytes]) -> list[JsonValue]:
    policy = WasmEngine().prepare_parts(wasm, data)
    decisions: list[JsonValue] = []
    try:
        for document in encoded:
            try:
                decisions.append(orjson.loads(policy.decide(document)))
            except EngineFailed:
                decisions.append(None)
    finally:
        policy.close()
    return decisions


def _decided_by_opa(
    program: Path, files: Mapping[str, bytes], data: Mapping[str, JsonValue], encoded: Sequence[bytes]
) -> list[JsonValue]:
    with tempfile.TemporaryDirectory(prefix="tidegate-agreement-") as scratch:
        bundle = Path(scratch, "bundle")
        for name, raw in files.items():
            if name.endswith(".rego") and not name.endswith("_test.rego"):
                path = bundle / name.lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(raw)
        bundle.mkdir(exist_ok=True)
        (bundle / "data.json").write_bytes(orjson.dumps(data))
        names = []
        for index, document in enumerate(encoded):
            path = Path(scratch, f"{index:08d}.json")
            path.write_bytes(document)
            names.append(path)
        decisions: list[JsonValue] = []
        for start in range(0, len(names), _BATCH_COUNT):
            decisions.extend(_executed(program, bundle, names[start : start + _BATCH_COUNT]))
        return decisions


def _executed(program: Path, bundle: Path, names: Sequence[Path]) -> list[JsonValue]:
    command = [str(program), "exec", "--bundle", str(bundle), "--decision", ENTRYPOINT, "--format", "json"]
    try:
        ran = subprocess.run(
            [*command, *map(str, names)],
            capture_output=True,
            timeout=OPA_DEADLINE_SECONDS,
            env=opa_environment(bundle.parent),
            check=False,
        )
        report = orjson.loads(ran.stdout)
    except (OSError, subprocess.TimeoutExpired, orjson.JSONDecodeError) as failed:
        raise PolicyUnavailable("opa exec could not be run") from failed
    results = {entry.get("path"): entry for entry in report.get("result", [])}
    if len(results) != len(names):
        message = ran.stderr.decode("utf-8", "replace").strip()[:500]
        raise PolicyUnavailable(f"opa exec answered {len(results)} of {len(names)} inputs: {message}")
    return [_result(results.get(str(name))) for name in names]


def _result(entry: Any) -> JsonValue:
    """A decision; an input that OPA found undefined or in conflict carries an error instead."""
    if not isinstance(entry, dict):
        raise PolicyUnavailable("opa exec left out an input")
    found: JsonValue = entry.get("result")
    return found
