"""Classification: one action or none."""

from __future__ import annotations

from typing import Any

import pytest

from bundles.errors import BundleRefused
from bundles.manifest import Action, ConnectorManifest, Match
from gateway.connectors.classify import (
    REMEMBERED_MAX,
    REMEMBERED_MAX_CHARACTERS,
    ActionTable,
    compile_template,
    parse_pointer,
    split_path,
    value_at,
)
from tests.gateway.connectors.parts import action, manifest, refused, shipped


def _segments(path: str) -> tuple[str, ...]:
    return tuple(path.removeprefix("/").split("/"))


TABLE = ActionTable(
    manifest(
        action("item.list", "GET", "/items"),
        action("item.read", "GET", "/items/{id}", parameters={"id": "[0-9]{1,6}"}),
        action("item.write", "PATCH", "/items/{id}"),
        action("part.read", "GET", "/items/{id}/parts/{part}"),
        action("file.read", "GET", "/files/{path+}"),
        action("export.csv", "GET", "/export", match_query={"format": "csv"}),
        action("export.xml", "GET", "/export", match_query={"format": "xml"}),
        action("rpc.list", "POST", "/rpc", body="json", match_body={"/method": "list"}),
        action("rpc.call", "POST", "/rpc", body="json", match_body={"/method": "call", "/params/name": "echo"}),
    )
)


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "name", "arguments"),
    [
        pytest.param("GET", "/api/items", (), None, "svc.item.list", {}, id="literal path"),
        pytest.param(
            "GET", "/api/items/42", (), None, "svc.item.read", {"id": "42"}, id="parameter within its pattern"
        ),
        pytest.param("PATCH", "/api/items/a.b~c", (), None, "svc.item.write", {"id": "a.b~c"}, id="default pattern"),
        pytest.param(
            "GET", "/api/items/7/parts/p", (), None, "svc.part.read", {"id": "7", "part": "p"}, id="two parameters"
        ),
        pytest.param("GET", "/api/files/a/b/c", (), None, "svc.file.read", {"path": "a/b/c"}, id="rest of the path"),
        pytest.param("GET", "/api/export", (("format", "xml"),), None, "svc.export.xml", {}, id="query discriminator"),
        pytest.param("GET", "/api/items", (("x", "1"),), None, "svc.item.list", {}, id="undiscriminating query"),
        pytest.param("POST", "/api/rpc", (), {"method": "list"}, "svc.rpc.list", {}, id="body discriminator"),
        pytest.param(
            "POST",
            "/api/rpc",
            (),
            {"method": "call", "params": {"name": "echo"}},
            "svc.rpc.call",
            {},
            id="nested pointer",
        ),
    ],
)
def test_classify_finds_the_action_when_everything_matches(
    method: str, path: str, query: tuple[tuple[str, str], ...], body: Any, name: str, arguments: dict[str, str]
) -> None:
    found = TABLE.classify(method, _segments(path), query, body)
    assert (found.action.name, found.path_arguments) == (name, arguments)


