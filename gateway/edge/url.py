"""The one canonicaliser of request targets: what is classified and decided is, byte for byte, what is sent.

Guarantees: a `CanonicalTarget` has one reading only. Whatever two parsers might read differently (dot segments, encoded
separators, null bytes, path parameters, doubled slashes, double encoding, raw non-ASCII) is refused, not mended.
Leaves to the caller: which values a manifest's path parameters admit, separators among them where it asks for those.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from gateway.edge.problem import refusal
from pdp.value import Value

URI_MAX_BYTES = 8_192
QUERY_MAX_PAIRS = 256
REMEMBERED_MAX = 2_048
REMEMBERED_MAX_BYTES = 512
"""How many targets are remembered in their canonical reading, and how long one may be."""

# RFC 3986 pchar and "/" without ";" (path parameters are read differently by different servers).
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9\-._~!$&'()*+,=:@]|%[0-9A-Fa-f]{2})*)+")
# RFC 3986 query without ";" (a separator to some servers), with the brackets and bars that clients leave bare.
_QUERY = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,=:@/?\[\]^|{}]|%[0-9A-Fa-f]{2})*")
_ABSOLUTE = re.compile(r"(?i:https?)://([^/?#@\\\s]+)(/[^\s]*|\?[^\s]*)?")
_FORBIDDEN_ESCAPE = re.compile(r"%(?:2[Ff]|5[Cc]|3[Bb]|25|0[0-9A-Fa-f]|1[0-9A-Fa-f]|7[Ff])")
_SEPARATOR_ESCAPE = re.compile(r"%(?:2[Ff]|5[Cc]|3[Bb])")
_TEXT_ESCAPE = re.compile(r"%(?:2[Ff]|5[Cc]|3[Bb]|25)")
_DOT_SEGMENTS = frozenset({".", ".."})


class CanonicalTarget(Value, frozen=True):
    """A request target in its only reading.

    `path` and `raw_query` are the octets as they came and as they go out; `segments` are decoded, one for each `/`;
    `query` holds decoded pairs in their order.
    """

    path: str
    segments: tuple[str, ...]
    raw_query: str
    query: tuple[tuple[str, str], ...]


def canonical_path(
    raw_target: str,
    *,
    uri_max_bytes: int = URI_MAX_BYTES,
    separators_from: int | None = None,
    text_from: int | None = None,
) -> CanonicalTarget:
    """Read an origin-form target (`/path?query`).

    From the segment with number `separators_from` on, if that is given, `%2F`, `%5C` and `%3B` are read too; whoever
    asks for them refuses every segment in which a separator is not wanted. From the segment with number `text_from` on
    `%25` is read as well: what stands there is a name, looked up as it is decoded and never part of a path again. Raises a
    refusal `uri_too_long` or `malformed_request`.

    Security: security rule 2. A segment that decodes to `.` or `..` in any spelling, `%2F`, `%5C`, `%3B`, `%25`, control
    octets, a literal `;`, `\\`, `//` or anything outside RFC 3986's path characters is refused.
    Source: RFC 3986 §3.3, RFC 9112 §3.2.1.
    """
    if len(raw_target) > uri_max_bytes:
        raise refusal("uri_too_long", f"the request target is longer than {uri_max_bytes} bytes")
    if len(raw_target) > REMEMBERED_MAX_BYTES:
        return _read(raw_target, separators_from, text_from)
    return _remembered(raw_target, separators_from, text_from)


def _read(raw_target: str, separators_from: int | None, text_from: int | None) -> CanonicalTarget:
    path, mark, raw_query = raw_target.partition("?")
    if _PATH.fullmatch(path) is None:
        raise refusal("malformed_request", "the path holds characters that have no single reading")
    if "%" in path and _FORBIDDEN_ESCAPE.search(_judged(path, separators_from, text_from)) is not None:
        raise refusal("malformed_request", "the path holds an encoded separator, percent sign or control character")
    segments = _segments(path)
    return CanonicalTarget(path, segments, raw_query, _pairs(raw_query) if mark else ())


_remembered = lru_cache(maxsize=REMEMBERED_MAX)(_read)
"""Callers ask for the same targets again and again."""


def origin_form(raw_target: str, host: str | None) -> str:
    """The origin-form of a target that may be in absolute-form.

    Raises `malformed_request` for an absolute-form to another authority than the Host header's, and for the forms of
    OPTIONS and CONNECT.

    Source: RFC 9112 §3.2; §3.2.2 makes the absolute-form's authority win over Host, so both must agree.
    """
    if raw_target.startswith("/"):
        return raw_target
    match = _ABSOLUTE.fullmatch(raw_target)
    if match is None:
        raise refusal("malformed_request", "the request target is neither a path nor a URL")
    if host is None or match.group(1).lower() != host.strip().lower():
        raise refusal("malformed_request", "the request target names another host")
    rest = match.group(2) or "/"
    return rest if rest.startswith("/") else "/" + rest


def _judged(path: str, separators_from: int | None, text_from: int | None) -> str:
    """The path less the escapes that are the caller's to judge."""
    if text_from is not None:
        segments = path[1:].split("/")
        return "/".join(segments[:text_from]) + _TEXT_ESCAPE.sub("", "/".join(segments[text_from:]))
    if separators_from is None:
        return path
    segments = path[1:].split("/")
    return "/".join(segments[:separators_from]) + _SEPARATOR_ESCAPE.sub("", "/".join(segments[separators_from:]))


def _segments(path: str) -> tuple[str, ...]:
    """The decoded segments of a path that holds only characters and escapes of `_PATH`."""
    segments = path[1:].split("/")
    if "%" in path:
        segments = [_decode(segment, "path") if "%" in segment else segment for segment in segments]
    if not _DOT_SEGMENTS.isdisjoint(segments):
        raise refusal("malformed_request", "the path holds a dot segment")
    if not all(segments[:-1]):
        raise refusal("malformed_request", "the path holds an empty segment")
    return tuple(segments)


def _pairs(raw_query: str) -> tuple[tuple[str, str], ...]:
    if not raw_query:
        return ()
    if _QUERY.fullmatch(raw_query) is None:
        raise refusal("malformed_request", "the query holds characters that have no single reading")
    parts = raw_query.split("&")
    if len(parts) > QUERY_MAX_PAIRS:
        raise refusal("malformed_request", f"the query holds more than {QUERY_MAX_PAIRS} parameters")
    pairs = []
    for part in parts:
        name, _, value = part.partition("=")
        pairs.append((_decode_form(name), _decode_form(value)))
    return tuple(pairs)


def _decode_form(text: str) -> str:
    if "%" not in text:
        return text.replace("+", " ") if "+" in text else text
    decoded = _decode(text.replace("+", " "), "query")
    if "\x00" in decoded:
        raise refusal("malformed_request", "the query holds a null byte")
    return decoded


def _decode(text: str, where: str) -> str:
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise refusal("malformed_request", f"the {where} is not UTF-8") from error
