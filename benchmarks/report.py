"""Tables for people and JSON for machines, from the same figures."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.load import Sample

RESULTS = Path(__file__).resolve().parent / "results"
PIPED_COLUMNS = 160
"""How wide a table is in a file: figures are cut where the width of no terminal is known."""


def summary(samples: Sequence[Sample]) -> dict[str, float]:
    """The medians over several runs, and the sum of errors."""

    def median(values: Sequence[float]) -> float:
        return round(statistics.median(values), 3)

    return {
        "runs": len(samples),
        "offered_per_second": median([sample.offered_per_second for sample in samples]),
        "achieved_per_second": median([sample.achieved_per_second for sample in samples]),
        "p50_ms": median([sample.percentile_ms(50) for sample in samples]),
        "p99_ms": median([sample.percentile_ms(99) for sample in samples]),
        "errors": sum(sample.errors for sample in samples),
    }


def show(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print one table; the first column names the row."""
    columns = list(next(iter(rows.values())))
    table = Table(title=title)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(f"{row[column]:,.3f}".rstrip("0").rstrip(".") for column in columns))
    console = Console()
    if not console.is_terminal:
        console.width = PIPED_COLUMNS
    console.print(table)


def write(case: str, document: Mapping[str, object]) -> Path:
    """Write one result file and give its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{case}-{time.strftime('%Y%m%dT%H%M%S')}.json"
    head = {"case": case, "python": platform.python_version(), "machine": platform.machine()}
    path.write_text(json.dumps({**head, **document}, indent=2) + "\n", encoding="utf-8")
    return path
