"""The pinned OPA, asked as a separate program: check, parse, test, compile, evaluate.

Guarantees: every run has a deadline and a clean environment, reads only the files handed in (in a folder of its
own that goes away again), and ends in a value or a :class:`BundleError`. Leaves to ``build``: the order, and the use.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

import orjson

from bundles.archive import ArchiveLimits, read_archive
from bundles.canonical import JsonValue, canonical_json, parse_spelled
from bundles.content import WASM_FILE
from bundles.errors import BundleRefused, BundleUnavailable

OPA_VERSION: Final = "1.20.2"
RUN_DEADLINE_SECONDS: Final = 120
TEST_TIMEOUT: Final = "60s"
"""For one test rule; OPA's own five seconds fail tests on a busy machine that pass on an idle one."""
EVAL_BATCH_COUNT: Final = 256
OUTPUT_MAX_CHARS: Final = 4000

_HOW_TO_GET_IT: Final = (
    f"building policy needs OPA {OPA_VERSION}: run `make opa` in a checkout, or put that version's `opa` on the PATH, "
    "or name it in TIDEGATE_OPA. Everything but building runs without it."
)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What OPA answered for one input: a value, nothing, or an evaluation error."""

    state: Literal["defined", "undefined", "failed"]
    value: JsonValue = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RunReport:
    """How the policies' own tests ended."""

    passed: int
    failed: tuple[str, ...]


