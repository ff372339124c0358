"""Rewriting: clients who follow an answer stay behind the gate; other bytes stay as they were."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundles.errors import BundleRefused
from gateway.connectors.rewrite import Rewriter, RewriteTarget
from tests.gateway.connectors.parts import action, manifest, refused

UP = "http://up.example:9503"
GATE = "https://gate.example/c/svc"
TARGETS = (
    RewriteTarget("svc", UP, GATE),
    RewriteTarget("files", "https://files.example", "https://gate.example/c/files"),
)


def _rewriter(*paths: str, tickets: tuple[str, ...] = (), headers: tuple[str, ...] = ("Location", "Link")) -> Rewriter:
    rules: dict[str, Any] = {
        "hosts": ["instance"],
        "json": list(paths),
        "tickets": list(tickets),
        "headers": list(headers),
    }
    return Rewriter(manifest(action("a.x", "GET", "/a"), rewrite=rules), TARGETS)


def _issue(instance: str, path: str) -> str:
    return f"T.{instance}.{path}"


BROAD = _rewriter("$..*")
NARROW = _rewriter("$..url", "$.deep.link", "$.rows[*].href", "$..*_url", "$.any.*")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(f'{{"a": "{UP}/x"}}', f'{{"a": "{GATE}/x"}}', id="url"),
        pytest.param(f'{{"a":"{UP}"}}', f'{{"a":"{GATE}"}}', id="url without a path"),
        pytest.param(f'{{"a":"{UP}/x{{/n}}?q=1#f"}}', f'{{"a":"{GATE}/x{{/n}}?q=1#f"}}', id="template, query, fragment"),
        pytest.param(f'{{"a":"{UP}?q"}}', f'{{"a":"{GATE}?q"}}', id="query at once"),
        pytest.param('{"a":"http:\\/\\/up.example:9503\\/x"}', f'{{"a":"{GATE}\\/x"}}', id="escaped slashes"),
        pytest.param(f'{{"a":["{UP}/1","{UP}/2"]}}', f'{{"a":["{GATE}/1","{GATE}/2"]}}', id="array"),
        pytest.param(f'{{"n":1.0,"big":12345678901234567890,"a":"{UP}/x" }}',
                     f'{{"n":1.0,"big":12345678901234567890,"a":"{GATE}/x" }}', id="numbers as they were"),
        pytest.param(f'{{"a":"{UP}/ä\\u00e4\\n"}}', f'{{"a":"{GATE}/ä\\u00e4\\n"}}', id="escapes in the path"),
        pytest.param('{"a":"https://files.example:443/f"}', '{"a":"https://gate.example/c/files/f"}', id="default port"),
    ],
)  # fmt: skip
def test_body_names_the_gate_when_it_named_the_upstream(raw: str, expected: str) -> None:
    assert BROAD.body(raw.encode(), _issue).decode() == expected


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param('{"a":"http://other.example/x"}', id="another host"),
        pytest.param('{"a":"http://up.example:9503.evil.example/x"}', id="longer host"),
        pytest.param('{"a":"http://up.example:95031/x"}', id="longer port"),
        pytest.param('{"a":"http://up.example:9503@evil.example/x"}', id="upstream as user name"),
        pytest.param('{"a":"http://up.example:9503\\u002eevil.example/x"}', id="escaped dot"),
        pytest.param('{"a":"http://up.example/x"}', id="another port"),
        pytest.param('{"a":"https://up.example:9503/x"}', id="another scheme"),
        pytest.param('{"a":"see http://up.example:9503/x"}', id="within a text"),
        pytest.param('{"a":"say \\"http://up.example:9503/x\\" now"}', id="quoted within a text"),
        pytest.param('{"http://up.example:9503/x": 1}', id="a key"),
        pytest.param('{"http://up.example:9503/x" : 1}', id="a key with space"),
    ],
)
def test_body_stays_byte_for_byte_when_it_leads_elsewhere(raw: str) -> None:
    assert BROAD.body(raw.encode(), _issue) == raw.encode()


def test_body_is_the_same_object_when_it_does_not_name_the_upstream() -> None:
    raw = b'{"a": 1.50}'
    assert BROAD.body(raw, _issue) is raw


def test_only_the_named_paths_are_rewritten() -> None:
    document = {
        "url": f"{UP}/1",
        "x": {"url": f"{UP}/2", "plain": f"{UP}/p"},
        "deep": {"link": f"{UP}/3"},
        "link": f"{UP}/q",
        "rows": [{"href": f"{UP}/4"}, {"href": f"{UP}/5", "other": f"{UP}/r"}, 7],
        "html_url": f"{UP}/6",
        "any": {"name": f"{UP}/8"},
    }
    found = json.loads(NARROW.body(json.dumps(document).encode(), _issue))
    assert [found["url"], found["x"]["url"], found["deep"]["link"], found["html_url"]] == [
        f"{GATE}/{n}" for n in "1236"
    ]
    assert found["any"]["name"] == f"{GATE}/8"
    assert [row["href"] for row in found["rows"][:2]] == [f"{GATE}/4", f"{GATE}/5"]
    assert [found["x"]["plain"], found["link"], found["rows"][1]["other"]] == [f"{UP}/p", f"{UP}/q", f"{UP}/r"]


def test_paths_below_a_member_and_members_of_a_name_are_rewritten_side_by_side() -> None:
    rewriter = _rewriter("$.data..href", "$..url")
    link = {"href": f"{UP}/1", "n": 1, "none": None}
    document = {
        "data": [link, [{"href": f"{UP}/2"}], 3],
        "url": f"{UP}/3",
        "deep": {"n": 1, "url": f"{UP}/4"},
        "more": [1],
    }
    beside = {"href": f"{UP}/5"}
    rewritten = json.loads(rewriter.body(json.dumps({**document, "beside": beside}).encode(), _issue))
    expected = json.loads(json.dumps(document).replace(UP, GATE))
    assert rewritten == {**expected, "beside": beside}


def test_members_of_a_list_are_rewritten_when_the_path_has_no_name() -> None:
    raw = json.dumps([f"{UP}/1", {"href": f"{UP}/2"}]).encode()
    assert json.loads(_rewriter("$[*]").body(raw, _issue)) == [f"{GATE}/1", {"href": f"{UP}/2"}]


def test_body_that_names_the_upstream_and_is_no_json_is_refused() -> None:
    assert refused(lambda: NARROW.body(f'{{"url":"{UP}/1"'.encode(), _issue)).code == "upstream_failed"


UPLOAD = _rewriter("$.upload_url", tickets=("$.upload_url", "$.files[*].put"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("https://files.example/u/1", "https://gate.example/c/files/u/1?tidegate_ticket=T.files./u/1", id="path"),
        pytest.param("https://files.example/u?x=1", "https://gate.example/c/files/u?x=1&tidegate_ticket=T.files./u", id="query"),
        pytest.param("https://files.example/u#f", "https://gate.example/c/files/u?tidegate_ticket=T.files./u#f", id="fragment"),
        pytest.param("https://files.example", "https://gate.example/c/files?tidegate_ticket=T.files./", id="root"),
    ],
)  # fmt: skip
def test_upload_url_gets_a_ticket(url: str, expected: str) -> None:
    found = json.loads(UPLOAD.body(json.dumps({"ok": True, "upload_url": url}).encode(), _issue))
    assert found == {"ok": True, "upload_url": expected}


def test_each_of_several_upload_urls_gets_its_own_ticket() -> None:
    count = iter(range(10))
    raw = json.dumps({"files": [{"put": "https://files.example/u"}, {"put": "https://files.example/u"}]}).encode()
    found = json.loads(UPLOAD.body(raw, lambda instance, path: f"T{next(count)}"))
    assert [entry["put"][-2:] for entry in found["files"]] == ["T0", "T1"]


def test_other_urls_beside_an_upload_url_get_no_ticket() -> None:
    every = _rewriter("$..*", tickets=("$.upload_url",))
    raw = json.dumps({"upload_url": "https://files.example/u", "a": f"{UP}/x"}).encode()
    assert json.loads(every.body(raw, _issue))["a"] == f"{GATE}/x"


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/u",
        "http://files.example/u",
        "https://files.example.evil/u",
        "//files.example/u",
        "/u",
    ],
)
def test_answer_is_refused_when_its_upload_url_leads_past_the_gate(url: str) -> None:
    raw = json.dumps({"upload_url": url}).encode()
    assert refused(lambda: UPLOAD.body(raw, _issue)).code == "upstream_failed"


def test_upload_url_gets_a_ticket_when_its_name_is_written_with_escapes() -> None:
    raw = b'{"upload\\u005furl":"https://files.example/u"}'
    assert b"tidegate_ticket=T.files./u" in UPLOAD.body(raw, _issue)


def test_answer_without_the_names_of_any_path_stays_as_it_is() -> None:
    raw = f'{{"permalink":"{UP}/x"'.encode()  # not even read
    assert UPLOAD.body(raw, _issue) == raw


@pytest.mark.parametrize("slash", ["\\u002f", "\\u002F"])
def test_answer_is_refused_when_its_upload_url_is_written_past_recognition(slash: str) -> None:
    raw = f'{{"upload_url":"https:{slash}{slash}files.example/u"}}'.encode()
    assert refused(lambda: UPLOAD.body(raw, _issue)).code == "upstream_failed"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        pytest.param("Location", f"{UP}/x", f"{GATE}/x", id="location"),
        pytest.param("location", "/x", f"{GATE}/x", id="path-absolute location"),
        pytest.param("Location", "x", "x", id="relative location"),
        pytest.param("Location", "//up.example:9503/x", "//up.example:9503/x", id="network path"),
        pytest.param("Location", "http://169.254.169.254/latest", "http://169.254.169.254/latest", id="elsewhere"),
        pytest.param("Link", f'<{UP}/x?page=2>; rel="next", <{UP}/x?page=9>; rel="last"',
                     f'<{GATE}/x?page=2>; rel="next", <{GATE}/x?page=9>; rel="last"', id="link"),
        pytest.param("X-Other", f"{UP}/x", f"{UP}/x", id="header nobody named"),
    ],
)  # fmt: skip
def test_header_names_the_gate_when_it_named_the_upstream(name: str, value: str, expected: str) -> None:
    assert BROAD.headers([(name, value)]) == [(name, expected)]


@pytest.mark.parametrize(
    ("content_type", "applies"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("application/vnd.github+json", True),
        ("text/event-stream", False),
        ("text/html", False),
        ("application/jsonl", False),
        (None, False),
    ],
)
def test_only_json_is_read_whole(content_type: str | None, applies: bool) -> None:
    assert BROAD.applies_to(content_type) is applies


def test_nothing_is_read_whole_without_rules() -> None:
    assert not _rewriter().applies_to("application/json")


@pytest.mark.parametrize("path", ["url", "$", "$.a[0]", "$.a[?(@.x)]", "$..", "$.a b", "$['a']"])
def test_json_path_outside_the_subset_is_refused(path: str) -> None:
    with pytest.raises(BundleRefused):
        _rewriter(path)


@pytest.mark.parametrize("base", ["up.example", "/x", "ftp://up.example", ""])
def test_base_that_is_no_http_url_is_refused(base: str) -> None:
    with pytest.raises(BundleRefused):
        Rewriter(manifest(action("a.x", "GET", "/a")), (RewriteTarget("svc", base, GATE),))


def test_base_with_a_path_is_replaced_whole() -> None:
    targets = (RewriteTarget("svc", "https://up.example/v3/", GATE),)
    rewriter = Rewriter(manifest(action("a.x", "GET", "/a"), rewrite={"json": ["$..*"]}), targets)
    assert rewriter.url("https://up.example:443/v3/x") == f"{GATE}/x"
    assert rewriter.url("https://up.example/v30/x") == "https://up.example/v30/x"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=8) | st.just(f"{UP}/x"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


def _expected(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _expected(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expected(item) for item in value]
    return f"{GATE}/x" if value == f"{UP}/x" else value


@given(JSON)
def test_rewriting_changes_upstream_urls_and_nothing_else(value: Any) -> None:
    assert json.loads(BROAD.body(json.dumps(value).encode(), _issue)) == _expected(value)
