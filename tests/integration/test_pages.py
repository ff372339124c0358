"""Links between the pages lead somewhere: to a file, and to a heading of it where they name one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.harness import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)")
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_ELSEWHERE = ("http://", "https://")


def _anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as the forges make them: lower case, words joined, marks left out."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _broken(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    broken = []
    for target, anchor in _LINK.findall(_FENCED.sub("", text)):
        if target.startswith(_ELSEWHERE):
            continue
        led = (page.parent / target) if target else page
        if not led.exists() or (anchor and anchor not in _anchors(led.read_text(encoding="utf-8"))):
            broken.append(f"{target}#{anchor}")
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files_and_headings_that_there_are(page: Path) -> None:
    assert _broken(page) == []


def test_links_are_found_broken_when_a_page_misnames_a_file_or_a_heading(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# Here\n\n```sh\n# Not a heading\n```\n## `b` and *c*\n", encoding="utf-8")
    links = ("there.md", "there.md#here", "there.md#b-and-c", "there.md#not-a-heading", "there.md#nowhere", "gone.md")
    page = tmp_path / "page.md"
    page.write_text("\n".join(f"[a]({link})" for link in links), encoding="utf-8")
    assert _broken(page) == ["there.md#not-a-heading", "there.md#nowhere", "gone.md#"]