@pytest.mark.parametrize(
    ("method", "path", "query", "body"),
    [
        pytest.param("POST", "/api/items", (), None, id="another method"),
        pytest.param("get", "/api/items", (), None, id="method in lower case"),
        pytest.param("GET", "/items", (), None, id="outside the base path"),
        pytest.param("GET", "/api", (), None, id="base path alone"),
        pytest.param("GET", "/", (), None, id="root"),
        pytest.param("GET", "/api/items/", (), None, id="trailing slash"),
        pytest.param("GET", "/api/Items", (), None, id="another case"),
        pytest.param("GET", "/api/items/4x", (), None, id="outside the pattern"),
        pytest.param("GET", "/api/items/1234567", (), None, id="one digit past the pattern"),
        pytest.param("GET", "/api/items/4\n", (), None, id="line end after a match"),
        pytest.param("PATCH", "/api/items/..", (), None, id="dot dot that the default pattern would admit"),
        pytest.param("PATCH", "/api/items/.", (), None, id="dot"),
        pytest.param("PATCH", "/api/items/a%2Fb", (), None, id="still encoded"),
        pytest.param("GET", "/api/files", (), None, id="rest without a segment"),
        pytest.param("GET", "/api/files/", (), None, id="rest that is empty"),
        pytest.param("GET", "/api/files/a//b", (), None, id="rest with an empty segment"),
        pytest.param("GET", "/api/files/a/../b", (), None, id="rest with dot dot"),
        pytest.param("GET", "/api/files/a/b c", (), None, id="rest outside the pattern"),
        pytest.param("GET", "/other/files/a", (), None, id="rest under another base"),
        pytest.param("GET", "/api/export", (), None, id="discriminator missing"),
        pytest.param("GET", "/api/export", (("format", "pdf"),), None, id="discriminator with another value"),
        pytest.param("GET", "/api/export", (("format", "csv"), ("format", "csv")), None, id="discriminator twice"),
        pytest.param("GET", "/api/export", (("format", "csv"), ("format", "xml")), None, id="discriminator both ways"),
        pytest.param("POST", "/api/rpc", (), {"method": "drop"}, id="unknown body discriminator"),
        pytest.param("POST", "/api/rpc", (), {"method": "call", "params": {}}, id="half of the discriminators"),
        pytest.param(
            "POST", "/api/rpc", (), {"method": "call", "params": ["echo"]}, id="array where an object belongs"
        ),
        pytest.param("POST", "/api/rpc", (), [{"method": "list"}], id="a batch"),
        pytest.param("POST", "/api/rpc", (), None, id="no body"),
        pytest.param("POST", "/api/rpc", (), {"method": 1}, id="discriminator of another type"),
    ],
)
def test_classify_refuses_when_nothing_matches_exactly(
    method: str, path: str, query: tuple[tuple[str, str], ...], body: Any
) -> None:
    assert refused(lambda: TABLE.classify(method, _segments(path), query, body)).code == "unclassified"


def test_candidates_ask_for_the_body_only_when_it_decides() -> None:
    assert TABLE.candidates("POST", _segments("/api/rpc"), ()).needs_body
    listed = TABLE.candidates("GET", _segments("/api/items"), ())
    assert not listed.needs_body
    assert listed.first.name == "svc.item.list"


def test_table_finds_actions_by_full_name_only() -> None:
    assert TABLE.action("svc.item.read").match.path == "/items/{id}"
    assert TABLE.manifest.connector == "svc"
    assert refused(lambda: TABLE.action("item.read")).code == "unclassified"


def test_root_is_matched_with_and_without_its_slash() -> None:
    table = ActionTable(manifest(action("root.read", "GET", "/"), base_path="/"))
    assert table.classify("GET", (), ()).action.name == "svc.root.read"
    assert table.classify("GET", ("",), ()).action.name == "svc.root.read"


def test_parameters_without_any_literal_are_matched() -> None:
    table = ActionTable(manifest(action("any.read", "GET", "/{a}/{b}"), base_path="/"))
    assert table.classify("GET", ("x", "y"), ()).path_arguments == {"a": "x", "b": "y"}


def _unchecked(*actions: dict[str, Any]) -> ConnectorManifest:
    """A manifest as only a faulty build could let through: its actions are not held against each other."""
    loaded = [manifest(one).actions[0] for one in actions]
    return manifest(actions[0]).model_copy(update={"actions": tuple(loaded)})


@pytest.mark.parametrize(
    "twins",
    [
        pytest.param((action("a.x", "GET", "/a/{id}"), action("a.y", "GET", "/a/b")), id="parameter and literal"),
        pytest.param((action("a.x", "GET", "/a/{id+}"), action("a.y", "GET", "/a/b")), id="rest and literal"),
        pytest.param((action("a.x", "GET", "/a/b"), action("a.y", "GET", "/a/b")), id="the same twice"),
        pytest.param(
            (action("a.x", "GET", "/a/b"), action("a.y", "GET", "/a/b", body="json", match_body={"/m": "1"})),
            id="one told apart by body, one not",
        ),
    ],
)
def test_classify_refuses_rather_than_chooses_when_two_match(twins: tuple[dict[str, Any], ...]) -> None:
    table = ActionTable(_unchecked(*twins))
    assert refused(lambda: table.classify("GET", ("api", "a", "b"), (), {"m": "1"})).code == "unclassified"


