"""Members that are rewritten by their name alone: only texts, at every depth, and nothing else of the answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.connectors.rewrite import Rewriter
from tests.gateway.connectors.test_rewrite import GATE, UP, _issue, _rewriter

NAMED = _rewriter("$..url")


def _rewritten(document: Any, rewriter: Rewriter = NAMED) -> Any:
    return json.loads(rewriter.body(json.dumps(document).encode(), _issue))


@pytest.mark.parametrize(
    "other",
    [1, 0.5, True, None, "text", [], {}, [1, None]],
    ids=[
        "a number",
        "a fraction",
        "a truth",
        "null",
        "a text",
        "an empty list",
        "an empty object",
        "a list of scalars",
    ],
)
def test_named_member_is_rewritten_beside(other: Any) -> None:
    given = {"before": other, "url": f"{UP}/x", "after": other, "deep": [{"n": other, "url": f"{UP}/y"}]}
    expected = {"before": other, "url": f"{GATE}/x", "after": other, "deep": [{"n": other, "url": f"{GATE}/y"}]}
    assert _rewritten(given) == expected


@pytest.mark.parametrize("value", [1, None, [f"{UP}/x"], {"href": f"{UP}/x"}], ids=["number", "null", "list", "object"])
def test_named_member_stays_when_it_is_no_text_but_a(value: Any) -> None:
    assert _rewritten({"url": value}) == {"url": value}
