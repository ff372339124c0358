"""Strict JSON in, canonical JSON out.

Guarantees: ``parse_strict`` accepts exactly the JSON texts that every reader understands alike (no duplicate keys, no
number a double cannot hold exactly as an integer, no lone surrogates, bounded depth and size); ``canonical_json``
gives the one RFC 8785 text of a value; ``opa_canonical`` gives the bytes OPA hashes for a structured bundle file.
Leaves to its callers: what the values mean, and which limits fit.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Final, TypeAlias

import orjson

JsonValue: TypeAlias = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

SAFE_INTEGER_MAX: Final = 2**53 - 1

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_WIDE_NUMBER = re.compile(rb"[0-9]{16}|[0-9][eE]")
_INEXACT_LITERAL = re.compile(rb"[0-9][.eE]|[0-9]{16}|-0")
_POINT_OR_EXPONENT = re.compile(rb"[0-9][.eE]")
_FLOAT_OR_WIDE = re.compile(rb"[0-9][.eE]|[0-9]{16}")
_ASTRAL = re.compile(rb"[\xf0-\xf4]")
_CONTAINERS = frozenset((dict, list))
_PLAIN_KINDS = frozenset((str, bool, type(None)))
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_WORDS_OF_64_BITS = range(-(2**63), 2**64)
_PLAIN = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


class SpelledNumber(float):
    """A number that was written with a point or an exponent, and how."""

    spelling: str

    def __new__(cls, spelling: str) -> SpelledNumber:
        """The number that ``spelling`` means in JSON."""
        made = super().__new__(cls, spelling)
        made.spelling = spelling
        return made


class StrictJsonError(ValueError):
    """A JSON text or value outside the strict profile: ``code`` is stable, ``pointer`` says where (RFC 6901)."""

    def __init__(self, code: str, pointer: str = "") -> None:
        super().__init__(f"{code} at {pointer or 'the document'}")
        self.code = code
        self.pointer = pointer


def outside_strings(text: bytes) -> bytes:
    """A JSON text less its strings: for looking for what only numbers and structure may hold. On text that is no JSON it
    could take quadratic time."""
    return _STRING.sub(b"", text)


def sha256_hex(data: bytes) -> str:
    """The SHA-256 of ``data`` in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def parse_strict(raw: bytes, *, max_bytes: int = 1 << 20, max_depth: int = 64) -> JsonValue:
    """Parse one JSON text, or raise :class:`StrictJsonError`.

    The fast path parses with orjson and then proves that nothing was lost: an object member is one colon outside
    strings, so a dropped duplicate shows as a missing colon when the value is written again.

    **Security**: parsers disagree on duplicate keys, on big integers and on NaN; a value that two readers understand
    differently could be decided as one thing and carried out as another.
    **Source**: RFC 8259, RFC 7493 (I-JSON).
    """
    value = _loaded(raw, max_bytes)
    if (
        type(value) is dict
        and len(value) == raw.count(b":")
        and max_depth
        and (is_flat(value) or (_CONTAINERS.isdisjoint(map(type, value.values())) and not _WIDE_NUMBER.search(raw)))
    ):
        return value  # one flat object, whose every colon is a member that was kept
    skeleton = _skeleton(raw, max_depth)
    members = skeleton.count(b":")
    if members and _members(value) != members:
        raise _diagnose(raw)
    if _WIDE_NUMBER.search(skeleton):
        _check_numbers(value, "")
    return value


def parse_spelled(raw: bytes) -> JsonValue:
    """The value of a JSON text of our own making, in which a number with a point or an exponent is a ``SpelledNumber``.

    Raises ``orjson.JSONDecodeError`` for what is no JSON, numbers beyond a double among it.
    """
    value: JsonValue = orjson.loads(raw)
    if _POINT_OR_EXPONENT.search(outside_strings(raw)) is None:
        return value
    spelled: JsonValue = json.loads(raw, parse_float=SpelledNumber, parse_int=_integer)
    return spelled


def _integer(digits: str) -> int | float:
    """As the quick reader has it: beyond 64 bits a float."""
    value = int(digits)
    return value if value in _WORDS_OF_64_BITS else float(value)


