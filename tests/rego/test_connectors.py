"""The starter manifests admit what unmodified SDKs send, and nothing beside it.

The requests were taken from the wire of the named client (its version stands beside it), the tokens and hosts apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from bundles.canonical import JsonValue
from bundles.claims import parse_structured
from bundles.manifest import ConnectorManifest, load_manifests
from bundles.source import read_source
from gateway.connectors.arguments import SchemaSet, gather
from gateway.connectors.classify import ActionTable
from gateway.connectors.render import render
from gateway.edge.tokens import find_token
from gateway.edge.url import canonical_path
from gateway.errors import Refusal
from tests.rego.rebuild import STARTER

JSON = "application/json"
JSON_UTF8 = "application/json;charset=utf-8"
JSON_SPACED = "application/json; charset=utf-8"
FORM = "application/x-www-form-urlencoded"
SYS_ID = "9d385017c611228701d22104cc95c371"
PYSNOW_QUERY = (
    "sysparm_query=number%3DINC001&sysparm_limit=10000&sysparm_offset=0&sysparm_display_value=False"
    "&sysparm_suppress_pagination_header=False&sysparm_exclude_reference_link=False&sysparm_view=&sysparm_fields="
)


def _manifests() -> dict[str, ConnectorManifest]:
    documents: dict[str, JsonValue] = {}
    for name, raw in read_source(STARTER).data_files.items():
        if name.startswith("connectors/"):
            documents[name.split("/")[1]] = parse_structured(name, raw)
    return load_manifests({"connectors": documents})


MANIFESTS = _manifests()
TABLES = {name: ActionTable(manifest) for name, manifest in MANIFESTS.items()}
SCHEMAS = {name: SchemaSet(manifest) for name, manifest in MANIFESTS.items()}


@dataclass(frozen=True, slots=True)
class Sent:
    """One request as a client sent it below the gate's `/c/{instance}`."""

    client: str
    action: str
    method: str
    target: str
    content_type: str | None = None
    body: bytes = b""

    @property
    def connector(self) -> str:
        """The connector the action belongs to."""
        return self.action.split(".")[0]


def admit(connector: str, sent: Sent) -> dict[str, JsonValue]:
    """Classify, gather and validate as the gate does; the arguments."""
    target = canonical_path(sent.target)
    found = TABLES[connector].classify(sent.method, target.segments, target.query)
    assert found.action.name == sent.action
    arguments = gather(found.action, found.path_arguments, target.query, sent.content_type, sent.body)
    SCHEMAS[connector].validate(found.action.name, arguments)
    return arguments


