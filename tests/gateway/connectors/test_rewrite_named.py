"""Members that are rewritten by their name alone: only texts, at every depth, and nothing else of the answer."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


WILD = _rewriter("$..*url", "$..a*b*c", "$..next_*")


@pytest.mark.parametrize(
    "name", ["url", "html_url", "äurl", "abc", "a-b-c", "aXbYbZc", "abcc", "next_", "next_page", "next_é"]
)
def test_member_is_rewritten_when_its_name_fits_a_wildcard(name: str) -> None:
    assert _rewritten({"deep": [{name: f"{UP}/x"}]}, WILD) == {"deep": [{name: f"{GATE}/x"}]}


@pytest.mark.parametrize("name", ["urls", "Url", "ac", "acb", "xabc", "abcd", "xnext_page", "", "u rl", 'html"_ur'])
def test_member_stays_when_its_name_fits_no_wildcard(name: str) -> None:
    assert _rewritten({"deep": [{name: f"{UP}/x"}]}, WILD) == {"deep": [{name: f"{UP}/x"}]}


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(f'{{"a": "\\"url\\": \\"{UP}/x\\""}}', id="JSON in a text"),
        pytest.param(f'{{"a \\"url": "{UP}/x"}}', id="a name behind an escaped quote"),
        pytest.param(f'["url", "{UP}/x"]', id="a list"),
        pytest.param(f'{{"a": ["url", ":", "{UP}/x"]}}', id="a list with a colon"),
        pytest.param(f'{{"url": ["{UP}/x"]}}', id="a list of the name"),
        pytest.param(f'{{"url": "see {UP}/x"}}', id="within a text"),
        pytest.param(f'{{"url": "{UP}.evil.example/x"}}', id="a longer host"),
        pytest.param(f'{{"url": "{UP}\\u002eevil.example/x"}}', id="a longer host behind an escape"),
        pytest.param(f'{{"url": "{UP}@evil.example/x"}}', id="a user name"),
    ],
)
def test_answer_stays_byte_for_byte_when_no_member_of_the_name_leads_to_the_upstream(raw: str) -> None:
    assert NAMED.body(raw.encode(), _issue) == raw.encode()


@pytest.mark.parametrize("between", [":", " : ", "\n\t:\r\n "])
def test_member_is_rewritten_however_it_is_spaced(between: str) -> None:
    raw = f'{{"url"{between}"{UP}/x"}}'
    assert NAMED.body(raw.encode(), _issue).decode() == raw.replace(UP, GATE)


_TEXT = st.sampled_from(
    ["", "url", "x_url", ":", '"url": "', "\\", '\\"', "é", f"{UP}/x", f"{UP}", f"{UP}x", f" {UP}/x"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=12,
)


def _expected(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _expected(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_expected(item) for item in value]
    return value.replace(UP, GATE) if name.endswith("url") and value in (f"{UP}/x", UP) else value


@given(_JSON, st.booleans())
def test_members_of_the_name_are_rewritten_and_nothing_else(value: Any, ascii_only: bool) -> None:
    wild = _rewriter("$..*url")
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert json.loads(wild.body(raw, _issue)) == _expected(value)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b'{"url":"%b/x","d":[%b]}' % (UP.encode(), b",".join([b'{"a":1}'] * 1_500_000)), id="objects"),
        pytest.param(b'{"url":"%b/x","%b":1}' % (UP.encode(), b"ab" * 4_000_000), id="one long name"),
        pytest.param(b'{"url":"%b/x",%b}' % (UP.encode(), b" " * 8_000_000), id="spaces"),
        pytest.param(b'{"url":"%b/x","a":"%b"}' % (UP.encode(), b'\\"' * 4_000_000), id="escaped quotes"),
    ],
)
def test_large_answer_is_rewritten_in_linear_time(raw: bytes) -> None:
    began = time.process_time()
    assert WILD.body(raw, _issue).startswith(b'{"url":"%b/x"' % GATE.encode())
    assert time.process_time() - began < 2.0


def test_path_with_wildcards_is_followed_in_linear_time() -> None:
    rooted = _rewriter("$.a*b*a*b*c")
    raw = json.dumps({"ab" * 50_000: f"{UP}/x", "abc": f"{UP}/y", "ababc": f"{UP}/z"}).encode()
    began = time.process_time()
    assert json.loads(rooted.body(raw, _issue))["ababc"] == f"{GATE}/z"
    assert time.process_time() - began < 2.0