def strict_and_canonical(raw: bytes, *, max_bytes: int, max_depth: int) -> tuple[JsonValue, bytes]:
    """What :func:`parse_strict` and :func:`opa_canonical` give, for the price of one of them; raises as the first."""
    value = _loaded(raw, max_bytes)
    skeleton = _skeleton(raw, max_depth)
    if _INEXACT_LITERAL.search(skeleton):
        return parse_strict(raw, max_bytes=max_bytes, max_depth=max_depth), opa_canonical(raw)
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    members = skeleton.count(b":")
    if members and _STRING.sub(b"", text).count(b":") != members:
        raise _diagnose(raw)
    return value, _as_go_escapes(text)


def _loaded(raw: bytes, max_bytes: int) -> JsonValue:
    """The value of a text; whether members were lost is not known yet."""
    if len(raw) > max_bytes:
        raise StrictJsonError("too_large")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise StrictJsonError("byte_order_mark")
    try:
        value: JsonValue = orjson.loads(raw)
    except orjson.JSONDecodeError as refused:
        raise _diagnose(raw) from refused
    return value


def _skeleton(raw: bytes, max_depth: int) -> bytes:
    """A JSON text less its strings; its depth is checked. On text that is not known to be JSON it could take quadratic time."""
    skeleton = _STRING.sub(b"", raw)
    _check_depth(skeleton, max_depth)
    return skeleton


def canonical_json(value: JsonValue) -> bytes:
    """The RFC 8785 text of ``value``; raises :class:`StrictJsonError` for a value that has none."""
    try:
        fast = orjson.dumps(value, option=_PLAIN)
    except TypeError as refused:
        return _canonical_slow(value, refused)
    # A float needs ECMAScript's form, an astral key UTF-16 order, and orjson writes NaN as null.
    odd_number = not is_flat(value) and (b"null" in fast or _FLOAT_OR_WIDE.search(fast))
    if odd_number or (not fast.isascii() and _ASTRAL.search(fast)):
        return _canonical_slow(value, None)
    return fast


def is_flat(value: object) -> bool:
    """Whether a value is an object of one level with nothing but texts, booleans, nulls and safe integers: one that every
    reader and writer understands alike, and that needs no other look at its numbers."""
    if type(value) is not dict:
        return False
    for name, item in value.items():
        if type(name) is not str:
            return False
        kind = type(item)
        if kind not in _PLAIN_KINDS and (kind is not int or not -SAFE_INTEGER_MAX <= item <= SAFE_INTEGER_MAX):
            return False
    return True


def opa_canonical(raw: bytes) -> bytes:
    """The bytes OPA hashes for ``data.json`` and ``.manifest``: compact, keys sorted, number literals as written.

    **Source**: OPA ``v1/bundle/hash.go``: every value goes through Go's ``encoding/json`` without HTML escaping, which
    still escapes U+2028 and U+2029. Duplicate keys and invalid text are the caller's to refuse first.
    """
    if _INEXACT_LITERAL.search(_STRING.sub(b"", raw)):
        value = json.loads(raw, parse_int=_Literal, parse_float=_Literal, parse_constant=_refuse_constant)
        text = _write_literal(value).encode()
    else:
        text = orjson.dumps(orjson.loads(raw), option=orjson.OPT_SORT_KEYS)
    return _as_go_escapes(text)


def _as_go_escapes(text: bytes) -> bytes:
    return text.replace("\u2028".encode(), b"\\u2028").replace("\u2029".encode(), b"\\u2029")


def _check_depth(skeleton: bytes, max_depth: int) -> None:
    """One pass removes exactly the innermost brackets, so the depth is the number of passes until none is left."""
    brackets = skeleton.translate(_BRACKETS, _NOT_BRACKETS)
    for _ in range(max_depth):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise StrictJsonError("too_deep")


def _members(value: JsonValue) -> int:
    """How many members the objects of a value have in all."""
    if isinstance(value, dict) and _CONTAINERS.isdisjoint(map(type, value.values())):
        return len(value)
    return _STRING.sub(b"", orjson.dumps(value)).count(b":")