SENT = [
    Sent("openai 3.54.0", "openai.chat.create", "POST", "/v1/chat/completions", JSON,
         b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":10}'),
    Sent("openai 3.54.0, stream", "openai.chat.create", "POST", "/v1/chat/completions", JSON,
         b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}],"stream_options":{"include_usage":true}}'),
    Sent("openai 3.54.0, models", "openai.model.list", "GET", "/v1/models"),
    Sent("openai 3.54.0, tools", "openai.chat.create", "POST", "/v1/chat/completions", JSON,
         b'{"model":"m","messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function",'
         b'"function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c1","content":"1"}],'
         b'"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}]}'),
    Sent("openai 6.49.0 for Node", "openai.chat.create", "POST", "/v1/chat/completions", JSON,
         b'{"model":"m","messages":[{"role":"user","content":"x"}]}'),
    Sent("anthropic 2.12.0", "anthropic.message.create", "POST", "/v1/messages", JSON,
         b'{"max_tokens":10,"messages":[{"role":"user","content":"hi"}],"model":"m"}'),
    Sent("anthropic 2.12.0, stream", "anthropic.message.create", "POST", "/v1/messages", JSON,
         b'{"max_tokens":10,"messages":[{"role":"user","content":"hi"}],"model":"m","stream":true}'),
    Sent("anthropic 2.12.0, count", "anthropic.message.count_tokens", "POST", "/v1/messages/count_tokens", JSON,
         b'{"messages":[{"role":"user","content":"hi"}],"model":"m"}'),
    Sent("slack_sdk 3.47.0", "slack.message.post", "POST", "/api/chat.postMessage", JSON_UTF8,
         b'{"channel": "C1", "text": "hi", "blocks": [{"type": "section"}], "thread_ts": "1.1"}'),
    Sent("slack_sdk 3.47.0, update", "slack.message.update", "POST", "/api/chat.update", JSON_UTF8,
         b'{"channel": "C", "ts": "1.2", "text": "x"}'),
    Sent("slack_sdk 3.47.0, upload 1", "slack.file.upload_url", "POST", "/api/files.getUploadURLExternal", FORM,
         b"filename=a.txt&length=5"),
    Sent("slack_sdk 3.47.0, upload 3", "slack.file.complete", "POST", "/api/files.completeUploadExternal", FORM,
         b"files=%5B%7B%22id%22%3A+%22F1%22%2C+%22title%22%3A+%22T%22%7D%5D&channel_id=C1&initial_comment=c"),
    Sent("slack_sdk 3.47.0, test", "slack.auth.test", "POST", "/api/auth.test", JSON_UTF8),
    Sent("@slack/web-api 8.2.0, test", "slack.auth.test", "POST", "/api/auth.test", FORM),
    Sent("@slack/web-api 8.2.0, list", "slack.conversation.list", "POST", "/api/conversations.list", FORM, b"limit=10"),
    Sent("slack_sdk 3.47.0, upload 2", "slack-upload.file.send", "POST", "/upload/v1/ABC", FORM),
    Sent("slack_sdk 3.47.0, upload 2 by PUT", "slack-upload.file.put", "PUT", "/upload/v1/ABC/D-1_x", None),
    Sent("PyGithub 2.10.0", "github.repository.read", "GET", "/repos/o/r"),
    Sent("PyGithub 2.10.0, page 1", "github.issue.list", "GET", "/repos/o/r/issues?per_page=1&state=open"),
    Sent("PyGithub 2.10.0, page 2", "github.issue.list_by_repository_id", "GET",
         "/repositories/1/issues?page=2&per_page=1"),
    Sent("PyGithub 2.10.0, create", "github.issue.create", "POST", "/repos/o/r/issues", JSON,
         b'{"title": "t", "body": "b", "labels": ["x"]}'),
    Sent("PyGithub 2.10.0, comment", "github.comment.create", "POST", "/repos/o/r/issues/1/comments", JSON,
         b'{"body": "hey"}'),
    Sent("@octokit/rest 22.0.1, create", "github.issue.create", "POST", "/repos/o/r/issues", JSON_SPACED,
         b'{"title":"t","body":"b","labels":["x"]}'),
    Sent("@octokit/rest 22.0.1, close", "github.issue.update", "PATCH", "/repos/o/r/issues/1", JSON_SPACED,
         b'{"state":"closed"}'),
    Sent("pysnow 0.7.17, query", "servicenow.incident.list", "GET",
         f"/api/now/table/incident?{PYSNOW_QUERY}number%2Csys_id", JSON),
    Sent("pysnow 0.7.17, update", "servicenow.incident.replace", "PUT",
         f"/api/now/table/incident/{SYS_ID}?{PYSNOW_QUERY}", JSON, b'{"state": "2"}'),
    Sent("pysnow 0.7.17, create", "servicenow.incident.create", "POST",
         f"/api/now/table/incident?{PYSNOW_QUERY}", JSON, b'{"short_description": "x"}'),
    Sent("pysnow 0.7.17, delete", "servicenow.incident.delete", "DELETE",
         f"/api/now/table/incident/{SYS_ID}?{PYSNOW_QUERY}", JSON),
    Sent("curl, update", "servicenow.incident.update", "PATCH", f"/api/now/table/incident/{SYS_ID}", JSON,
         b'{"state": 2, "work_notes": "seen"}'),
    Sent("requests, webhook", "webhook.event.post", "POST", "/hooks/deploy", JSON, b'{"event":{"id":[1,2]}}'),
]  # fmt: skip


@pytest.mark.parametrize("sent", SENT, ids=lambda sent: f"{sent.client} sends {sent.action}")
def test_manifest_admits_a_request_when_an_sdk_sends_it(sent: Sent) -> None:
    admit(sent.connector, sent)


