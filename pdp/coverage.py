"""OPA's report of what tests reached, told by rule: which lines of which rule no test evaluates.

Guarantees: every file that was asked about is in the answer, one that the report leaves out as not reached at all; lines
are counted once however many expressions stand on them. Leaves running the tests to the caller.

**Source**: OPA ``v1/cover/cover.go`` (``files.<name>.covered`` and ``not_covered``, ranges of rows).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdp.errors import PdpError

_RULE = re.compile(r"(?:default\s+)?([A-Za-z_]\w*)")
_NO_RULES = frozenset({"package", "import"})


class CoverageMalformed(PdpError):
    """What OPA printed is no report of coverage as this version knows it."""

    code = "coverage_malformed"


@dataclass(frozen=True, slots=True)
class RuleCoverage:
    """A rule with lines that no test evaluates."""

    rule: str
    line: int
    not_covered: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FileCoverage:
    """One file: how many lines tests reach, how many they do not, and whose those are."""

    file: str
    covered: int
    not_covered: int
    rules: tuple[RuleCoverage, ...]

    @property
    def percent(self) -> float:
        """Of the lines that can be evaluated; 100 for a file without any."""
        return percent(self.covered, self.not_covered)


def percent(covered: int, not_covered: int) -> float:
    """The covered share in percent, to two places; 100 of nothing."""
    lines = covered + not_covered
    return round(100 * covered / lines, 2) if lines else 100.0


def read_coverage(report: object, rego: Mapping[str, bytes]) -> tuple[FileCoverage, ...]:
    """The coverage of the files ``rego``, by name; raises ``CoverageMalformed``."""
    files = report.get("files") if isinstance(report, dict) else None
    if not isinstance(files, dict):
        raise CoverageMalformed("the report has no files")
    told = {str(name).removeprefix("/").removeprefix("./"): entry for name, entry in files.items()}
    return tuple(_file(name, told.get(name), rego[name].decode("utf-8", "replace")) for name in sorted(rego))


def _file(name: str, entry: object, text: str) -> FileCoverage:
    begins = _begins(text)
    if entry is None:
        missed = [line for line, _ in begins]
        return FileCoverage(name, 0, len(missed), _by_rule(missed, begins))
    if not isinstance(entry, dict):
        raise CoverageMalformed(f"{name}: no object")
    covered, not_covered = _lines(entry.get("covered"), name), _lines(entry.get("not_covered"), name)
    missed = sorted(not_covered - covered)
    return FileCoverage(name, len(covered), len(missed), _by_rule(missed, begins))


def _begins(text: str) -> list[tuple[int, str]]:
    """The first line of each rule, and its name."""
    found = ((number, _RULE.match(line)) for number, line in enumerate(text.splitlines(), 1))
    return [(number, match[1]) for number, match in found if match is not None and match[1] not in _NO_RULES]


def _lines(ranges: object, name: str) -> set[int]:
    lines: set[int] = set()
    for each in ranges if isinstance(ranges, list) else []:
        first, last = _row(each, "start", name), _row(each, "end", name)
        lines.update(range(first, max(first, last) + 1))
    return lines


def _row(each: Any, end: str, name: str) -> int:
    place = each.get(end) if isinstance(each, dict) else None
    row = place.get("row") if isinstance(place, dict) else None
    if not isinstance(row, int) or not 0 < row < 10_000_000:
        raise CoverageMalformed(f"{name}: a range without rows")
    return row


def _by_rule(missed: list[int], begins: list[tuple[int, str]]) -> tuple[RuleCoverage, ...]:
    """Lines under the rule that begins at or above each of them."""
    grouped: dict[tuple[int, str], list[int]] = {}
    for line in missed:
        rule = max((begin for begin in begins if begin[0] <= line), default=(line, ""))
        grouped.setdefault(rule, []).append(line)
    return tuple(RuleCoverage(name, line, tuple(lines)) for (line, name), lines in sorted(grouped.items()))
