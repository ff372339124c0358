"""What `tidegate approvals list` prints: an id that can be copied, whatever the width of the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cli.approvals import _detail, _table

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


REQUEST = {
    **ITEM,
    "kind": "access_request",
    "resource": {"type": "document", "id": "q4\u202e"},
    "arguments": {"subject": {"type": "user", "id": "ann"}},
    "action_digest": "sha256:00",
}


def test_list_says_who_would_get_what_when_it_is_an_access_request() -> None:
    cells = [line.split("│") for line in _printed(200, [REQUEST]).splitlines() if line.startswith("│")]
    words = [row[2].strip() for row in cells]
    assert words == ["access request", "user ann asks for servicenow.incident.update on document q4\\u{202e}"]


def test_detail_says_that_approving_releases_no_call_when_it_is_an_access_request() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=400, highlight=False, soft_wrap=True)
    _detail(console, REQUEST)
    first = stream.getvalue().splitlines()[0]
    assert first.startswith("access request: user ann asks for servicenow.incident.update on document q4\\u{202e}. ")
    assert "releases no call" in first


def test_detail_is_that_of_a_call_when_no_kind_is_said() -> None:
    stream = io.StringIO()
    _detail(Console(file=stream, width=400), {**ITEM, "action_digest": "sha256:00"})
    assert "access request" not in stream.getvalue()


@pytest.mark.parametrize(
    "decide_by", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00.000000Z"]
)
def test_list_names_an_access_request_in_one_piece_when_its_other_columns_are_as_wide_as(decide_by: str) -> None:
    for subject in ("ann", "flow", ITEM["subject"]):
        assert "access request" in _printed(80, [{**REQUEST, "decide_by": decide_by, "subject": subject}])