REFUSED = [
    ("unclassified", Sent("a path of another service", "servicenow", "GET", "/api/now/table/sys_user")),
    ("unclassified", Sent("a table inside a path", "servicenow", "GET", "/api/now/table/incident/a/b")),
    ("unclassified", Sent("a path outside the base", "servicenow", "GET", "/api/nowhere/table/incident")),
    ("unclassified", Sent("an id with odd characters", "servicenow", "GET", "/api/now/table/incident/a~b")),
    ("unclassified", Sent("another method", "github", "PUT", "/repos/o/r")),
    ("unclassified", Sent("issue number zero", "github", "GET", "/repos/o/r/issues/0")),
    ("unclassified", Sent("a Slack method nobody declared", "slack", "POST", "/api/admin.users.list", FORM)),
    ("unclassified", Sent("the empty upload path", "slack-upload", "POST", "/upload/v1")),
    ("arguments_invalid", Sent("an undeclared query", "servicenow", "GET", "/api/now/table/incident?sysparm_script=1")),
    ("arguments_invalid", Sent("an undeclared field", "servicenow", "PATCH", f"/api/now/table/incident/{SYS_ID}", JSON,
                               b'{"sys_created_by":"root"}')),
    ("arguments_invalid", Sent("a query in the body", "servicenow", "POST", "/api/now/table/incident", JSON,
                               b'{"sysparm_view":"x"}')),
    ("arguments_invalid", Sent("a field in the query", "servicenow", "PATCH",
                               f"/api/now/table/incident/{SYS_ID}?state=2", JSON, b"{}")),
    ("arguments_invalid", Sent("too large a page", "servicenow", "GET", "/api/now/table/incident?sysparm_limit=10001")),
    ("arguments_invalid", Sent("one name with two values", "github", "GET", "/repos/o/r/issues?page=1&page=2")),
    ("arguments_invalid", Sent("a page that is no number", "github", "GET", "/repos/o/r/issues?page=two")),
    ("arguments_invalid", Sent("an issue without title", "github", "POST", "/repos/o/r/issues", JSON, b'{"body":"b"}')),
    ("arguments_invalid", Sent("an owner in the body", "github", "POST", "/repos/o/r/issues", JSON,
                               b'{"title":"t","owner":"x"}')),
    ("arguments_invalid", Sent("several choices", "openai", "POST", "/v1/chat/completions", JSON,
                               b'{"model":"m","messages":[{"role":"user","content":"x"}],"n":2}')),
    ("arguments_invalid", Sent("a tool of the provider", "openai", "POST", "/v1/chat/completions", JSON,
                               b'{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"web"}]}')),
    ("arguments_invalid", Sent("a part that names a URL", "openai", "POST", "/v1/chat/completions", JSON,
                               b'{"model":"m","messages":[{"role":"user","content":[{"type":"image_url",'
                               b'"image_url":{"url":"http://x"}}]}]}')),
    ("arguments_invalid", Sent("background work", "openai", "POST", "/v1/chat/completions", JSON,
                               b'{"model":"m","messages":[{"role":"user","content":"x"}],"background":true}')),
    ("arguments_invalid", Sent("a stored completion", "openai", "POST", "/v1/chat/completions", JSON,
                               b'{"model":"m","messages":[{"role":"user","content":"x"}],"store":true}')),
    ("arguments_invalid", Sent("no limit of tokens", "anthropic", "POST", "/v1/messages", JSON,
                               b'{"model":"m","messages":[{"role":"user","content":"x"}]}')),
    ("arguments_invalid", Sent("an MCP server", "anthropic", "POST", "/v1/messages", JSON,
                               b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}],'
                               b'"mcp_servers":[{"url":"http://x"}]}')),
    ("arguments_invalid", Sent("a server tool", "anthropic", "POST", "/v1/messages", JSON,
                               b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}],'
                               b'"tools":[{"type":"web_search_20250305","name":"web_search"}]}')),
    ("arguments_invalid", Sent("an image by URL", "anthropic", "POST", "/v1/messages", JSON,
                               b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[{"type":"image",'
                               b'"source":{"type":"url","url":"http://x"}}]}]}')),
    ("arguments_invalid", Sent("a message as somebody else", "slack", "POST", "/api/chat.postMessage", JSON,
                               b'{"channel":"C1","text":"x","username":"the boss"}')),
    ("arguments_invalid", Sent("a body that is no object", "slack", "POST", "/api/chat.postMessage", JSON, b"[1]")),
    ("arguments_invalid", Sent("an upload of no bytes", "slack", "POST", "/api/files.getUploadURLExternal", FORM,
                               b"filename=a&length=0")),
    ("malformed_request", Sent("XML", "servicenow", "POST", "/api/now/table/incident", "application/xml", b"<x/>")),
    ("malformed_request", Sent("a key twice", "servicenow", "POST", "/api/now/table/incident", JSON,
                               b'{"state":"1","\\u0073tate":"2"}')),
    ("malformed_request", Sent("a body where none belongs", "servicenow", "DELETE",
                               f"/api/now/table/incident/{SYS_ID}", JSON, b"{}")),
]  # fmt: skip


@pytest.mark.parametrize(("code", "sent"), REFUSED, ids=[f"{code} for {sent.client}" for code, sent in REFUSED])
def test_manifest_refuses_a_request_when_it_carries_what_nobody_declared(code: str, sent: Sent) -> None:
    target = canonical_path(sent.target)
    with pytest.raises(Refusal) as refused:
        found = TABLES[sent.action].classify(sent.method, target.segments, target.query)
        arguments = gather(found.action, found.path_arguments, target.query, sent.content_type, sent.body)
        SCHEMAS[sent.action].validate(found.action.name, arguments)
    assert refused.value.code == code


TOKENS = [
    ("servicenow", (("authorization", "Basic dTp0b2s="),), ()),
    ("servicenow", (("authorization", "Bearer tok"),), ()),
    ("slack", (("authorization", "Bearer tok"),), ()),
    ("slack-upload", (), (("tidegate_ticket", "tok"),)),
    ("github", (("authorization", "token tok"),), ()),
    ("github", (("authorization", "Bearer tok"),), ()),
    ("openai", (("authorization", "Bearer tok"),), ()),
    ("anthropic", (("authorization", "Bearer tok"),), ()),
    ("anthropic", (("x-api-key", "tok"),), ()),
    ("webhook", (("authorization", "Bearer tok"),), ()),
]


@pytest.mark.parametrize(("connector", "headers", "query"), TOKENS)
def test_token_is_found_when_it_stands_where_the_sdk_puts_it(
    connector: str, headers: tuple[tuple[str, str], ...], query: tuple[tuple[str, str], ...]
) -> None:
    manifest = MANIFESTS[connector]
    assert find_token(headers, query, (), manifest.caller_token, manifest.credential_places).token == "tok"


SECOND_CREDENTIALS = [
    ("servicenow", (("x-usertoken", "x"),), ()),
    ("slack", (), (("token", "x"),)),
    ("github", (), (("access_token", "x"),)),
    ("openai", (("api-key", "x"),), ()),
    ("anthropic", (("x-api-key", "x"),), ()),
    ("webhook", (("x-api-key", "x"),), ()),
]


@pytest.mark.parametrize(("connector", "headers", "query"), SECOND_CREDENTIALS)
def test_request_is_refused_when_it_carries_a_second_credential(
    connector: str, headers: tuple[tuple[str, str], ...], query: tuple[tuple[str, str], ...]
) -> None:
    manifest = MANIFESTS[connector]
    bearer = ("authorization", "Bearer tok")
    with pytest.raises(Refusal) as refused:
        find_token((bearer, *headers), query, (), manifest.caller_token, manifest.credential_places)
    assert refused.value.code == "malformed_request"


RENDERED: list[tuple[str, dict[str, JsonValue], str, str]] = [
    ("servicenow.incident.list", {"sysparm_limit": 2}, "/api/now/table/incident", "sysparm_limit=2"),
    ("servicenow.incident.update", {"sys_id": SYS_ID, "state": "2"}, f"/api/now/table/incident/{SYS_ID}", ""),
    ("github.issue.list", {"owner": "o", "repo": "r", "page": 2}, "/repos/o/r/issues", "page=2"),
    ("github.issue.create", {"owner": "o", "repo": "r", "title": "t"}, "/repos/o/r/issues", ""),
    ("slack.message.post", {"channel": "C1", "text": "x"}, "/api/chat.postMessage", ""),
    ("webhook.event.post", {"webhook_path": "a/b", "x": 1}, "/a/b", ""),
]


@pytest.mark.parametrize(("action", "arguments", "path", "query"), RENDERED, ids=[row[0] for row in RENDERED])
def test_action_is_rendered_as_its_request_when_called_in_our_own_words(
    action: str, arguments: dict[str, JsonValue], path: str, query: str
) -> None:
    manifest = MANIFESTS[action.split(".")[0]]
    found = manifest.action(action)
    assert found is not None
    SCHEMAS[manifest.connector].validate(action, arguments)
    rendered = render(manifest, found, arguments)
    assert (rendered.path, rendered.query) == (path, query)


@pytest.mark.parametrize("name", sorted(MANIFESTS))
def test_manifest_forwards_no_credential_header_when_it_lists_request_headers(name: str) -> None:
    forbidden = {"authorization", "cookie", "x-api-key", "api-key", "proxy-authorization", "accept-encoding"}
    assert forbidden.isdisjoint(MANIFESTS[name].request_headers)


HOLD_BUDGETS = {"servicenow": 60, "slack": 30, "github": 15, "openai": 600, "anthropic": 600}


@pytest.mark.parametrize("name", sorted(HOLD_BUDGETS))
def test_hold_ends_before_the_client_gives_up_when_a_person_must_decide(name: str) -> None:
    assert 0 < MANIFESTS[name].hold_budget_seconds < HOLD_BUDGETS[name]


@pytest.mark.parametrize("name", sorted(MANIFESTS))
def test_only_idempotent_actions_are_reads_or_updates_when_a_manifest_says_so(name: str) -> None:
    for action in MANIFESTS[name].actions:
        if action.mode == "read":
            assert action.idempotent and action.reversible
        if action.match.method in ("POST", "PATCH") and action.mode == "write":
            assert not action.idempotent or action.name == "slack.message.update"
