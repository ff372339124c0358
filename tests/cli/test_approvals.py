"""What `tidegate approvals list` prints: an id that can be copied, whatever the width of the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cli.approvals import _table

ID = "0123456789abcdef0123456789abcdef"
ITEM = {
    "id": ID,
    "state": "pending",
    "action": "servicenow.incident.update",
    "instance": "servicenow-of-the-whole-company",
    "subject": {"id": "spiffe://acme/ops/agents/triage-bot"},
    "decide_by": "2026-01-01T00:00:00.000Z",
}


def _printed(width: int, items: list[dict[str, object]]) -> str:
    stream = io.StringIO()
    _table(Console(file=stream, width=width, highlight=False, soft_wrap=True), items)
    return stream.getvalue()


@pytest.mark.parametrize("width", [20, 40, 60, 79, 80, 81, 120, 200])
def test_list_prints_each_id_in_one_piece_when_the_terminal_is_narrow(width: int) -> None:
    other = {**ITEM, "id": ID[::-1]}
    printed = _printed(width, [ITEM, other])
    assert ID in printed
    assert ID[::-1] in printed


def test_list_keeps_the_whole_text_of_other_columns_when_it_folds_them() -> None:
    cells = [line.split("│") for line in _printed(80, [ITEM]).splitlines() if line.startswith("│")]
    assert "".join(row[2].strip() for row in cells) == f"{ITEM['action']}on{ITEM['instance']}"


def test_list_says_so_when_nothing_waits() -> None:
    assert _printed(80, []) == "nothing waits for approval\n"
