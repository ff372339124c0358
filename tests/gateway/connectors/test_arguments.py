"""Arguments: body ∪ path ∪ query, held against closed schemas."""

from __future__ import annotations

from typing import Any

import pytest

from bundles.errors import BundleRefused
from bundles.manifest import Action, ConnectorManifest
from gateway.connectors.arguments import ERRORS_MAX, SchemaSet, closed_schema, gather
from gateway.connectors.classify import ActionTable
from tests.gateway.connectors.parts import action, manifest, refused, shipped

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

SCHEMA: dict[str, Any] = {
    "properties": {
        "id": {"type": "string", "x-tidegate-in": "path"},
        "limit": {"type": "integer", "x-tidegate-in": "query"},
        "view": {"type": "string"},
        "dry": {"type": "boolean"},
        "rate": {"type": "number"},
        "either": {"type": ["integer", "string"]},
        "title": {"type": "string", "maxLength": 5, "x-tidegate-in": "body"},
        "nested": {"type": "object", "properties": {"a": {"type": "integer"}}},
        "rows": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "integer"}}}},
        "free": {"type": "object"},
    }
}


def _one(**more: Any) -> Action:
    return manifest(action("a.x", "PATCH", "/a/{id}", **({"schema": SCHEMA, "body": "json"} | more))).actions[0]


WRITE = _one()


@pytest.mark.parametrize(
    ("body", "query", "expected"),
    [
        pytest.param(b'{"title":"t"}', (), {"title": "t", "id": "7"}, id="body and path"),
        pytest.param(None, (("limit", "20"),), {"limit": 20, "id": "7"}, id="integer in the query"),
        pytest.param(None, (("limit", "-3"),), {"limit": -3, "id": "7"}, id="negative integer"),
        pytest.param(None, (("limit", "007"),), {"limit": "007", "id": "7"}, id="other spelling stays text"),
        pytest.param(None, (("limit", "--1"),), {"limit": "--1", "id": "7"}, id="no integer stays text"),
        pytest.param(None, (("limit", "²"),), {"limit": "²", "id": "7"}, id="superscript stays text"),
        pytest.param(None, (("limit", "٣"),), {"limit": "٣", "id": "7"}, id="foreign digit stays text"),
        pytest.param(None, (("limit", "9" * 17),), {"limit": "9" * 17, "id": "7"}, id="too long stays text"),
        pytest.param(None, (("dry", "true"),), {"dry": True, "id": "7"}, id="boolean"),
        pytest.param(None, (("dry", "0"),), {"dry": False, "id": "7"}, id="boolean as a digit"),
        pytest.param(None, (("dry", "True"),), {"dry": "True", "id": "7"}, id="other boolean spelling stays text"),
        pytest.param(None, (("rate", "1.5"),), {"rate": "1.5", "id": "7"}, id="decimal stays text"),
        pytest.param(None, (("either", "5"),), {"either": "5", "id": "7"}, id="two types stay text"),
        pytest.param(
            None, (("other", "x"),), {"other": "x", "id": "7"}, id="undeclared is gathered, the schema refuses"
        ),
        pytest.param(b'{"view":"v"}', (("view", "v"),), {"view": "v", "id": "7"}, id="the same value twice"),
    ],
)
def test_gather_unites_what_the_request_holds(
    body: bytes | None, query: tuple[tuple[str, str], ...], expected: dict[str, Any]
) -> None:
    found = gather(WRITE, {"id": "7"}, query, JSON, body)
    assert found == expected
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in expected.items()
    }


