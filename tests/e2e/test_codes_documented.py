"""`docs/error-codes.md` names every code once, beside its status, and calls reserved exactly what nothing can answer."""

from __future__ import annotations

import re

from gateway.edge.problem import CODES
from tests.e2e.harness import ROOT
from tests.e2e.test_codes_table import NOT_YET

TEXT = (ROOT / "docs" / "error-codes.md").read_text(encoding="utf-8")
TABLE, _, RESERVED = TEXT.partition("Reserved for later versions")


def _listed() -> list[tuple[int, str]]:
    """Status and code of each row; a row that names one status for several codes gives it to all."""
    found: list[tuple[int, str]] = []
    for line in TABLE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        statuses = [int(number) for number in re.findall(r"\b[45][0-9]{2}\b", cells[0])]
        if len(cells) != 4 or not statuses:
            continue
        codes = re.findall(r"`([a-z_]+)`", cells[1])
        found += zip(statuses if len(statuses) == len(codes) else statuses * len(codes), codes, strict=True)
    return found


def test_table_has_each_code_that_can_occur_once_with_its_status() -> None:
    expected = sorted((CODES[code].status, code) for code in CODES.keys() - NOT_YET.keys())
    assert sorted(_listed()) == expected


def test_reserved_are_the_codes_that_cannot_occur_with_their_status() -> None:
    statuses: dict[str, int] = {}
    codes: list[str] = []
    for code, status in re.findall(r"`([a-z_]+)`|\(([45][0-9]{2})\)", RESERVED):
        if code:
            codes.append(code)
        else:
            statuses |= dict.fromkeys(codes, int(status))
            codes = []
    assert statuses == {code: CODES[code].status for code in NOT_YET}