def _check_numbers(value: JsonValue, pointer: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_numbers(item, f"{pointer}/{_escape(key)}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_numbers(item, f"{pointer}/{index}")
    elif isinstance(value, (int, float)) and not -SAFE_INTEGER_MAX <= value <= SAFE_INTEGER_MAX:
        raise StrictJsonError("number_out_of_range", pointer)


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


class _Pairs(list[tuple[str, object]]):
    """An object before its keys are known to be unique."""


def _refuse_constant(name: str) -> object:
    raise StrictJsonError("not_a_number")


def _diagnose(raw: bytes) -> StrictJsonError:
    """Say why the fast path refused, with Python's own parser and a walk that knows where it is."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return StrictJsonError("invalid_utf8")
    code = "too_deep"  # What is left when Python reads it and finds no fault: orjson's own depth limit.
    try:
        tree = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_refuse_constant)
        _find_fault(tree, "")
    except StrictJsonError as found:
        return found
    except RecursionError:
        code = "too_deep"
    except ValueError:
        code = "not_json"
    return StrictJsonError(code)


def _find_fault(node: object, pointer: str) -> None:
    if isinstance(node, _Pairs):
        seen: set[str] = set()
        for key, item in node:
            here = f"{pointer}/{_escape(key)}"
            if key in seen:
                raise StrictJsonError("duplicate_key", here)
            seen.add(key)
            _find_fault(key, here)
            _find_fault(item, here)
    elif isinstance(node, list):
        for index, item in enumerate(node):
            _find_fault(item, f"{pointer}/{index}")
    elif isinstance(node, str):
        if any("\ud800" <= char <= "\udfff" for char in node):
            raise StrictJsonError("lone_surrogate", pointer)
    elif isinstance(node, float) and not math.isfinite(node):
        raise StrictJsonError("number_out_of_range", pointer)


def _canonical_slow(value: JsonValue, cause: Exception | None) -> bytes:
    parts: list[str] = []
    try:
        _write(value, parts, "")
        return "".join(parts).encode("utf-8")
    except UnicodeEncodeError as refused:
        raise StrictJsonError("lone_surrogate") from refused
    except RecursionError as refused:
        raise StrictJsonError("too_deep") from (cause or refused)


def _write(value: object, parts: list[str], pointer: str) -> None:
    if value is None:
        parts.append("null")
    elif value is True:
        parts.append("true")
    elif value is False:
        parts.append("false")
    elif isinstance(value, str):
        parts.append(_quote(value))
    elif isinstance(value, int):
        if not -SAFE_INTEGER_MAX <= value <= SAFE_INTEGER_MAX:
            raise StrictJsonError("number_out_of_range", pointer)
        parts.append(int.__repr__(value))
    elif isinstance(value, float):
        parts.append(_ecmascript(value, pointer))
    elif isinstance(value, (list, tuple)):
        _write_array(value, parts, pointer)
    elif isinstance(value, dict):
        _write_object(value, parts, pointer)
    else:
        raise StrictJsonError("not_json_type", pointer)


def _write_array(value: list[object] | tuple[object, ...], parts: list[str], pointer: str) -> None:
    parts.append("[")
    for index, item in enumerate(value):
        if index:
            parts.append(",")
        _write(item, parts, f"{pointer}/{index}")
    parts.append("]")


def _write_object(value: dict[object, object], parts: list[str], pointer: str) -> None:
    keys: list[str] = []
    for key in value:
        if not isinstance(key, str):
            raise StrictJsonError("not_json_type", pointer)
        keys.append(key)
    parts.append("{")
    for index, key in enumerate(sorted(keys, key=_utf16)):
        if index:
            parts.append(",")
        parts.append(_quote(key))
        parts.append(":")
        _write(value[key], parts, f"{pointer}/{_escape(key)}")
    parts.append("}")


def _utf16(key: str) -> bytes:
    """RFC 8785 section 3.2.3 orders members by UTF-16 code units."""
    return key.encode("utf-16-be")


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _ecmascript(value: float, pointer: str) -> str:
    """ECMAScript's Number::toString, which RFC 8785 section 3.2.2.3 prescribes."""
    if not math.isfinite(value):
        raise StrictJsonError("not_a_number", pointer)
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + ("" if fraction == "0" else fraction)).lstrip("0")
    point = len(whole) + int(exponent or "0")
    if whole == "0":
        point -= 1 + (len(fraction) - len(fraction.lstrip("0")))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    power = f"{'+' if point > 0 else '-'}{abs(point - 1)}"
    return f"{sign}{digits[0]}{'.' + digits[1:] if count > 1 else ''}e{power}"


class _Literal(str):
    """A number exactly as it was written."""


def _write_literal(value: object) -> str:
    if isinstance(value, _Literal):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quote(key)}:{_write_literal(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_write_literal(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
