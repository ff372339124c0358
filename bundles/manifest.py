"""The connector manifest: which requests of a service are which tool actions.

Guarantees: a :class:`ConnectorManifest` from :func:`load_manifest` is closed-world, its action names are full and
unique, no two actions can match one request, and every reference inside it resolves. Leaves to ``gateway.connectors``:
matching, gathering and validating arguments, and carrying out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bundles.canonical import JsonValue
from bundles.errors import BundleRefused
from bundles.path_patterns import path_pattern

PARAMETER_PATTERN: Final = r"[A-Za-z0-9._~@:-]+"

BODIED: Final = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose request has a body; an action that declares none passes it on unread."""

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\+?)\}")
_UNSUPPORTED: Final = frozenset({"read_back", "cost"})
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_LITERAL = re.compile(r"[A-Za-z0-9._~@:$!()*,&=+-]+")
_TOKEN_PLACE = (
    r"(bearer|token|basic|basic_password|ticket|x-api-key|api-key|"
    r"(header|query|form|cookie):[A-Za-z0-9_.-]+)"
)

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
ActionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)+$", max_length=128)]
Method = Annotated[str, Field(pattern=r"^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS)$")]
TokenPlace = Annotated[str, Field(pattern=f"^{_TOKEN_PLACE}$")]
HeaderName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


class _Closed(BaseModel):
    """Frozen, and a key this version does not know is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, strict=True)


class Retry(_Closed):
    """How often a call may be sent again; *which* failures qualify is fixed by page-8 rules, not by the manifest."""

    max_attempts: int = Field(default=1, ge=1, le=10)
    base_delay_ms: int = Field(default=200, ge=10, le=60_000)


class Match(_Closed):
    """Method and path template (relative to ``base_path``), with body and query discriminators where needed."""

    method: Method
    path: str = Field(pattern=r"^/", max_length=1024)
    body: dict[str, str] = {}
    query: dict[str, str] = {}


class Arguments(_Closed):
    """Where arguments stand and what they look like; ``schema`` is the schema itself, inlined by the build."""

    schema_: dict[str, Any] = Field(default={}, alias="schema")
    body: Literal["json", "form", "multipart", "none"] = "none"
    body_max_bytes: int = Field(default=1 << 20, ge=0, le=5 << 30)
    parameters: dict[str, str] = {}
    additional: bool = False


class Auth(_Closed):
    """How the instance's own credential is put on the outgoing request."""

    kind: Literal["basic", "bearer", "header", "oauth2_client_credentials", "aws_sigv4", "none"]
    header: HeaderName | None = None
    prefix: str = ""


class Rewrite(_Closed):
    """Which answers name the upstream, so that the gate's own address is put there."""

    hosts: tuple[str, ...] = ()
    json_: tuple[str, ...] = Field(default=(), alias="json")
    headers: tuple[str, ...] = ("Location", "Link")
    tickets: tuple[str, ...] = ()


class Resource(_Closed):
    """What the action touches; ``id`` is a template over the arguments."""

    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]*$")]
    id: str = Field(min_length=1, max_length=512)


class Action(_Closed):
    """One governed action of a connector."""

    name: ActionName
    match: Match
    mode: Literal["read", "write"]
    risk: Literal["low", "medium", "high"] = "medium"
    reversible: bool = False
    idempotent: bool = False
    resource: Resource | None = None
    arguments: Arguments = Arguments()
    dedupe_seconds: int = Field(default=0, ge=0, le=86_400)
    caller_token: tuple[TokenPlace, ...] | None = None
    placement: dict[str, Any] | None = None
    upload_host: str | None = None
    stream_response: bool = False
    response_max_bytes: int = Field(default=0, ge=0)


class ConnectorManifest(_Closed):
    """A service as the gate knows it."""

    connector: Name
    version: str = Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")
    base_path: str = Field(default="/", pattern=r"^/")
    caller_token: tuple[TokenPlace, ...]
    credential_places: tuple[TokenPlace, ...]
    auth: Auth
    hold_budget_seconds: int = Field(default=10, ge=0, le=600)
    rewrite: Rewrite = Rewrite()
    retry: Retry = Retry()
    request_headers: tuple[HeaderName, ...] = ()
    response_headers_drop: tuple[HeaderName, ...] = ()
    actions: tuple[Action, ...] = Field(min_length=1, max_length=2048)

    def action(self, name: str) -> Action | None:
        """The action of that full name."""
        return next((action for action in self.actions if action.name == name), None)


