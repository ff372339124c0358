"""Arguments of a call: body fields, path parameters and query parameters as one object, held against the schema.

Guarantees: what leaves is in the arguments, whole; one name has one value; an argument nobody declared is refused
(schemas are closed unless the manifest opens one). Leaves to `bodies` how bytes become values, to policy what the
values may be.

A property of a schema may carry ``"x-tidegate-in": "path" | "query" | "body"``: the only place the argument may come
from, and the place `render` puts it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import jsonschema_rs

from bundles.canonical import JsonValue
from bundles.errors import BundleRefused
from bundles.manifest import Action, ConnectorManifest
from gateway.connectors.bodies import ALSO_KINDS, BODY_ALSO_KEYWORD, Body, parse_body, stands_twice
from gateway.connectors.classify import compile_template
from gateway.edge.problem import refusal
from gateway.errors import Refusal

SOURCE_KEYWORD: Final = "x-tidegate-in"
ERRORS_MAX: Final = 16
MESSAGE_MAX_CHARACTERS: Final = 300

_COMPOSITION = frozenset({"allOf", "anyOf", "oneOf", "if", "$ref", "dependentSchemas"})
_CONVERTED = frozenset({"integer", "number", "boolean"})
_BOOLEANS: Mapping[str, bool] = {"true": True, "1": True, "false": False, "0": False}
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,14}")
_NOTHING: Mapping[str, Any] = {}


def gather(
    action: Action,
    path_arguments: Mapping[str, str],
    query: Iterable[tuple[str, str]],
    content_type: str | None,
    body: bytes | None,
) -> dict[str, JsonValue]:
    """The arguments of one request: body fields ∪ path parameters ∪ query parameters.

    `query` is decoded, without the caller's token. `body` is None for a streamed body, which is no argument. Text from
    the path, the query and forms becomes an integer or boolean where the schema declares one and the text is a plain
    spelling of it (``7``, ``true``, ``1``).

    Raises `Refusal` ``malformed_request``, ``body_too_large`` or ``arguments_invalid``.
    """
    return gather_parsed(action, path_arguments, query, parse_body(action.arguments, content_type, body))


def gather_parsed(
    action: Action, path_arguments: Mapping[str, str], query: Iterable[tuple[str, str]], body: Body
) -> dict[str, JsonValue]:
    """As `gather`, for a body that classification already had to parse."""
    declared: Mapping[str, Any] = action.arguments.schema_.get("properties", _NOTHING)
    collected = _from_body(action, body, declared)
    for name, text in path_arguments.items():
        _put(collected, name, _convert(text, declared.get(name)), declared, "path")
    seen: set[str] = set()
    for name, text in query:
        if name in seen:
            raise stands_twice(name)
        seen.add(name)
        _put(collected, name, _convert(text, declared.get(name)), declared, "query")
    return collected


def _from_body(action: Action, body: Body, declared: Mapping[str, Any]) -> dict[str, JsonValue]:
    if not body.present:
        return {}
    value = body.value
    whole = takes_whole_body(action)
    if not isinstance(value, dict):
        if not whole:
            raise _invalid("", "the body of this action is an object")
        return {"body": value}
    if whole and "body" in value:
        raise _invalid("/body", "the value is written as the body itself, not as a field")
    if body.kind == "form":
        value = {name: _convert(text, declared.get(name)) for name, text in value.items()}
    for name in value:
        schema = declared.get(name)
        if type(schema) is dict and SOURCE_KEYWORD in schema:
            _check_source(name, declared, "body")
    return dict(value)


def takes_whole_body(action: Action) -> bool:
    """Whether a body that is no object is the argument ``body``.

    True only where ``body`` is all that the schema lets the body hold, so that ``[1]`` and ``{"body": [1]}`` can never
    be the same arguments.
    """
    declared = action.arguments.schema_.get("properties", _NOTHING)
    if "body" not in declared or action.arguments.body != "json":
        return False
    elsewhere = {f"{{{name}}}" for name in declared} | {f"{{{name}+}}" for name in declared}
    in_path = {part[1:-1].rstrip("+") for part in action.match.path.split("/") if part in elsewhere}
    others = (name for name in declared if name != "body" and name not in in_path)
    return all(declared[name].get(SOURCE_KEYWORD) in ("path", "query") for name in others)


def _put(
    collected: dict[str, JsonValue], name: str, value: JsonValue, declared: Mapping[str, Any], source: str
) -> None:
    _check_source(name, declared, source)
    if name in collected:
        other = collected[name]
        if type(other) is not type(value) or other != value:
            raise stands_twice(name)
    collected[name] = value


def _check_source(name: str, declared: Mapping[str, Any], source: str) -> None:
    schema = declared.get(name)
    if isinstance(schema, dict) and schema.get(SOURCE_KEYWORD, source) != source:
        raise _invalid(_pointer((name,)), f"the argument belongs in the {schema[SOURCE_KEYWORD]}")


def _convert(text: JsonValue, schema: Any) -> JsonValue:
    """`text` as the integer or boolean its schema declares, if it is a plain spelling of one."""
    if not isinstance(schema, dict) or not isinstance(text, str):
        return text
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in _CONVERTED:
        return text
    if kind == "boolean":
        return _BOOLEANS.get(text, text)
    return int(text) if _INTEGER.fullmatch(text) is not None else text


def _pointer(path: Iterable[str | int]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _invalid(pointer: str, message: str) -> Refusal:
    return refusal("arguments_invalid", message, errors=[{"pointer": pointer, "message": message}])


def _refuse_retrieval(uri: str) -> dict[str, Any]:
    """Security: a reference to anywhere outside the schema is never fetched."""
    raise ValueError("schemas refer to nothing outside themselves")


class SchemaSet:
    """The argument schemas of one manifest, compiled once (JSON Schema draft 2020-12)."""

    __slots__ = ("_validators",)

    def __init__(self, manifest: ConnectorManifest) -> None:
        """Compile every action's schema. Raises `BundleRefused` ``manifest_invalid`` for one that cannot be used.

        **Security**: references out of the schema are refused, patterns run in linear time, objects that declare
        properties are closed unless they say otherwise, and a high-risk action is never open.
        """
        self._validators = {action.name: _compile(manifest, action) for action in manifest.actions}

    def validate(self, action_name: str, arguments: Mapping[str, JsonValue]) -> None:
        """Raise `Refusal` ``arguments_invalid`` with a JSON Pointer per error unless `arguments` fit the schema.

        Values of arguments never stand in the messages.
        """
        validator = self._validators[action_name]
        if validator.is_valid(arguments):
            return
        errors: list[dict[str, str]] = []
        for error in validator.iter_errors(arguments):
            if len(errors) == ERRORS_MAX:
                break
            message = error.message[:MESSAGE_MAX_CHARACTERS]
            errors.append({"pointer": _pointer(error.instance_path), "message": message})
        raise refusal("arguments_invalid", errors[0]["message"] if errors else "", errors=errors)


def _compile(manifest: ConnectorManifest, action: Action) -> jsonschema_rs.Draft202012Validator:
    schema = closed_schema(manifest, action)
    try:
        return jsonschema_rs.Draft202012Validator(
            schema,
            validate_formats=True,
            retriever=_refuse_retrieval,
            mask="the value",
            pattern_options=jsonschema_rs.RegexOptions(),
        )
    except ValueError as error:
        first_line = str(error).partition("\n")[0]
        raise BundleRefused("manifest_invalid", f"schema of {action.name}: {first_line}") from error


def closed_schema(manifest: ConnectorManifest, action: Action) -> dict[str, Any]:
    """The schema that arguments of `action` are held against: the manifest's, closed, with what the match declares.

    Path parameters and discriminators are arguments too; those the schema does not mention are added. Raises
    `BundleRefused` when a high-risk action is left open.
    """
    given: dict[str, Any] = dict(action.arguments.schema_)
    if given.get("$schema", "https://json-schema.org/draft/2020-12/schema") != (
        "https://json-schema.org/draft/2020-12/schema"
    ):
        raise BundleRefused("manifest_invalid", f"schema of {action.name} is not draft 2020-12")
    also = given.get(BODY_ALSO_KEYWORD, "form")
    if also not in ALSO_KINDS or (BODY_ALSO_KEYWORD in given and action.arguments.body not in ALSO_KINDS - {also}):
        raise BundleRefused(
            "manifest_invalid", f"schema of {action.name}: a body is json, and form too, or the reverse"
        )
    template = compile_template(manifest.base_path, action.match.path, action.arguments.parameters)
    properties: dict[str, Any] = dict(given.get("properties", {}))
    for parameter in template.parameters:
        properties.setdefault(parameter.name, {"type": "string"})
    for name, value in action.match.query.items():
        properties.setdefault(name, {"const": value})
    for pointer, value in action.match.body.items():
        name = pointer.removeprefix("/").replace("~1", "/").replace("~0", "~")
        if "/" not in pointer[1:]:
            properties.setdefault(name, {"const": value})
    opened = {"additionalProperties": True} if action.arguments.additional else {}
    closed = _close({**opened, **given, "type": "object", "properties": properties})
    is_closed = closed.get("additionalProperties", closed.get("unevaluatedProperties")) is False
    if not is_closed and (action.risk == "high" or not action.arguments.additional):
        raise BundleRefused("manifest_invalid", f"schema of {action.name} is open where it must be closed")
    return closed


def _close(schema: dict[str, Any]) -> dict[str, Any]:
    """A copy in which every object that declares properties admits no others, unless it says so itself."""
    closed = dict(schema)
    properties = closed.get("properties")
    if isinstance(properties, dict):
        closed["properties"] = {name: _close_any(child) for name, child in properties.items()}
        if "additionalProperties" not in closed and "unevaluatedProperties" not in closed:
            composed = not _COMPOSITION.isdisjoint(closed)
            closed["unevaluatedProperties" if composed else "additionalProperties"] = False
    for keyword in ("items", "additionalProperties"):
        if keyword in closed:
            closed[keyword] = _close_any(closed[keyword])
    return closed


def _close_any(schema: Any) -> Any:
    return _close(schema) if isinstance(schema, dict) else schema
