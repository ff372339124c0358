"""`docs/configuration.md` names every key there is and no other, with the limits' numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, get_args, get_origin

import annotated_types
from pydantic import BaseModel

from gateway.approvals.service import ApprovalLimits
from gateway.config import Document, Limits
from gateway.connectors.tickets import OUTSTANDING_MAX, OUTSTANDING_PER_TENANT_MAX
from gateway.edge.limits import EdgeLimits
from gateway.egress.dialer import PoolLimits
from gateway.egress.exchange import UpstreamTimeouts

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
_SECTIONS = ("identity.issuers[]", "bundles[]", "limits", "decision_logs[]", "instances.NAME")
"""What has a table of its own; its rows name keys inside it."""


def _models(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    """The models that a field may hold, and what stands between its name and theirs."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
    between = {list: "[]", dict: ".NAME"}.get(get_origin(annotation), "")
    for argument in get_args(annotation):
        yield from ((model, between + rest) for model, rest in _models(argument))


def _keys(model: type[BaseModel], before: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inside = list(_models(field.annotation))
        if not inside or any(argument for argument in get_args(field.annotation) if get_origin(argument) is not None):
            yield before + name
        for each, between in inside:
            yield from _keys(each, f"{before}{name}{between}.")


def _tables() -> Iterator[tuple[str, list[str]]]:
    """Each row's cells, and the section it stands in."""
    section = ""
    for line in PAGE.splitlines():
        if line.startswith("#"):
            section = line.strip("# `")
        elif line.startswith("| `"):
            yield section, [cell.strip() for cell in line.strip("|").split("|")]


def _named() -> list[str]:
    found = []
    for section, cells in _tables():
        names = re.findall(r"`([^`]+)`", cells[0])
        found += [f"{section}.{name}" if section in _SECTIONS else name for name in names]
    return [name for name in found if name not in _SECTIONS]


def test_page_names_each_key_once_and_nothing_else() -> None:
    assert sorted(_named()) == sorted(_keys(Document))


def test_page_has_the_limits_as_they_are() -> None:
    told = {
        cells[0].strip("`"): [int(cell) for cell in cells[1:4]] for section, cells in _tables() if section == "limits"
    }
    expected = {}
    for name, field in Limits.model_fields.items():
        lowest = next(bound.ge for bound in field.metadata if isinstance(bound, annotated_types.Ge))
        highest = next(bound.le for bound in field.metadata if isinstance(bound, annotated_types.Le))
        expected[name] = [field.default, lowest, highest]
    assert told == expected


def test_page_has_the_fixed_limits_as_they_are() -> None:
    rows = PAGE.partition("These are fixed:")[2].partition("###")[0].splitlines()
    told = [[int(number) for number in re.findall(r"[0-9]+", row.split("|")[2])] for row in rows if row.startswith("|")]
    edge = EdgeLimits()
    expected = [
        [edge.connections_max],
        [edge.body_min_bytes_per_second],
        [int(edge.write_stall_seconds)],
        [int(edge.linger_seconds)],
        [int(edge.half_closed_seconds)],
        [PoolLimits().connections_max],
        [int(UpstreamTimeouts().write_seconds)],
        [ApprovalLimits(wait_max_seconds=0, open_per_subject_max=0).waiters_max],
        [OUTSTANDING_MAX, OUTSTANDING_PER_TENANT_MAX],
    ]
    assert list(zip_longest(filter(None, told), expected)) == [(each, each) for each in expected]