def load_manifest(document: JsonValue) -> ConnectorManifest:
    """Check one manifest document; raises :class:`BundleRefused` ``manifest_invalid``."""
    if not isinstance(document, dict):
        raise BundleRefused("manifest_invalid", "a manifest is an object")
    _refuse_unsupported(document)
    try:
        manifest = ConnectorManifest.model_validate(_with_full_names(_lists_to_tuples(document)))
    except ValidationError as refused:
        first = refused.errors(include_url=False, include_input=False)[0]
        where = "/".join(str(part) for part in first["loc"])
        raise BundleRefused("manifest_invalid", f"{document.get('connector')}: /{where}: {first['msg']}") from refused
    for action in manifest.actions:
        _check_action(manifest, action)
    _check_unambiguous(manifest)
    return manifest


def load_manifests(data: Mapping[str, JsonValue]) -> dict[str, ConnectorManifest]:
    """All manifests of a bundle's data (``data["connectors"]``), by connector name."""
    connectors = data.get("connectors", {})
    if not isinstance(connectors, dict):
        raise BundleRefused("manifest_invalid", "connectors is an object")
    loaded: dict[str, ConnectorManifest] = {}
    for name, document in connectors.items():
        manifest = load_manifest(document)
        if manifest.connector != name:
            raise BundleRefused("manifest_invalid", f"{name}: the manifest names itself {manifest.connector}")
        loaded[name] = manifest
    return loaded


def _refuse_unsupported(document: dict[str, JsonValue]) -> None:
    """Say of keys that a later version reads that this one does not, rather than that nobody knows them."""
    actions = document.get("actions")
    for action in actions if isinstance(actions, list) else []:
        found = _UNSUPPORTED & action.keys() if isinstance(action, dict) else frozenset()
        if found:
            named = f"{document.get('connector')}: {min(found)} of an action"
            raise BundleRefused("manifest_invalid", f"{named} is not supported by this version")


def _lists_to_tuples(document: dict[str, JsonValue]) -> dict[str, Any]:
    """Strict pydantic takes tuples only; schemas and the free-form parts keep their lists."""
    keep = {"schema", "placement"}

    def convert(value: JsonValue) -> Any:
        if isinstance(value, dict):
            return {key: (item if key in keep else convert(item)) for key, item in value.items()}
        if isinstance(value, list):
            return tuple(convert(item) for item in value)
        return value

    return {key: convert(item) for key, item in document.items()}


def _with_full_names(document: dict[str, Any]) -> dict[str, Any]:
    connector = document.get("connector")
    actions = document.get("actions")
    if not isinstance(connector, str) or not isinstance(actions, tuple):
        return document
    return {**document, "actions": tuple(_with_full_name(action, connector) for action in actions)}


def _with_full_name(action: Any, connector: str) -> Any:
    if not isinstance(action, dict) or not isinstance(action.get("name"), str):
        return action
    name = action["name"]
    return action if name.startswith(f"{connector}.") else {**action, "name": f"{connector}.{name}"}


def _refuse(action: Action, reason: str) -> BundleRefused:
    return BundleRefused("manifest_invalid", f"{action.name}: {reason}")


def _check_action(manifest: ConnectorManifest, action: Action) -> None:
    parameters = _check_template(action, action.match.path)
    for name, pattern in action.arguments.parameters.items():
        if name not in parameters:
            raise _refuse(action, f"a pattern for {name!r}, which is not in the path")
        _check_pattern(action, pattern)
    if action.match.body and action.arguments.body not in ("json", "form"):
        raise _refuse(action, "a body discriminator needs a json or form body")
    _check_schema(action)
    if action.resource is not None:
        _check_resource(action, action.resource, parameters)
    _check_token_places(manifest, action)
    if manifest.auth.kind == "header" and manifest.auth.header is None:
        raise _refuse(action, "auth of kind header names no header")


def _check_token_places(manifest: ConnectorManifest, action: Action) -> None:
    """**Security**: a token that cannot be cut out of what goes on would reach the service."""
    places = manifest.caller_token if action.caller_token is None else action.caller_token
    for place in places:
        kind = place.partition(":")[0]
        if kind == "cookie":
            raise _refuse(action, "a caller's token is never taken from a cookie")
        if kind == "form" and action.arguments.body == "none" and action.match.method in BODIED:
            raise _refuse(action, f"the caller's token may stand in {place}, but a body of this action passes unread")


