"""Request bodies as values: one media type per action, one reading per body.

Guarantees: a body is read as the kind its action declares or the request is refused; a JSON body is strict JSON, a form
has each name once, a multipart body has one boundary reading and shows each file by name, type, size and digest.
Leaves to `arguments` the union with path and query, to the edge the size limit while reading.

**Security**: security rule 1. A body that two parsers read differently could be decided as one thing and carried out as
another, so nothing is repaired, guessed or skipped here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from bundles.canonical import JsonValue, StrictJsonError, parse_strict, sha256_hex
from bundles.manifest import BODIED, Action, Arguments
from gateway.edge.problem import refusal
from gateway.errors import Refusal
from pdp.value import Value

FORM_FIELDS_MAX: Final = 256
MULTIPART_PARTS_MAX: Final = 64
PART_HEADERS_MAX_BYTES: Final = 4_096
JSON_DEPTH_MAX: Final = 64

MEDIA_TYPES: Final = {
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
    "multipart": "multipart/form-data",
}

BODY_ALSO_KEYWORD: Final = "x-tidegate-body-also"
ALSO_KINDS: Final = frozenset({"json", "form"})

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]++"
_VALUE = rf"(?:{_TOKEN}|\"[^\"\\\r\n]*+\")"
# Nothing in it is ever read twice: a caller may send a long line of spaces.
_MEDIA_TYPE = re.compile(rf"({_TOKEN}/{_TOKEN})[ \t]*+((?:;[ \t]*+{_TOKEN}={_VALUE}[ \t]*+)*+);?+[ \t]*+")
_PARAMETER = re.compile(rf";[ \t]*+({_TOKEN})=({_VALUE})[ \t]*+")
_UTF8 = frozenset({"utf-8", "utf8"})
_FORM_BODY = re.compile(rb"(?:[^;%\x00-\x20\x7f-\xff]|%[0-9A-Fa-f]{2})*")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=?-]{1,70}")
_DISPOSITION = re.compile(r"form-data; ?name=\"([^\"\\\r\n]+)\"(?:; ?filename=\"([^\"\\\r\n]+)\")?")
_CHARSET_FIELD = "_charset_"  # RFC 7578 §4.6: it sets the charset of the other fields


class Body(Value, frozen=True):
    """A parsed body and the kind it was read as; `present` is False when nothing was sent."""

    value: JsonValue
    present: bool
    kind: str = "none"


NO_BODY: Final = Body(None, False)


def takes_stream(action: Action) -> bool:
    """Whether a body of `action` passes unread: none is declared, yet its method carries one.

    For every other action a body must be read and parsed, or be empty (rule 1: nothing undeclared rides along).
    """
    return action.arguments.body == "none" and action.match.method in BODIED


def parse_body(arguments: Arguments, content_type: str | None, raw: bytes | None) -> Body:
    """Read `raw` as the kind that `arguments` declares.

    An action whose schema says ``"x-tidegate-body-also": "form"`` (or ``"json"``) takes that kind too, for services with
    a long history; the content type, which goes on to the service as it came, then says which it is.

    Raises `Refusal`: ``body_too_large`` above the action's limit, ``malformed_request`` for another media type, another
    charset or a body that has no single reading, ``arguments_invalid`` for a form name that stands twice.
    """
    kind = arguments.body
    if not raw:
        return NO_BODY
    if kind == "none":
        raise refusal("malformed_request", "this action takes no body")
    if len(raw) > arguments.body_max_bytes:
        raise refusal("body_too_large", f"the body of this action is at most {arguments.body_max_bytes} bytes")
    also = arguments.schema_.get(BODY_ALSO_KEYWORD)
    if also in ALSO_KINDS and (content_type or "").partition(";")[0].strip(" \t").lower() == MEDIA_TYPES[also]:
        kind = also
    parameters = check_media_type(kind, content_type)
    if kind == "json":
        return Body(_parse_json(raw, arguments.body_max_bytes), True, kind)
    if kind == "form":
        return Body(form_fields(parse_form(raw)), True, kind)
    return Body(_parse_multipart(raw, parameters["boundary"]), True, kind)


def check_media_type(kind: str, content_type: str | None) -> dict[str, str]:
    """The parameters of `content_type`, which must be the media type of `kind` in UTF-8.

    Raises `Refusal` ``malformed_request``.
    """
    expected = MEDIA_TYPES[kind]
    if content_type == expected and kind != "multipart":
        return {}
    media_type, parameters = _media_type(content_type or "")
    if media_type != expected:
        raise refusal("malformed_request", f"the body of this action is {expected}")
    allowed = {"charset", "boundary"} if kind == "multipart" else {"charset"}
    if not parameters.keys() <= allowed or parameters.get("charset", "utf-8").lower() not in _UTF8:
        raise refusal("malformed_request", f"the body of this action is {expected} in UTF-8")
    if kind == "multipart" and _BOUNDARY.fullmatch(parameters.get("boundary", "")) is None:
        raise refusal("malformed_request", "a multipart body needs one boundary")
    return parameters


def _media_type(text: str) -> tuple[str, dict[str, str]]:
    """Type in lower case and parameters by lower-case name; an empty type for a text that is none."""
    found = _MEDIA_TYPE.fullmatch(text)
    if found is None:
        return "", {}
    parameters: dict[str, str] = {}
    for name, value in _PARAMETER.findall(found[2]):
        lowered = name.lower()
        if lowered in parameters:
            raise refusal("malformed_request", "a parameter of a content type stands twice")
        parameters[lowered] = value.strip('"')
    return found[1].lower(), parameters


def _parse_json(raw: bytes, max_bytes: int) -> JsonValue:
    try:
        return parse_strict(raw, max_bytes=max_bytes, max_depth=JSON_DEPTH_MAX)
    except StrictJsonError as error:
        raise refusal(
            "malformed_request", f"the body is not strict JSON: {error.code}", pointer=error.pointer
        ) from error


def parse_form(raw: bytes) -> tuple[tuple[str, str], ...]:
    """The decoded pairs of a form body, in order.

    Raises `Refusal` ``malformed_request`` for bytes a browser would have escaped, a broken escape, a raw ``;`` (some
    servers split there), a null byte, text that is not UTF-8, or too many fields.

    **Source**: WHATWG URL, application/x-www-form-urlencoded parsing.
    """
    if _FORM_BODY.fullmatch(raw) is None:
        raise refusal("malformed_request", "the form holds bytes that have no single reading")
    parts = raw.split(b"&")
    if len(parts) > FORM_FIELDS_MAX:
        raise refusal("malformed_request", f"a form holds at most {FORM_FIELDS_MAX} fields")
    pairs: list[tuple[str, str]] = []
    for part in parts:
        name, _, value = part.partition(b"=")
        pairs.append((_decode_form(name), _decode_form(value)))
    return tuple(pairs)


def _decode_form(part: bytes) -> str:
    try:
        text = unquote_to_bytes(part.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise refusal("malformed_request", "the form is not UTF-8") from error
    if "\x00" in text:
        raise refusal("malformed_request", "the form holds a null byte")
    return text


def form_fields(pairs: tuple[tuple[str, str], ...]) -> dict[str, JsonValue]:
    """Fields by name. Raises `Refusal` ``arguments_invalid`` when a name stands twice."""
    fields: dict[str, JsonValue] = {}
    for name, value in pairs:
        if name in fields:
            raise stands_twice(name)
        fields[name] = value
    return fields


def stands_twice(name: str) -> Refusal:
    """The refusal for one argument name with two values."""
    message = "the argument has more than one value"
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    return refusal("arguments_invalid", message, errors=[{"pointer": pointer, "message": message}])


def _parse_multipart(raw: bytes, boundary: str) -> dict[str, JsonValue]:
    """Fields and files of a multipart body without preamble, epilogue or transfer encodings.

    **Security**: services read these bodies with parsers that also take a bare line feed or carriage return for a line
    end, decode a field by its part's charset, open nested parts, or take a file without a name for a field; each of that
    would show the service another call than was decided.
    **Source**: RFC 7578 §4, RFC 2046 §5.1.1.
    """
    fields: dict[str, JsonValue] = {}
    for head, content in _parts(raw, b"--" + boundary.encode("ascii")):
        name, filename, media_type = _part_head(head)
        if name in fields:
            raise stands_twice(name)
        if filename is None:
            fields[name] = _field_text(content)
        else:
            fields[name] = {
                "filename": filename,
                "media_type": media_type,
                "size": len(content),
                "sha256": sha256_hex(content),
            }
    return fields


def _parts(raw: bytes, delimiter: bytes) -> Iterator[tuple[bytes, bytes]]:
    pieces = (b"\r\n" + raw).split(b"\r\n" + delimiter)
    if len(pieces) < 3 or pieces[0] or pieces[-1] not in (b"--", b"--\r\n"):
        raise refusal("malformed_request", "the multipart body does not fit its boundary")
    if len(pieces) - 2 > MULTIPART_PARTS_MAX:
        raise refusal("malformed_request", f"a multipart body holds at most {MULTIPART_PARTS_MAX} parts")
    for piece in pieces[1:-1]:
        if delimiter in piece:
            raise refusal("malformed_request", "the multipart body holds its boundary inside a part")
        head, separator, content = piece.partition(b"\r\n\r\n")
        if not separator or not head.startswith(b"\r\n") or len(head) > PART_HEADERS_MAX_BYTES:
            raise refusal("malformed_request", "a part of the multipart body has no proper head")
        yield head[2:], content


def _part_head(head: bytes) -> tuple[str, str | None, str]:
    """Name, file name (None: a field) and media type of a part."""
    headers: dict[str, str] = {}
    try:
        lines = head.decode("utf-8").split("\r\n")
    except UnicodeDecodeError as error:
        raise refusal("malformed_request", "the head of a part is not UTF-8") from error
    for line in lines:
        name, colon, value = line.partition(":")
        lowered = name.lower()
        if not colon or lowered in headers or lowered not in ("content-disposition", "content-type"):
            raise refusal("malformed_request", "a part carries a header that is not accepted")
        if not line.isprintable():
            raise refusal("malformed_request", "the head of a part holds a control character or a bare line end")
        headers[lowered] = value.strip(" ")
    disposition = _DISPOSITION.fullmatch(headers.get("content-disposition", ""))
    if disposition is None or disposition[1] == _CHARSET_FIELD:
        raise refusal("malformed_request", "a part has no plain name")
    stated = headers.get("content-type")
    _check_part_type(stated, is_file=disposition[2] is not None)
    return disposition[1], disposition[2], stated or "application/octet-stream"


def _check_part_type(stated: str | None, *, is_file: bool) -> None:
    if stated is None:
        return
    media_type, parameters = _media_type(stated)
    if is_file:
        if not media_type or media_type.startswith("multipart/"):
            raise refusal("malformed_request", "a file of the multipart body has no plain type")
    elif (
        media_type != "text/plain"
        or not parameters.keys() <= {"charset"}
        or parameters.get("charset", "utf-8").lower() not in _UTF8
    ):
        raise refusal("malformed_request", "a field of the multipart body is plain text in UTF-8")


def _field_text(content: bytes) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refusal("malformed_request", "a field of the multipart body is not UTF-8") from error
    if "\x00" in text:
        raise refusal("malformed_request", "a field of the multipart body holds a null byte")
    return text
