"""Builtins over texts: prefixes, counts, pieces and positions; hexadecimal, base64, URL and glob notations.

Guarantees what OPA answers, with positions and lengths in characters. Declined are octets that are no UTF-8 after
decoding, more than ``MEMBERS_MAX`` members, repetitive texts whose search would take too long, and of URLs what Go's
versions read differently: hosts with ``[``, ``]``, ``%`` or two colons.

**Source**: OPA's ``v1/topdown``: ``strings.go``, ``encoding.go``, ``uri.go``; Go's ``net/url``.
"""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64encode
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final
from urllib.parse import quote, quote_plus, unquote_to_bytes

from pdp.wasm.builtins.values import Declined, RegoSet, Undefined, Value

MEMBERS_MAX: Final = 100_000
PARAMETERS_MAX: Final = 10_000
"""Of a query; Go refuses more, lately."""
COMPARED_MAX: Final = 10_000_000
"""Characters that ``indexof_n`` compares: what is searched times how often it is found."""

_INT64: Final = range(-(2**63), 2**63)
_SPELLING_MAX: Final = 19

_NO_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_GLOB_SIGN: Final = re.compile(r"[*?\\\[\]{}]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_USER: Final = re.compile(r"[A-Za-z0-9._:~!$&'()*+,;=%@-]*")
_UNSURE_HOST: Final = re.compile(r"[\[\]%]|:.*:", re.DOTALL)
_HOST: Final = re.compile(r"""([A-Za-z0-9._~!"$&'()*+,;<=>\x80-\U0010ffff-]*)(?::([0-9]*))?""")
_PATH_SAFE: Final = "$&+,/:;=@"


def any_prefix_match(texts: Value, prefixes: Value) -> Value:
    """Whether one of the texts begins with one of the prefixes; raises ``Undefined``."""
    return _any_begins(_texts(texts), _texts(prefixes))


def any_suffix_match(texts: Value, suffixes: Value) -> Value:
    """Whether one of the texts ends with one of the suffixes; raises ``Undefined``."""
    return _any_begins([text[::-1] for text in _texts(texts)], [suffix[::-1] for suffix in _texts(suffixes)])


def count(text: Value, part: Value) -> Value:
    """How often the part stands in the text, no two overlapping; raises ``Undefined``."""
    return _text(text).count(_text(part))


def split_n(text: Value, delimiter: Value, number: Value) -> Value:
    """The first ``number`` pieces of a text, or the last when it is negative; raises ``Undefined``, ``Declined``."""
    whole, between, wanted = _text(text), _text(delimiter), _int64(number)
    if wanted >= 0:
        wanted = min(wanted, len(whole) + 1)
        pieces = whole.split(between, wanted)[:wanted] if between else list(whole[:wanted])
    else:
        pieces = whole.split(between) if between else list(whole)
        pieces = pieces[max(len(pieces) + wanted, 0) :]
    if len(pieces) > MEMBERS_MAX:
        raise Declined("a text in too many pieces")
    return pieces


def indexof_n(text: Value, part: Value) -> Value:
    """Every position of the part in the text, overlapping ones too; raises ``Undefined``, ``Declined``."""
    whole, searched = _text(text), _text(part)
    if not searched:
        raise Undefined
    found: list[Value] = []
    at = whole.find(searched)
    while at >= 0:
        found.append(at)
        if len(found) > MEMBERS_MAX or len(found) * len(searched) > COMPARED_MAX:
            raise Declined("a text that is found too often")
        at = whole.find(searched, at + 1)
    return found


def hex_encode(text: Value) -> Value:
    """Two small hexadecimal digits for each octet; raises ``Undefined``."""
    return _octets(text).hex()


def hex_decode(text: Value) -> Value:
    """The text of these octets; raises ``Undefined``, ``Declined``."""
    try:
        return _decoded(binascii.unhexlify(_octets(text)))
    except binascii.Error as refused:
        raise Undefined from refused


def base64url_encode_no_pad(text: Value) -> Value:
    """Base64 with ``-`` and ``_``, without ``=`` at its end; raises ``Undefined``."""
    return urlsafe_b64encode(_octets(text)).rstrip(b"=").decode()


def urlquery_encode(text: Value) -> Value:
    """The text as a part of a query; raises ``Undefined``."""
    return quote_plus(_octets(text))


def urlquery_decode(text: Value) -> Value:
    """The text that a part of a query stands for; raises ``Undefined``, ``Declined``."""
    return _decoded(_query_part(_text(text)))


def urlquery_encode_object(parameters: Value) -> Value:
    """The query of an object of texts, or arrays or sets of texts; raises ``Undefined``."""
    if not isinstance(parameters, dict):
        raise Undefined
    pairs = [(name, _texts(parameters[name])) for name in sorted(parameters)]
    return "&".join(
        f"{quote_plus(_octets(name))}={quote_plus(_octets(text))}" for name, texts in pairs for text in texts
    )


def urlquery_decode_object(query: Value) -> Value:
    """The parameters of a query, each with all its texts; raises ``Undefined``, ``Declined``."""
    sections = _text(query).split("&")
    if len(sections) > PARAMETERS_MAX:
        raise Declined("a query with too many parameters")
    if any(";" in section for section in sections):
        raise Undefined
    pairs = [section.partition("=") for section in sections if section]
    found: dict[str, Value] = {}
    for name, text in [(_query_part(name), _query_part(text)) for name, _, text in pairs]:
        found.setdefault(_decoded(name), []).append(_decoded(text))  # type: ignore[union-attr]
    return found


def glob_quote_meta(text: Value) -> Value:
    """The pattern that fits this text alone; raises ``Undefined``."""
    return _GLOB_SIGN.sub(r"\\\g<0>", _text(text))


def uri_parse(text: Value) -> Value:
    """The parts of a URL that are there; raises ``Undefined``, ``Declined``.

    **Security**: a host keeps its letters' case and a point at its end: compare it in small letters.
    """
    return {name: _decoded(part) for name, part in _uri(_text(text)).items() if part}


def uri_is_valid(text: Value) -> Value:
    """Whether ``uri_parse`` reads this as a URL that is not empty; raises ``Declined``."""
    if not isinstance(text, str) or not text:
        return False
    try:
        _uri(text)
    except Undefined:
        return False
    return True


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise Undefined
    return value


def _texts(value: Value) -> list[str]:
    """A text alone, or those of an array, or of a set as Rego sorts it."""
    if isinstance(value, list):
        return [_text(item) for item in value]
    return sorted(map(_text, value.members)) if isinstance(value, RegoSet) else [_text(value)]


def _int64(value: Value) -> int:
    """A whole number of 64 bits, which may have a point and zeros after it."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise Undefined
    if isinstance(value, Decimal):
        spelling = str(value)
        if "." not in spelling or "E" in spelling or len(spelling.lstrip("-")) > _SPELLING_MAX:
            raise Declined("a number with an exponent or many digits, where a whole one is expected")
        if value != value.to_integral_value():
            raise Undefined
    if int(value) not in _INT64:
        raise Undefined
    return int(value)


def _octets(value: Value) -> bytes:
    try:
        return _text(value).encode()
    except UnicodeEncodeError as refused:
        raise Declined("a text that is no Unicode") from refused


def _decoded(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError as refused:
        raise Declined("a decoded text that is no UTF-8") from refused


def _any_begins(texts: Sequence[str], prefixes: Iterable[str]) -> bool:
    """Sorted, what begins with a prefix follows it at once: no text is compared with every prefix."""
    ordered = sorted(texts)
    for prefix in prefixes:
        at = bisect_left(ordered, prefix)
        if at < len(ordered) and ordered[at].startswith(prefix):
            return True
    return False


def _unescaped(text: str) -> bytes:
    if _NO_ESCAPE.search(text):
        raise Undefined
    return unquote_to_bytes(_octets(text))


def _query_part(text: str) -> bytes:
    return _unescaped(text.replace("+", " "))


def _uri(text: str) -> dict[str, bytes]:
    """The parts of a URL, some of them empty; raises ``Undefined`` for what Go refuses, ``Declined``."""
    before, _, fragment = text.partition("#")
    if _CONTROL.search(before) or before.startswith(":"):
        raise Undefined
    scheme = _SCHEME.match(before)
    rest, _, query = before[scheme.end() if scheme else 0 :].partition("?")
    parts = {"scheme": _octets(scheme[1].lower() if scheme else ""), "raw_query": _octets(query)}
    if not scheme and not rest.startswith("/") and ":" in rest.partition("/")[0]:
        raise Undefined
    if rest.startswith("/") or not scheme:  # the rest of mailto:ann@example.com is of no interest to OPA
        if rest.startswith("//") and (scheme or not rest.startswith("///")):
            authority, slash, below = rest[2:].partition("/")
            rest = slash + below
            parts["hostname"], parts["port"] = _host_and_port(authority)
        path = parts["path"] = _unescaped(rest)
        # OPA shows the path as it was written only where Go would write it in another way.
        parts["raw_path"] = path if quote(path, _PATH_SAFE) == rest else _octets(rest)
    return {**parts, "fragment": _unescaped(fragment)}


def _host_and_port(authority: str) -> tuple[bytes, bytes]:
    user, _, host = authority.rpartition("@")
    if _UNSURE_HOST.search(host):
        raise Declined("a URL's host with brackets, escapes or two colons")
    found = _HOST.fullmatch(host)
    if found is None or not _USER.fullmatch(user) or _NO_ESCAPE.search(user):
        raise Undefined
    return _octets(found[1]), _octets(found[2] or "")


BUILTINS: Final[Mapping[str, Callable[..., Value]]] = {
    "base64url.encode_no_pad": base64url_encode_no_pad,
    "glob.quote_meta": glob_quote_meta,
    "hex.decode": hex_decode,
    "hex.encode": hex_encode,
    "indexof_n": indexof_n,
    "strings.any_prefix_match": any_prefix_match,
    "strings.any_suffix_match": any_suffix_match,
    "strings.count": count,
    "strings.split_n": split_n,
    "uri.is_valid": uri_is_valid,
    "uri.parse": uri_parse,
    "urlquery.decode": urlquery_decode,
    "urlquery.decode_object": urlquery_decode_object,
    "urlquery.encode": urlquery_encode,
    "urlquery.encode_object": urlquery_encode_object,
}