def _check_template(action: Action, path: str) -> frozenset[str]:
    """The parameters of a path template; each stands for a whole segment, ``{name+}`` only at the end."""
    seen: set[str] = set()
    segments = path[1:].split("/")
    for index, segment in enumerate(segments):
        parameter = _PARAMETER.fullmatch(segment)
        if parameter is None:
            empty_root = not segment and len(segments) == 1
            if segment in (".", "..") or not (empty_root or _LITERAL.fullmatch(segment)):
                raise _refuse(action, f"{path!r} is not a path template")
            continue
        name, rest = parameter.groups()
        if name in seen or (rest and index != len(segments) - 1):
            raise _refuse(action, f"{path!r} uses {name!r} twice or takes the rest before the end")
        seen.add(name)
    return frozenset(seen)


def _check_pattern(action: Action, pattern: str) -> None:
    try:
        compiled = path_pattern(pattern)
    except BundleRefused as refused:
        raise _refuse(action, refused.detail) from refused
    if compiled.fullmatch("") is not None:
        raise _refuse(action, f"{pattern!r} matches nothing at all")


def _check_schema(action: Action) -> None:
    schema = action.arguments.schema_
    opened = action.arguments.additional
    if opened and action.risk == "high":
        raise _refuse(action, "a high-risk action's schema stays closed")
    if not opened and schema.get("additionalProperties", False) is not False:
        raise _refuse(action, "the schema is open but the action does not say additional: true")
    if schema and schema.get("type", "object") != "object":
        raise _refuse(action, "arguments are an object")
    if not isinstance(schema.get("properties", {}), dict) or not isinstance(schema.get("required", []), list):
        raise _refuse(action, "the schema's properties are an object, what is required is a list")
    _check_references(action, schema)


def _check_references(action: Action, node: Any) -> None:
    """**Security**: a reference to elsewhere would let the schema's meaning change after signing."""
    if isinstance(node, dict):
        for key, item in node.items():
            if key in ("$ref", "$dynamicRef") and isinstance(item, str) and not item.startswith("#"):
                raise _refuse(action, f"the schema refers to {item!r} outside itself")
            _check_references(action, item)
    elif isinstance(node, list):
        for item in node:
            _check_references(action, item)


def _check_resource(action: Action, resource: Resource, parameters: frozenset[str]) -> None:
    known = parameters | set(action.arguments.schema_.get("properties", {}))
    for placeholder in _PLACEHOLDER.findall(resource.id):
        if placeholder not in known and not action.arguments.additional:
            raise _refuse(action, f"the resource id uses {placeholder!r}, which is no argument")


def _check_unambiguous(manifest: ConnectorManifest) -> None:
    names: set[str] = set()
    by_method: dict[str, list[Action]] = {}
    for action in manifest.actions:
        if action.name in names:
            raise _refuse(action, "the name is used twice")
        names.add(action.name)
        for other in by_method.setdefault(action.match.method, []):
            if _may_overlap(action, other):
                raise _refuse(action, f"one request could also be {other.name}")
        by_method[action.match.method].append(action)


def _may_overlap(left: Action, right: Action) -> bool:
    for ours, theirs in ((left.match.body, right.match.body), (left.match.query, right.match.query)):
        if any(theirs.get(place, value) != value for place, value in ours.items()):
            return False
    ours_path, theirs_path = left.match.path[1:].split("/"), right.match.path[1:].split("/")
    for ours_segment, theirs_segment in zip(ours_path, theirs_path, strict=False):
        if ours_segment.endswith("+}") or theirs_segment.endswith("+}"):
            return True
        if not _segments_overlap(left, ours_segment, right, theirs_segment):
            return False
    return len(ours_path) == len(theirs_path)


def _segments_overlap(left: Action, ours: str, right: Action, theirs: str) -> bool:
    ours_parameter, theirs_parameter = _PARAMETER.fullmatch(ours), _PARAMETER.fullmatch(theirs)
    if ours_parameter and theirs_parameter:
        return True
    if ours_parameter:
        return _admits(left, ours_parameter.group(1), theirs)
    if theirs_parameter:
        return _admits(right, theirs_parameter.group(1), ours)
    return ours == theirs


def _admits(action: Action, parameter: str, literal: str) -> bool:
    pattern = action.arguments.parameters.get(parameter, PARAMETER_PATTERN)
    return path_pattern(pattern).fullmatch(literal) is not None
