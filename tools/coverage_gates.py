"""Holds the coverage that the tests reached: pure modules by branches, everything else by lines and branches together.

Reads the report of the combined run and the pure/shell declaration of the architecture test. A gate is raised
when coverage rises and never lowered to let a change in.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PURE_BRANCHES_MIN_PERCENT = 100.0
SHELL_MIN_PERCENT = 90.0
SHOWN_MAX = 12


def _report() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coverage.json"
        subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", str(path)], cwd=ROOT, check=True)
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document


def _dotted(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _percent(done: int, all_: int) -> float:
    return 100.0 if not all_ else 100.0 * done / all_


def rest_lost(summary: dict[str, int]) -> int:
    """How many lines and branches of one file did not run."""
    return summary["missing_lines"] + summary["missing_branches"]


def main() -> int:
    """Print both figures and what is missing; 1 when a gate does not hold."""
    sys.path.insert(0, str(ROOT))
    from tests.architecture.classification import PURE

    pure = [0, 0]
    rest = [0, 0]
    missing: dict[str, str] = {}
    weak: list[tuple[int, str]] = []
    for name, entry in _report()["files"].items():
        summary = entry["summary"]
        if _dotted(name) in PURE:
            pure[0] += summary["covered_branches"]
            pure[1] += summary["num_branches"]
            arcs = ", ".join(f"{a}->{b}" for a, b in entry["missing_branches"][:SHOWN_MAX])
            missing.update({name: f"{name}: {arcs}"} if arcs else {})
        else:
            rest[0] += summary["covered_lines"] + summary["covered_branches"]
            rest[1] += summary["num_statements"] + summary["num_branches"]
            lost = rest_lost(summary)
            if lost:
                weak.append((lost, name))
    weak.sort(reverse=True)
    pure_percent, rest_percent = _percent(*pure), _percent(*rest)
    print(f"branches of pure modules: {pure_percent:.2f} % of {pure[1]} (gate {PURE_BRANCHES_MIN_PERCENT:g} %)")
    print(f"everything else:          {rest_percent:.2f} % of {rest[1]} (gate {SHELL_MIN_PERCENT:g} %)")
    failed = pure_percent < PURE_BRANCHES_MIN_PERCENT or rest_percent < SHELL_MIN_PERCENT
    if failed:
        print("\n".join(missing.values()))
        print("\n".join(f"{name}: {lost} lines and branches not run" for lost, name in weak[:SHOWN_MAX]))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
