"""Rendering: the reverse of classifying and gathering."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundles.manifest import ConnectorManifest
from gateway.connectors.arguments import gather
from gateway.connectors.classify import ActionTable
from gateway.connectors.render import OutboundCall, render
from gateway.errors import Refusal
from tests.gateway.connectors.parts import action, manifest, refused, shipped

SCHEMA: dict[str, Any] = {
    "properties": {
        "id": {"type": "string"},
        "limit": {"type": "integer", "x-tidegate-in": "query"},
        "dry": {"type": "boolean", "x-tidegate-in": "query"},
        "title": {"type": "string"},
        "odd": True,
    }
}
LOADED = manifest(
    action("a.write", "PATCH", "/a/{id}", schema=SCHEMA, body="json"),
    action("a.read", "GET", "/a/{id}", schema=SCHEMA, match_query={"v": "2"}),
    action("a.form", "POST", "/f", schema=SCHEMA, body="form"),
    action("a.file", "GET", "/files/{path+}", parameters={"path": "[a-zA-Z .]+(/[a-zA-Z .]+)*"}),
    action("a.any", "GET", "/any/{id}", parameters={"id": "(?s:.+)"}),
    action("a.open", "GET", "/open", additional=True),
    action("a.number", "GET", "/n/{n}"),
    action("a.rpc", "POST", "/rpc", body="json", match_body={"/method": "go", "/params/name": "x"}, additional=True),
    action("a.whole", "POST", "/w", body="json", schema={"properties": {"body": {"type": "array"}}}),
    action("a.start", "POST", "/start"),
    action("a.upload", "PUT", "/upload", caller_token=["ticket"]),
    action("a.parts", "POST", "/parts", body="multipart"),
)
TABLE = ActionTable(LOADED)


def _render(name: str, arguments: dict[str, Any]) -> OutboundCall:
    return render(LOADED, TABLE.action(f"svc.{name}"), arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "method", "path", "query", "body"),
    [
        pytest.param("a.write", {"id": "7", "title": "t"}, "PATCH", "/api/a/7", "", b'{"title":"t"}', id="path and body"),
        pytest.param("a.write", {"id": "7"}, "PATCH", "/api/a/7", "", None, id="nothing for the body"),
        pytest.param("a.write", {"id": "7", "limit": 3, "dry": True}, "PATCH", "/api/a/7", "limit=3&dry=true", None, id="query"),
        pytest.param("a.read", {"id": "a@b:c"}, "GET", "/api/a/a@b:c", "v=2", None, id="constant of the match"),
        pytest.param("a.read", {"id": "7", "v": "2", "title": "ä &"}, "GET", "/api/a/7", "v=2&title=%C3%A4%20%26", None, id="no body"),
        pytest.param("a.form", {"title": "a b&c", "dry": False}, "POST", "/api/f", "dry=false", b"title=a%20b%26c", id="form"),
        pytest.param("a.file", {"path": "a b/c.txt"}, "GET", "/api/files/a%20b/c.txt", "", None, id="rest of the path"),
        pytest.param("a.number", {"n": 12}, "GET", "/api/n/12", "", None, id="number in the path"),
        pytest.param(
            "a.rpc", {"params": {"b": 1}}, "POST", "/api/rpc", "", b'{"method":"go","params":{"b":1,"name":"x"}}', id="discriminators"
        ),
        pytest.param("a.whole", {"body": [1, 2]}, "POST", "/api/w", "", b"[1,2]", id="whole body"),
        pytest.param("a.start", {}, "POST", "/api/start", "", None, id="write without a body"),
    ],
)  # fmt: skip
def test_render_puts_each_argument_in_its_place(
    name: str, arguments: dict[str, Any], method: str, path: str, query: str, body: bytes | None
) -> None:
    call = _render(name, arguments)
    assert (call.method, call.path, call.query, call.body) == (method, path, query, body)
    assert ("content-type" in dict(call.headers)) is (body is not None)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param("a.write", {"title": "t"}, id="path parameter missing"),
        pytest.param("a.write", {"id": ".."}, id="dot dot"),
        pytest.param("a.write", {"id": "a/b"}, id="slash in one segment"),
        pytest.param("a.write", {"id": "a%2Fb"}, id="percent sign"),
        pytest.param("a.write", {"id": "7?x=1"}, id="question mark"),
        pytest.param("a.write", {"id": "7\r\nHost: x"}, id="line end"),
        pytest.param("a.write", {"id": ""}, id="empty"),
        pytest.param("a.write", {"id": True}, id="boolean in the path"),
        pytest.param("a.write", {"id": None}, id="null in the path"),
        pytest.param("a.write", {"id": ["7"]}, id="array in the path"),
        pytest.param("a.file", {"path": "a/../b"}, id="dot dot in the rest"),
        pytest.param("a.file", {"path": "/a"}, id="rest that starts at the root"),
        pytest.param("a.read", {"id": "7", "v": "3"}, id="another constant"),
        pytest.param("a.read", {"id": "7", "odd": [1]}, id="array in a query"),
        pytest.param("a.read", {"id": "7", "odd": None}, id="null in a query"),
        pytest.param("a.read", {"id": "7", "odd": 1.5}, id="decimal in a query"),
        pytest.param("a.form", {"odd": {"a": 1}}, id="object in a form"),
        pytest.param("a.read", {"id": "7", "title": "\x00\x07"}, id="null byte in a query"),
        pytest.param("a.form", {"title": "a\x00"}, id="null byte in a form"),
        pytest.param("a.any", {"id": "a\x00b"}, id="null byte in the path"),
        pytest.param("a.any", {"id": "a\x07b"}, id="control character in the path"),
        pytest.param("a.any", {"id": "100%"}, id="percent sign that the pattern admits"),
        pytest.param("a.any", {"id": ".."}, id="dot dot that the pattern admits"),
        pytest.param("a.open", {f"k{number}": 1 for number in range(300)}, id="more parameters than a query holds"),
        pytest.param("a.open", {"k\x00": 1}, id="null byte in the name of a parameter"),
        pytest.param("a.rpc", {"method": "stop"}, id="another discriminator"),
        pytest.param("a.rpc", {"params": [1]}, id="array where the discriminator is"),
        pytest.param("a.rpc", {"n": 2**60}, id="integer no double holds"),
    ],
)
def test_render_refuses_arguments_without_a_form(name: str, arguments: dict[str, Any]) -> None:
    assert refused(lambda: _render(name, arguments)).code == "arguments_invalid"


@pytest.mark.parametrize("name", ["a.upload", "a.parts"])
def test_render_refuses_an_action_that_takes_a_file(name: str) -> None:
    assert refused(lambda: _render(name, {})).code == "unclassified"


def test_render_leaves_the_arguments_as_they_were() -> None:
    given_arguments: dict[str, Any] = {"params": {"b": 1}}
    _render("a.rpc", given_arguments)
    assert given_arguments == {"params": {"b": 1}}


TEXT = st.text(max_size=20)


def _round_trip(loaded: ConnectorManifest, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    table = ActionTable(loaded)
    call = render(loaded, table.action(name), arguments)
    segments = tuple(unquote(part) for part in call.path[1:].split("/"))
    query = tuple(parse_qsl(call.query, keep_blank_values=True))
    found = table.classify(call.method, segments, query)
    assert found.action.name == name
    return dict(gather(found.action, found.path_arguments, query, dict(call.headers).get("content-type"), call.body))


@given(TEXT, TEXT, TEXT)
def test_rendered_call_gathers_the_same_arguments(sys_id: str, text: str, more: str) -> None:
    arguments = {"sys_id": sys_id, "short_description": text, "description": more}
    try:
        assert _round_trip(shipped("servicenow"), "servicenow.incident.update", arguments) == arguments
    except Refusal as problem:
        assert problem.code == "arguments_invalid"


@given(TEXT, st.integers(1, 1000))
def test_rendered_query_gathers_the_same_arguments(text: str, limit: int) -> None:
    arguments = {"sysparm_query": text, "sysparm_limit": limit}
    try:
        assert _round_trip(shipped("servicenow"), "servicenow.incident.list", arguments) == arguments
    except Refusal as problem:
        assert "\x00" in text, problem


@given(TEXT, st.integers(1, 1000))
def test_rendered_form_gathers_the_same_arguments(name: str, length: int) -> None:
    arguments = {"filename": name, "length": length}
    try:
        assert _round_trip(shipped("slack"), "slack.file.upload_url", arguments) == arguments
    except Refusal as problem:
        assert "\x00" in name, problem