def test_body_that_names_two_actions_is_refused() -> None:
    table = ActionTable(
        _unchecked(
            action("a.x", "POST", "/a", body="json", match_body={"/m": "1"}),
            action("a.y", "POST", "/a", body="json", match_body={"/n": "2"}),
        )
    )
    assert refused(lambda: table.classify("POST", ("api", "a"), (), {"m": "1", "n": "2"})).code == "unclassified"


def test_table_refuses_a_manifest_whose_reading_would_decide_the_action() -> None:
    twins = _unchecked(
        action("a.x", "POST", "/a", body="json", match_body={"/m": "1"}),
        action("a.y", "POST", "/a", body="form", match_body={"/m": "2"}),
    )
    with pytest.raises(BundleRefused, match="read their body differently"):
        ActionTable(twins)


def test_table_refuses_a_body_discriminator_without_a_body() -> None:
    one = manifest(action("a.x", "POST", "/a")).actions[0]
    faulty = one.model_copy(update={"match": Match(method="POST", path="/a", body={"/m": "1"})})
    with pytest.raises(BundleRefused, match="does not declare"):
        ActionTable(manifest(action("a.x", "POST", "/a")).model_copy(update={"actions": (faulty,)}))


@pytest.mark.parametrize(
    ("path", "patterns"),
    [
        pytest.param("/a/{id}x", {}, id="text beside a parameter"),
        pytest.param("/a/{id}/{id}", {}, id="the same name twice"),
        pytest.param("/a/{id+}/b", {}, id="rest before the end"),
        pytest.param("/a/{}", {}, id="no name"),
        pytest.param("/a/{id}", {"id": "["}, id="a pattern that is none"),
    ],
)
def test_template_is_refused_when_it_cannot_be_exact(path: str, patterns: dict[str, str]) -> None:
    with pytest.raises(BundleRefused) as caught:
        compile_template("/", path, patterns)
    assert caught.value.code == "manifest_invalid"


@pytest.mark.parametrize(
    ("path", "segments"),
    [("", ()), ("/", ()), ("/a", ("a",)), ("/a/", ("a", "")), ("/a/b", ("a", "b"))],
)
def test_path_is_split_at_each_slash(path: str, segments: tuple[str, ...]) -> None:
    assert split_path(path) == segments


def test_pointer_is_read_as_rfc_6901_writes_it() -> None:
    assert parse_pointer("") == ()
    assert parse_pointer("/a~1b/~0c") == ("a/b", "~c")
    assert value_at({"a/b": {"~c": 1}}, ("a/b", "~c")) == 1
    with pytest.raises(BundleRefused):
        parse_pointer("a")


@pytest.mark.parametrize(
    "connector", ["servicenow", "slack", "slack-upload", "github", "openai", "anthropic", "webhook"]
)
def test_every_shipped_action_is_found_by_its_own_template(connector: str) -> None:
    loaded = shipped(connector)
    table = ActionTable(loaded)
    for one in loaded.actions:
        assert table.classify(one.match.method, _example(loaded, one), ()).action is one


def _example(loaded: ConnectorManifest, one: Action) -> tuple[str, ...]:
    template = compile_template(loaded.base_path, one.match.path, one.arguments.parameters)
    return tuple("7" if literal is None else literal for literal in template.literals)


TICKETED = ActionTable(shipped("slack-upload"))


def test_actions_taking_tickets_are_those_whose_template_fits_the_path() -> None:
    both = {"slack-upload.file.send", "slack-upload.file.put"}
    assert TICKETED.taking_tickets(_segments("/upload/v1/F1")) == both


@pytest.mark.parametrize("path", ["/upload/v2/F1", "/upload/v1", "/", "/items/1"])
def test_no_action_takes_tickets_when_the_path_fits_none(path: str) -> None:
    assert TICKETED.taking_tickets(_segments(path)) == frozenset()