@pytest.mark.parametrize(
    ("body", "query", "pointer"),
    [
        pytest.param(b'{"view":"a"}', (("view", "b"),), "/view", id="body and query differ"),
        pytest.param(None, (("view", "a"), ("view", "b")), "/view", id="query twice"),
        pytest.param(None, (("view", "a"), ("view", "a")), "/view", id="query twice alike"),
        pytest.param(b'{"dry":1}', (("dry", "1"),), "/dry", id="one and true are not the same"),
        pytest.param(b'{"id":"8"}', (), "/id", id="path argument in the body"),
        pytest.param(None, (("id", "8"),), "/id", id="path argument in the query"),
        pytest.param(b'{"limit":3}', (), "/limit", id="query argument in the body"),
        pytest.param(None, (("title", "t"),), "/title", id="body argument in the query"),
        pytest.param(b"[1]", (), "", id="body that is no object"),
        pytest.param(b'"x"', (), "", id="body that is a text"),
    ],
)
def test_gather_refuses_when_an_argument_has_no_one_place_and_value(
    body: bytes | None, query: tuple[tuple[str, str], ...], pointer: str
) -> None:
    problem = refused(lambda: gather(WRITE, {"id": "7"}, query, JSON, body))
    assert (problem.code, problem.status) == ("arguments_invalid", 422)
    errors: Any = problem.extra["errors"]
    assert [error["pointer"] for error in errors] == [pointer]


def test_gather_refuses_a_path_parameter_that_another_name_carries_differently() -> None:
    plain = _one(schema={"properties": {"id": {"type": "string"}}})
    assert refused(lambda: gather(plain, {"id": "7"}, (), JSON, b'{"id":"8"}')).code == "arguments_invalid"
    assert gather(plain, {"id": "7"}, (), JSON, b'{"id":"7"}') == {"id": "7"}


def test_gather_converts_fields_of_a_form_where_the_schema_declares_it() -> None:
    form = _one(body="form", schema={"properties": {"id": {}, "n": {"type": "integer"}, "s": {"type": "string"}}})
    assert gather(form, {"id": "7"}, (), FORM, b"n=5&s=5") == {"n": 5, "s": "5", "id": "7"}


BOTH = _one(schema={"x-tidegate-body-also": "form", "properties": {"id": {}, "dry": {"type": "boolean"}}})


@pytest.mark.parametrize(
    ("content_type", "body"),
    [(JSON, b'{"dry":true}'), (FORM, b"dry=true"), (FORM.title() + " ;charset=utf-8", b"dry=1")],
)
def test_body_of_either_declared_kind_gives_the_same_arguments(content_type: str, body: bytes) -> None:
    assert gather(BOTH, {"id": "7"}, (), content_type, body) == {"dry": True, "id": "7"}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        pytest.param(JSON, b"dry=true", id="form said to be json"),
        pytest.param("text/plain", b"dry=true", id="a third kind"),
        pytest.param(FORM + "; charset=utf-16", b"dry=true", id="another charset"),
        pytest.param(None, b"dry=true", id="no kind"),
    ],
)
def test_body_of_neither_declared_kind_is_malformed(content_type: str | None, body: bytes) -> None:
    assert refused(lambda: gather(BOTH, {"id": "7"}, (), content_type, body)).code == "malformed_request"


WHOLE = _one(schema={"properties": {"id": {}, "body": {"type": "array"}, "v": {"x-tidegate-in": "query"}}})


def test_body_that_is_no_object_is_the_argument_body_where_nothing_else_could_be_there() -> None:
    assert gather(WHOLE, {"id": "7"}, (), JSON, b"[1]") == {"body": [1], "id": "7"}


def test_field_called_body_is_refused_where_it_could_be_taken_for_the_body() -> None:
    assert refused(lambda: gather(WHOLE, {"id": "7"}, (), JSON, b'{"body":[1]}')).code == "arguments_invalid"


def test_issue_body_stays_a_field_where_other_fields_exist() -> None:
    create = shipped("github").action("github.issue.create")
    assert create is not None
    found = gather(create, {"owner": "o", "repo": "r"}, (), JSON, b'{"title":"t","body":"b"}')
    assert found == {"title": "t", "body": "b", "owner": "o", "repo": "r"}
    assert refused(lambda: gather(create, {"owner": "o", "repo": "r"}, (), JSON, b'"b"')).code == "arguments_invalid"


SET = SchemaSet(manifest(action("a.x", "PATCH", "/a/{id}", schema=SCHEMA, body="json")))


def test_schema_admits_arguments_that_fit() -> None:
    SET.validate("svc.a.x", {"id": "7", "title": "short", "nested": {"a": 1}, "rows": [{"b": 1}], "free": {"x": 1}})


