"""A governed call in our own words, rendered as the request its action stands for.

Guarantees: rendering is the reverse of classification and gathering: the rendered request classifies as the same action
and gathers the same arguments, or it is refused. Leaves to `arguments` the schema, to the flow the credential.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from bundles.canonical import JsonValue, StrictJsonError, canonical_json
from bundles.manifest import Action, ConnectorManifest
from gateway.connectors.arguments import SOURCE_KEYWORD, takes_whole_body
from gateway.connectors.bodies import MEDIA_TYPES, parse_form, takes_stream
from gateway.connectors.classify import compile_template, parse_pointer
from gateway.edge.headers import HeaderPairs
from gateway.edge.problem import refusal
from gateway.edge.url import canonical_path
from gateway.errors import Refusal

_PATH_SAFE = "-._~!$&'()*+,=:@"
_QUERY_SAFE = "-._~"


@dataclass(frozen=True, slots=True)
class OutboundCall:
    """One request below the instance's base URL: encoded `path` and `query` (without ``?``), `body` None when empty."""

    method: str
    path: str
    query: str
    headers: HeaderPairs
    body: bytes | None


def render(manifest: ConnectorManifest, action: Action, arguments: Mapping[str, JsonValue]) -> OutboundCall:
    """Render `action` with `arguments` that already fit its schema.

    Path parameters go into the path; an argument whose schema says ``x-tidegate-in: query``, and every other one of an
    action without a body, into the query; the rest into the body. Raises `Refusal` ``arguments_invalid`` for a path
    parameter that is missing or not admitted, a query value that has no text, or arguments no JSON can hold, and
    ``unclassified`` for an action that takes a file or a stream, which has no rendering.
    """
    uploads = takes_stream(action) and "ticket" in (action.caller_token or manifest.caller_token)
    if uploads or action.arguments.body == "multipart":
        raise refusal("unclassified", "this action takes a file and has no form in plain arguments")
    remaining = dict(arguments)
    path = _render_path(manifest, action, remaining)
    declared: Mapping[str, Any] = action.arguments.schema_.get("properties", {})
    query = {name: _constant(remaining, name, value) for name, value in action.match.query.items()}
    for name in list(remaining):
        source = declared.get(name, {}).get(SOURCE_KEYWORD) if isinstance(declared.get(name), dict) else None
        if source == "query" or (action.arguments.body == "none" and source != "body"):
            query[name] = _query_text(name, remaining.pop(name))
    body = _render_body(action, remaining)
    headers: HeaderPairs = (("accept", "application/json"),)
    if body is not None:
        headers = (*headers, ("content-type", MEDIA_TYPES[action.arguments.body]))
    rendered_query = "&".join(f"{quote(name, _QUERY_SAFE)}={quote(text, _QUERY_SAFE)}" for name, text in query.items())
    _check_readable(path, rendered_query, body if action.arguments.body == "form" else None)
    return OutboundCall(action.match.method, path, rendered_query, headers, body)


def _check_readable(path: str, query: str, form: bytes | None) -> None:
    """Hold what is rendered against what a client may send.

    Security: security rule 2; a null byte, an encoded percent sign or a dot segment has no single reading, whoever wrote it.
    """
    target = f"{path}?{query}" if query else path
    try:
        # The template judged the separators, and how long a URL may be is a limit of reading, not of meaning.
        canonical_path(target, uri_max_bytes=len(target), separators_from=0)
        if form is not None:
            parse_form(form)
    except Refusal as refused:
        raise refusal("arguments_invalid", f"rendered, the arguments are no request: {refused.detail}") from refused


def _render_path(manifest: ConnectorManifest, action: Action, remaining: dict[str, JsonValue]) -> str:
    template = compile_template(manifest.base_path, action.match.path, action.arguments.parameters)
    segments = [literal if literal is not None else "" for literal in template.literals]
    for parameter in template.parameters:
        value = remaining.pop(parameter.name, None)
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise _invalid(parameter.name, "the path needs this argument as text")
        segments[parameter.position] = str(value)
    if template.rest:
        segments[-1:] = segments[-1].split("/")
    found = template.extract(segments)
    if found is None:
        names = ", ".join(parameter.name for parameter in template.parameters)
        raise refusal("arguments_invalid", f"the path does not admit these values of {names}")
    return "/" + "/".join(quote(segment, _PATH_SAFE) for segment in segments)


def _constant(remaining: dict[str, JsonValue], name: str, expected: str) -> str:
    if remaining.pop(name, expected) != expected:
        raise _invalid(name, "the action fixes another value")
    return expected


def _query_text(name: str, value: JsonValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    raise _invalid(name, "only text, whole numbers and booleans have a form in a query")


def _render_body(action: Action, remaining: dict[str, JsonValue]) -> bytes | None:
    kind = action.arguments.body
    for pointer, expected in action.match.body.items():
        _fix_discriminator(remaining, pointer, expected)
    if not remaining:
        return None
    if kind == "form":
        pairs = ((name, _query_text(name, value)) for name, value in remaining.items())
        return "&".join(f"{quote(name, _QUERY_SAFE)}={quote(text, _QUERY_SAFE)}" for name, text in pairs).encode()
    whole = takes_whole_body(action) and remaining.keys() == {"body"} and not isinstance(remaining["body"], dict)
    document: JsonValue = remaining["body"] if whole else remaining
    try:
        return canonical_json(document)
    except StrictJsonError as error:
        raise refusal("arguments_invalid", f"the arguments are not strict JSON: {error.code}") from error


def _fix_discriminator(remaining: dict[str, JsonValue], pointer: str, expected: str) -> None:
    """Put the value that names the action where its manifest looks for it."""
    tokens = parse_pointer(pointer)
    target = remaining
    for token in tokens[:-1]:
        child = target.setdefault(token, {})
        if not isinstance(child, dict):
            raise _invalid(token, "the action needs an object here")
        target[token] = child = dict(child)
        target = child
    if target.setdefault(tokens[-1], expected) != expected:
        raise _invalid(tokens[-1], "the action fixes another value")


def _invalid(name: str, message: str) -> Refusal:
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    return refusal("arguments_invalid", message, errors=[{"pointer": pointer, "message": message}])