class Opa:
    """One OPA executable."""

    def __init__(self, path: Path, *, deadline_seconds: float = RUN_DEADLINE_SECONDS) -> None:
        self.path = path
        self._deadline_seconds = deadline_seconds

    def check(self, rego: Mapping[str, bytes], *, capabilities: Path | None = None) -> None:
        """``opa check --strict`` under ``capabilities``; raises ``rego_invalid`` with OPA's own words."""
        with _staged(rego, None) as folder:
            self._run(["check", "--strict", *_capabilities(capabilities), "."], folder, refused="rego_invalid")

    def parse(self, rego: Mapping[str, bytes]) -> dict[str, JsonValue]:
        """The syntax tree of each file, as ``opa parse --format json`` gives it, with locations.

        A number that is written with a point or an exponent is a ``SpelledNumber``.
        """
        trees: dict[str, JsonValue] = {}
        with _staged(rego, None) as folder:
            for name in sorted(rego):
                options = ["--format", "json", "--json-include", "locations,-comments"]
                raw = self._run(["parse", *options, name], folder, refused="rego_invalid")
                try:
                    trees[name] = parse_spelled(raw)
                except orjson.JSONDecodeError as refused:
                    rows = re.findall(rb'"row":\s*([0-9]+)', raw[: refused.pos])
                    row = int(rows[-1]) if rows else 1
                    raise BundleRefused("rego_invalid", f"{name}:{row}: number_too_large: {refused}") from refused
        return trees

    def test(self, rego: Mapping[str, bytes], data: Mapping[str, JsonValue]) -> RunReport:
        """Run every ``test_`` rule; a failing test is in the report, a test that cannot run raises."""
        with _staged(rego, data) as folder:
            raw = self._run(
                ["test", "--timeout", TEST_TIMEOUT, "--format", "json", "--bundle", "."],
                folder,
                accept=(0, 2),
                refused="rego_invalid",
            )
        results = orjson.loads(raw or b"[]") or []
        failed = tuple(
            f"{result.get('package', '')}.{result.get('name', '')}"
            for result in results
            if result.get("fail") or result.get("error")
        )
        return RunReport(passed=len(results) - len(failed), failed=failed)

    def build_wasm(
        self, rego: Mapping[str, bytes], *, entrypoints: Sequence[str], capabilities: Path | None = None
    ) -> bytes:
        """Compile to Wasm and return only the module; the same sources give the same bytes."""
        options = [part for entrypoint in entrypoints for part in ("--entrypoint", entrypoint)]
        with _staged(rego, None) as folder, tempfile.TemporaryDirectory() as out:
            target = Path(out) / "built.tar.gz"
            command = ["build", "--target", "wasm", *options, *_capabilities(capabilities)]
            self._run([*command, "--output", str(target), "--bundle", "."], folder, refused="rego_invalid")
            files = read_archive(target.read_bytes(), ArchiveLimits(ratio_max=2000))
        if WASM_FILE not in files:
            raise BundleRefused("rego_invalid", "OPA compiled no module")
        return files[WASM_FILE]

    def eval(
        self,
        rego: Mapping[str, bytes],
        data: Mapping[str, JsonValue],
        inputs: Sequence[Mapping[str, JsonValue]],
        *,
        entrypoint: str = "tidegate/decision",
    ) -> list[Evaluated]:
        """Decide every input with OPA's own engine; an error of one input is that input's answer, not the run's."""
        query = f"data.{entrypoint.replace('/', '.')}"
        answers: list[Evaluated] = []
        with _staged(rego, data) as folder:
            for start in range(0, len(inputs), EVAL_BATCH_COUNT):
                answers += self._eval_batch(folder, query, inputs[start : start + EVAL_BATCH_COUNT])
        return answers

    def version(self) -> str:
        """The version this executable reports."""
        raw = self._run(["version"], Path.cwd(), refused="opa_failed").decode("utf-8", "replace")
        first = raw.splitlines()[0] if raw else ""
        return first.removeprefix("Version:").strip()

    def _eval_batch(self, folder: Path, query: str, inputs: Sequence[Mapping[str, JsonValue]]) -> list[Evaluated]:
        """One run for the whole batch; when some input fails it, halves find out which."""
        asked = f"answers := [[i, d] | some i, x in input; d := {query} with input as x]"
        document: JsonValue = [dict(item) for item in inputs]
        try:
            raw = self._run(
                ["eval", "--format", "json", "--bundle", ".", "--stdin-input", asked],
                folder,
                refused="evaluation_failed",
                stdin=canonical_json(document),
            )
        except BundleRefused as failure:
            if len(inputs) == 1:
                return [Evaluated("failed", detail=failure.detail)]
            half = len(inputs) // 2
            return self._eval_batch(folder, query, inputs[:half]) + self._eval_batch(folder, query, inputs[half:])
        found = orjson.loads(raw)["result"][0]["bindings"]["answers"]
        answers = [Evaluated("undefined")] * len(inputs)
        for index, value in found:
            answers[index] = Evaluated("defined", value)
        return answers

    def _run(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        refused: str,
        accept: tuple[int, ...] = (0,),
        stdin: bytes = b"",
    ) -> bytes:
        try:
            done = subprocess.run(
                [str(self.path), *arguments],
                cwd=folder,
                input=stdin,
                capture_output=True,
                timeout=self._deadline_seconds,
                env=opa_environment(folder),
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise BundleUnavailable(
                "opa_too_slow", f"opa {arguments[0]} took over {self._deadline_seconds} s"
            ) from late
        except OSError as failure:
            raise BundleUnavailable("opa_missing", f"{self.path}: {failure.strerror}. {_HOW_TO_GET_IT}") from failure
        if done.returncode not in accept:
            said = (done.stderr + done.stdout).decode("utf-8", "replace").strip()
            raise BundleRefused(refused, said[:OUTPUT_MAX_CHARS])
        return done.stdout


def opa_environment(home: Path | str) -> dict[str, str]:
    """What OPA runs with: nothing of the caller's, and the zones that the embedded engine has, not the machine's."""
    return {"PATH": os.defpath, "HOME": str(home), "ZONEINFO": str(files("tzdata") / "zoneinfo")}


def find_opa() -> Opa:
    """The OPA to use: ``TIDEGATE_OPA``, a checkout's ``.tools/opa``, or the pinned version on the PATH.

    Raises :class:`BundleUnavailable` ``opa_missing`` and says how to get it.
    """
    named = os.environ.get("TIDEGATE_OPA")
    candidates = [named] if named else [str(Path(__file__).parent.parent / ".tools" / "opa"), shutil.which("opa")]
    wrong: list[str] = []
    for candidate in candidates:
        if candidate is None or not os.access(candidate, os.X_OK):
            continue
        opa = Opa(Path(candidate))
        version = opa.version()
        if version == OPA_VERSION:
            return opa
        wrong.append(f"{candidate} is version {version or 'unknown'}. ")
    raise BundleUnavailable("opa_missing", "".join(wrong) + _HOW_TO_GET_IT)


def _capabilities(path: Path | None) -> list[str]:
    return [] if path is None else ["--capabilities", str(path.resolve())]


@contextmanager
def _staged(rego: Mapping[str, bytes], data: Mapping[str, JsonValue] | None) -> Iterator[Path]:
    """The files in a folder of their own, named as in the bundle so that messages and modules name them alike."""
    with tempfile.TemporaryDirectory(prefix="tidegate-build-") as name:
        folder = Path(name)
        for relative, content in rego.items():
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if data is not None:
            (folder / "data.json").write_bytes(canonical_json(dict(data)))
        yield folder