def test_no_action_takes_tickets_when_the_manifest_has_none_that_does() -> None:
    assert TABLE.taking_tickets(_segments("/api/items")) == frozenset()


SEPARATED = ActionTable(
    manifest(
        action("project.read", "GET", "/projects/{id}", parameters={"id": "[a-z.]+(?:[/;][a-z.]+)*"}),
        action("anything.read", "GET", "/any/{id}", parameters={"id": ".+"}),
        action("item.read", "GET", "/items/{id}"),
        action("file.read", "GET", "/files/{path+}", parameters={"path": ".+"}),
    )
)


@pytest.mark.parametrize("value", ["group/project", "a/b/c", "a;b", "..a/b"])
def test_classify_takes_a_separator_when_the_parameters_pattern_admits_it(value: str) -> None:
    found = SEPARATED.classify("GET", ("api", "projects", value), ())
    assert found.path_arguments == {"id": value}


@pytest.mark.parametrize(
    "segments",
    [
        pytest.param(("items", "a/b"), id="the default pattern"),
        pytest.param(("projects", "a\\b"), id="another separator than the pattern's"),
        pytest.param(("any", "../b"), id="a wide pattern, leading up"),
        pytest.param(("any", "a/../b"), id="a wide pattern, leading up in between"),
        pytest.param(("any", "a\\..\\b"), id="a wide pattern, leading up with backslashes"),
        pytest.param(("any", "a/./b"), id="a wide pattern, a dot in between"),
        pytest.param(("any", "a//b"), id="a wide pattern, nothing in between"),
        pytest.param(("any", "/a"), id="a wide pattern, nothing before"),
        pytest.param(("any", "a/"), id="a wide pattern, nothing after"),
        pytest.param(("any", "a;..;b"), id="a wide pattern, dots between semicolons"),
        pytest.param(("files", "a", "b/c"), id="among the segments of a rest"),
        pytest.param(("projects/x",), id="where a literal stands"),
    ],
)
def test_classify_refuses_a_separator_that_nothing_admits(segments: tuple[str, ...]) -> None:
    assert refused(lambda: SEPARATED.classify("GET", ("api", *segments), ())).code == "malformed_request"


def test_table_answers_alike_when_a_path_comes_again() -> None:
    table = ActionTable(
        manifest(action("a.read", "GET", "/a/{id}"), action("a.write", "POST", "/a/{id}"), base_path="/")
    )
    for method, name in (("GET", "svc.a.read"), ("POST", "svc.a.write"), ("GET", "svc.a.read")):
        found = table.candidates(method, ("a", "7"), ())
        assert (found.first.name, found.resolve(None).path_arguments) == (name, {"id": "7"})
        assert table.candidates(method, ("a", "7"), ()) is found


def test_table_takes_segments_in_any_sequence() -> None:
    table = ActionTable(manifest(action("a.read", "GET", "/a/{id}"), base_path="/"))
    assert table.candidates("GET", ["a", "7"], ()) == table.candidates("GET", ("a", "7"), ())


def test_table_remembers_no_path_that_is_long_and_not_more_than_it_may() -> None:
    table = ActionTable(manifest(action("a.read", "GET", "/a/{id}"), base_path="/"))
    long = ("a", "7" * REMEMBERED_MAX_CHARACTERS)
    assert table.candidates("GET", long, ()) is not table.candidates("GET", long, ())
    first = table.candidates("GET", ("a", "first"), ())
    for number in range(REMEMBERED_MAX):
        table.candidates("GET", ("a", str(number)), ())
    again = table.candidates("GET", ("a", "first"), ())
    assert again == first
    assert again is not first


def test_table_refuses_again_when_a_path_that_matches_nothing_comes_again() -> None:
    table = ActionTable(manifest(action("a.read", "GET", "/a/{id}"), base_path="/"))
    for _ in range(2):
        assert refused(lambda: table.candidates("GET", ("b", "7"), ())).code == "unclassified"