@pytest.mark.parametrize(
    ("arguments", "pointer"),
    [
        pytest.param({"id": "7", "undeclared": 1}, "", id="undeclared argument"),
        pytest.param({"id": 7}, "/id", id="another type"),
        pytest.param({"id": "7", "title": "too long"}, "/title", id="too long"),
        pytest.param({"id": "7", "nested": {"a": 1, "z": 1}}, "/nested", id="undeclared inside an object"),
        pytest.param({"id": "7", "rows": [{"b": 1}, {"b": "x"}]}, "/rows/1/b", id="inside an array"),
        pytest.param({"id": "7", "dry": "True"}, "/dry", id="text where a boolean belongs"),
    ],
)
def test_schema_refuses_with_a_pointer_when_arguments_do_not_fit(arguments: dict[str, Any], pointer: str) -> None:
    problem = refused(lambda: SET.validate("svc.a.x", arguments))
    assert problem.code == "arguments_invalid"
    errors: Any = problem.extra["errors"]
    assert [error["pointer"] for error in errors] == [pointer]


def test_schema_never_repeats_a_value_in_its_message() -> None:
    problem = refused(lambda: SET.validate("svc.a.x", {"id": "7", "title": "hunter2-secret"}))
    assert "hunter2" not in str(problem.extra) + problem.detail


def test_schema_names_a_bounded_number_of_errors() -> None:
    rows = [{"b": "x"} for _ in range(ERRORS_MAX + 1)]
    errors: Any = refused(lambda: SET.validate("svc.a.x", {"id": "7", "rows": rows})).extra["errors"]
    assert len(errors) == ERRORS_MAX


def test_action_without_a_schema_admits_its_path_and_discriminators_only() -> None:
    loaded = manifest(
        action("a.x", "POST", "/a/{id}", body="json", match_body={"/m": "go", "/p/q": "x"}, match_query={"v": "1"})
    )
    schemas = SchemaSet(loaded)
    schemas.validate("svc.a.x", {"id": "7", "m": "go", "v": "1"})
    assert refused(lambda: schemas.validate("svc.a.x", {"id": "7", "m": "go", "v": "1", "more": 1})).code
    assert refused(lambda: schemas.validate("svc.a.x", {"id": "7", "m": "stop"})).code == "arguments_invalid"


def test_schema_is_open_only_where_the_manifest_opens_it() -> None:
    opened = SchemaSet(manifest(action("a.x", "POST", "/a", body="json", additional=True)))
    opened.validate("svc.a.x", {"anything": [1, {"b": 2}]})


def test_composed_schema_is_closed_over_all_its_parts() -> None:
    parts = {"allOf": [{"properties": {"a": {"type": "integer"}}}], "properties": {"b": {"type": "integer"}}}
    schemas = SchemaSet(manifest(action("a.x", "POST", "/a", body="json", schema=parts)))
    schemas.validate("svc.a.x", {"a": 1, "b": 2})
    assert refused(lambda: schemas.validate("svc.a.x", {"a": 1, "c": 2})).code == "arguments_invalid"


def _with_schema(schema: dict[str, Any], **more: Any) -> ConnectorManifest:
    loaded = manifest(action("a.x", "POST", "/a", body="json"))
    one = loaded.actions[0]
    arguments = one.arguments.model_copy(update={"schema_": schema})
    return loaded.model_copy(update={"actions": (one.model_copy(update={"arguments": arguments, **more}),)})


