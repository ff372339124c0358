"""``tidegate policy test`` and ``tidegate policy coverage``: the policies' own tests, and which lines they do not reach."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
import typer

from bundles.canonical import JsonValue, canonical_json
from bundles.compiler import RUN_DEADLINE_SECONDS, RunReport, find_opa, opa_environment
from bundles.errors import BundleUnavailable
from bundles.source import read_source
from bundles.source_layout import BundleSource
from cli.bundle_errors import guarded
from cli.output import EXIT_REFUSED, JSON_OPTION, emit, shown
from pdp.coverage import CoverageMalformed, FileCoverage, percent, read_coverage

if TYPE_CHECKING:
    from rich.console import Console

SOURCE = typer.Argument(..., help="A bundle's source directory.", file_okay=False)
THRESHOLD = typer.Option(0.0, "--threshold", min=0, max=100, help="Exit 1 below this share of lines, in percent.")
LIBRARY = typer.Option(False, "--library", help="Tell of the library's files too.")
STEPS: Final = ("read", "test", "cover")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(test)
    app.command()(coverage)


def test(source: Path = SOURCE, as_json: bool = JSON_OPTION) -> None:
    """Run the tests of a source directory with OPA."""

    def work() -> RunReport:
        sources = read_source(source)
        return find_opa().test({**sources.rego, **sources.tests}, _data(sources))

    report = guarded(work, as_json)
    document = {"passed": report.passed, "failed": list(report.failed)}
    emit(as_json, document, lambda out: _say_tests(out, report))
    if report.failed:
        raise typer.Exit(EXIT_REFUSED)


def coverage(
    source: Path = SOURCE,
    threshold: float = THRESHOLD,
    library: bool = LIBRARY,
    as_json: bool = JSON_OPTION,
) -> None:
    """Run the tests and say which lines of which rule none of them evaluates."""
    report, files = guarded(lambda: _covered(source, library, show=not as_json and sys.stderr.isatty()), as_json)
    reached = percent(sum(file.covered for file in files), sum(file.not_covered for file in files))
    document: dict[str, Any] = {
        "coverage": reached,
        "passed": report.passed,
        "failed": list(report.failed),
        "files": [{**asdict(file), "coverage": file.percent} for file in files],
    }
    emit(as_json, document, lambda out: _say(out, report, files, reached))
    if report.failed or reached < threshold:
        raise typer.Exit(EXIT_REFUSED)


def _covered(source: Path, library: bool, *, show: bool) -> tuple[RunReport, tuple[FileCoverage, ...]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not show) as progress:
        task = progress.add_task(STEPS[0], total=len(STEPS))
        sources = read_source(source)
        opa, data = find_opa(), _data(sources)
        rego = {**sources.rego, **sources.tests}
        progress.update(task, description=STEPS[1], completed=1)
        report = opa.test(rego, data)
        progress.update(task, description=STEPS[2], completed=2)
        told = {name: raw for name, raw in sources.rego.items() if library or name.startswith("policies/")}
        if report.failed:
            return report, ()
        return report, read_coverage(_report(opa.path, rego, data), told)


def _data(sources: BundleSource) -> dict[str, JsonValue]:
    """The source's data as one object, each file at the place its folders name."""
    data: dict[str, Any] = {}
    for name, raw in sources.data_files.items():
        node = data
        *folders, last = name.split("/")[:-1] or [""]
        for folder in folders:
            node = node.setdefault(folder, {})
        if last:
            node[last] = orjson.loads(raw)
        else:
            data.update(orjson.loads(raw))
    return data


def _report(opa: Path, rego: Mapping[str, bytes], data: Mapping[str, JsonValue]) -> object:
    """OPA's own report of coverage over these files."""
    with tempfile.TemporaryDirectory(prefix="tidegate-coverage-") as scratch:
        folder = Path(scratch)
        for name, raw in rego.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
        (folder / "data.json").write_bytes(canonical_json(dict(data)))
        try:
            ran = subprocess.run(
                [str(opa.absolute()), "test", "--coverage", "--format=json", "--bundle", "."],
                cwd=folder,
                capture_output=True,
                timeout=RUN_DEADLINE_SECONDS,
                env=opa_environment(scratch),
                check=False,
            )
            return orjson.loads(ran.stdout)
        except (OSError, subprocess.TimeoutExpired) as failed:
            raise BundleUnavailable("opa_failed", "opa test --coverage could not be run") from failed
        except orjson.JSONDecodeError as failed:
            raise CoverageMalformed("opa test --coverage printed no JSON") from failed


def _say_tests(out: Console, report: RunReport) -> None:
    for name in report.failed:
        out.print(f"[red]failed[/red] {shown(name)}")
    out.print(f"{report.passed} tests passed, {len(report.failed)} failed")


def _say(out: Console, report: RunReport, files: tuple[FileCoverage, ...], reached: float) -> None:
    _say_tests(out, report)
    for file in files:
        out.print(f"{file.percent:6.2f} %  {shown(file.file)}")
        for rule in file.rules:
            lines = ", ".join(str(line) for line in rule.not_covered)
            out.print(f"          {shown(rule.rule)} (line {rule.line}): not covered {lines}")
    out.print(f"{reached:.2f} % of the lines are covered")
