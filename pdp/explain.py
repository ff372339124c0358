"""Why a decision came out as it did, from the trace of OPA's own engine.

Guarantees: the decision and the trace come from one run of one OPA over the bundle's Rego and data, bounded in time and
size, in a folder that goes away again, without the caller's environment. Leaves reading the trace to ``pdp.trace``, finding
OPA to whoever calls.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import orjson

from pdp.errors import PolicyUnavailable
from pdp.input_document import encode_document
from pdp.trace import ReportLines, Trace, TracedRule, TraceMalformed

if TYPE_CHECKING:
    from bundles.canonical import JsonValue
    from bundles.content import BundleContent

DEADLINE_SECONDS: Final = 60.0
TRACE_MAX_BYTES: Final = 1 << 30
NEARLY_MAX_COUNT: Final = 50
_QUERY: Final = "data.tidegate.decision"
_TESTS: Final = "_test.rego"


@dataclass(frozen=True, slots=True)
class Explained:
    """One decision by OPA's engine, with the rules that held and those that did not; ``decision`` is None if undefined."""

    decision: JsonValue
    rules: tuple[TracedRule, ...]


def explain(
    content: BundleContent,
    document: Mapping[str, Any],
    opa: Path,
    *,
    deadline_seconds: float = DEADLINE_SECONDS,
    trace_max_bytes: int = TRACE_MAX_BYTES,
) -> Explained:
    """Decide ``document`` with the OPA at ``opa`` and read its trace.

    Every rule is tried, also those an index or an early end would leave out. Raises ``InputRefused``,
    ``PolicyUnavailable`` (OPA cannot be run, is too slow, prints too much) and ``TraceMalformed``.
    """
    encoded = encode_document(document)
    rego = {name: raw for name, raw in content.rego.items() if not name.endswith(_TESTS)}
    with tempfile.TemporaryDirectory(prefix="tidegate-explain-") as scratch:
        folder = Path(scratch, "bundle")
        folder.mkdir()
        for name, raw in rego.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
        (folder / "data.json").write_bytes(orjson.dumps(content.data))
        question = Path(scratch, "input.json")
        question.write_bytes(encoded)
        trace = Trace(rego)
        report = _evaluated(_command(opa, question), folder, trace, (deadline_seconds, trace_max_bytes))
    return Explained(_decision(report), trace.rules())


def _command(opa: Path, question: Path) -> list[str]:
    command = [str(opa.absolute()), "eval", "--explain=full", "--format=json", "--disable-indexing"]
    return [*command, "--disable-early-exit", "--bundle", ".", "--input", str(question), _QUERY]


def _evaluated(command: list[str], folder: Path, trace: Trace, limits: tuple[float, int]) -> dict[str, Any]:
    """OPA's report, its events handed to ``trace`` as they come; ``limits`` are seconds and bytes."""
    deadline_seconds, max_bytes = limits
    late = threading.Event()
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.defpath, "HOME": str(folder)},
        )
    except OSError as failed:
        raise PolicyUnavailable(f"{command[0]}: {failed.strerror}", code="opa_missing") from failed

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(deadline_seconds, stop)
    timer.start()
    try:
        with process:
            try:
                report = _read(process.stdout, trace, max_bytes)
            finally:
                process.kill()
    except TraceMalformed:
        if not late.is_set():
            raise
        report = {}
    finally:
        timer.cancel()
    if late.is_set():
        raise PolicyUnavailable(f"opa eval took over {deadline_seconds:g} s", code="opa_too_slow")
    if report.get("errors"):
        raise PolicyUnavailable(_first_error(report["errors"]), code="opa_failed")
    return report


def _read(stream: IO[bytes] | None, trace: Trace, max_bytes: int) -> dict[str, Any]:
    """The report on a stream, at most ``max_bytes`` of it."""
    lines, left = ReportLines(trace), max_bytes
    while stream is not None and (line := stream.readline(left + 1)):
        left -= len(line)
        if left < 0:
            raise PolicyUnavailable(f"the trace is larger than {max_bytes} bytes", code="trace_too_large")
        lines.take(line)
    return lines.finish()


def _first_error(errors: object) -> str:
    first = errors[0] if isinstance(errors, list) and errors else errors
    return str(first.get("message") if isinstance(first, dict) else first)[:500]


def _decision(report: Mapping[str, Any]) -> JsonValue:
    results = report.get("result")
    if not results:
        return None
    try:
        decision: JsonValue = results[0]["expressions"][0]["value"]
    except (LookupError, TypeError) as failed:
        raise TraceMalformed("the result has no value") from failed
    return decision


def nearly_held(rules: Iterable[TracedRule], connector: str) -> tuple[TracedRule, ...]:
    """The rules that did not hold, closest first: those that may grant or restrict the call, and came some way.

    Rules of the call's connector and of ``common`` are all shown; another connector's only when a condition held.
    """
    own = {f"policies.{connector}", "policies.common"}

    def closeness(rule: TracedRule) -> tuple[bool, float, str, int]:
        share = rule.passed / rule.conditions if rule.conditions else 0.0
        return (rule.rule.rpartition(".")[0] not in own, -share, rule.file, rule.line)

    failed = [rule for rule in rules if not rule.held]
    shown = [rule for rule in failed if rule.passed or rule.rule.rpartition(".")[0] in own]
    return tuple(sorted(shown, key=closeness)[:NEARLY_MAX_COUNT])


def rule_document(rule: TracedRule) -> dict[str, JsonValue]:
    """A rule as JSON shows it."""
    document: dict[str, JsonValue] = asdict(rule)
    return document