@pytest.mark.parametrize(
    ("schema", "more"),
    [
        pytest.param({"properties": {"a": {"$ref": "http://schemas.example/a"}}}, {}, id="reference over the network"),
        pytest.param({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, {}, id="reference into the disk"),
        pytest.param({"properties": {"a": {"type": "nonsense"}}}, {}, id="unknown type"),
        pytest.param({"properties": {"a": {"pattern": "(a)\\1"}}}, {}, id="pattern that backtracks"),
        pytest.param({"properties": {"a": {"pattern": "["}}}, {}, id="pattern that is none"),
        pytest.param({"$schema": "http://json-schema.org/draft-07/schema#"}, {}, id="another draft"),
        pytest.param({"x-tidegate-body-also": "json"}, {}, id="json and also json"),
        pytest.param({"x-tidegate-body-also": "multipart"}, {}, id="also multipart"),
        pytest.param({"additionalProperties": True}, {}, id="open without saying so"),
        pytest.param({"additionalProperties": True}, {"risk": "high"}, id="open at high risk"),
    ],
)
def test_schema_set_refuses_a_schema_it_cannot_hold_to(schema: dict[str, Any], more: dict[str, Any]) -> None:
    with pytest.raises(BundleRefused) as caught:
        SchemaSet(_with_schema(schema, **more))
    assert caught.value.code == "manifest_invalid"


def test_closing_leaves_an_explicit_word_of_the_schema_alone() -> None:
    schema = {"properties": {"a": {"properties": {}, "additionalProperties": {"type": "integer"}}, "b": True}}
    closed = closed_schema(_with_schema(schema), _with_schema(schema).actions[0])
    assert closed["properties"]["a"]["additionalProperties"] == {"type": "integer"}
    assert closed["properties"]["b"] is True
    assert closed["additionalProperties"] is False


PYSNOW_QUERY = (
    ("sysparm_query", "number=INC0010001"),
    ("sysparm_limit", "10000"),
    ("sysparm_offset", "0"),
    ("sysparm_display_value", "False"),
    ("sysparm_suppress_pagination_header", "False"),
    ("sysparm_exclude_reference_link", "False"),
    ("sysparm_view", ""),
    ("sysparm_fields", ""),
)
CHAT = b'{"model":"m","max_tokens":3,"stream":true,"messages":[{"role":"user","content":"x"}]}'


@pytest.mark.parametrize(
    ("connector", "method", "path", "query", "content_type", "body", "name"),
    [
        pytest.param(
            "slack", "POST", "api/chat.postMessage", (), "application/json;charset=utf-8",
            b'{"channel": "C1", "text": "x"}', "slack.message.post", id="slack_sdk chat_postMessage",
        ),
        pytest.param(
            "slack", "POST", "api/files.getUploadURLExternal", (), FORM, b"filename=n.txt&length=30",
            "slack.file.upload_url", id="slack_sdk files_upload_v2, first step",
        ),
        pytest.param(
            "slack-upload", "POST", "upload/v1/F1", (), FORM, None, "slack-upload.file.send",
            id="slack_sdk files_upload_v2, second step",
        ),
        pytest.param(
            "slack", "POST", "api/files.completeUploadExternal", (), FORM,
            b"files=%5B%7B%22id%22%3A+%22F1%22%2C+%22title%22%3A+%22N%22%7D%5D&channel_id=C1", "slack.file.complete",
            id="slack_sdk files_upload_v2, third step",
        ),
        pytest.param(
            "servicenow", "GET", "api/now/table/incident", PYSNOW_QUERY, JSON, None, "servicenow.incident.list",
            id="pysnow query",
        ),
        pytest.param(
            "servicenow", "PUT", "api/now/table/incident/01", PYSNOW_QUERY, JSON,
            b'{"short_description": "s"}', "servicenow.incident.replace", id="pysnow update",
        ),
        pytest.param(
            "github", "GET", "repositories/424242/issues", (("state", "all"), ("per_page", "2"), ("page", "2")), None,
            None, "github.issue.list_by_repository_id", id="PyGithub second page",
        ),
        pytest.param("openai", "POST", "v1/chat/completions", (), JSON, CHAT, "openai.chat.create", id="openai stream"),
        pytest.param("anthropic", "POST", "v1/messages", (), JSON, CHAT, "anthropic.message.create", id="anthropic"),
        pytest.param("webhook", "POST", "hooks/a", (), JSON, b'{"x":[{"y":1}]}', "webhook.event.post", id="webhook"),
    ],
)  # fmt: skip
def test_requests_of_the_real_clients_fit_the_shipped_manifests(
    connector: str,
    method: str,
    path: str,
    query: tuple[tuple[str, str], ...],
    content_type: str | None,
    body: bytes | None,
    name: str,
) -> None:
    """Recorded from the SDKs of the lock file against the stand-ins."""
    loaded = shipped(connector)
    found = ActionTable(loaded).classify(method, tuple(path.split("/")), query)
    assert found.action.name == name
    SchemaSet(loaded).validate(name, gather(found.action, found.path_arguments, query, content_type, body))
