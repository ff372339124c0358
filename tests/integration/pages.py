"""Pages of documentation as tests read them: tables, fenced blocks, and what a shown command is said to print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.e2e.harness import ROOT

_FENCE = re.compile(r"([^\n]*(?:\n(?!```)[^\n]*)*?)\n```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^(?! )((?:[^\n]*\\\n)*[^\n]+)$", re.MULTILINE)
_SHOWN = re.compile(r"^\$ ((?:[^\n]*\\\n)*[^\n]+)\n((?:(?!\$ )[^\n]*\n)*)", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")
_CHANGING = re.compile(r"\b[0-9a-f]{12,}\b|\b[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+|\bINC[0-9]{7}\b")
_CELL = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text, and the prose between the block before and this one."""

    before: str
    language: str
    text: str

    def commands(self) -> list[str]:
        """The commands of a block of `sh`; one that goes on in the next line is one."""
        return _COMMAND.findall(self.text)

    def exchanges(self) -> list[tuple[str, str]]:
        """The commands of a block of `console`, each with what it prints."""
        return _SHOWN.findall(self.text)


def page(name: str) -> str:
    """The text of a page in `docs`."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one of its level or above."""
    level = len(heading) - len(heading.lstrip("#"))
    _, found, rest = text.partition(f"\n{heading}\n")
    if not found:
        raise AssertionError(f"the page has no {heading!r}")
    return re.split(rf"^#{{1,{level}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a text, in their order."""
    return [Block(*found) for found in _FENCE.findall(text)]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each table row whose first cell names something in code."""
    for line in text.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in _CELL.split(line)[1:-1]]


def names(cell: str) -> list[str]:
    """What a cell has in code."""
    return _CODE.findall(cell)


def ids_alike(text: str) -> str:
    """A text in which ids, digests, records' numbers and times of one length are the same; statuses stay what they are."""
    return _CHANGING.sub(lambda found: re.sub(r"[0-9a-f]", "0", found[0]), text)
