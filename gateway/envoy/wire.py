"""The protobuf wire format, as far as the door's few messages need it.

Guarantees: every read is bounded by the message it stands in; a field of another wire type than the schema's, a singular
field or map key that stands twice, text that is no UTF-8 and groups are refused, so that a message has one reading only.
Fields that are not asked for are skipped, as the format wants. Leaves to `check_request` and `check_response` which numbers mean what.

**Source**: the protobuf encoding specification (varints, tags, length-delimited fields).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
FIXED32: Final = 5
_VARINT_MAX_BYTES: Final = 10
FIELDS_MAX: Final = 4096


class WireError(ValueError):
    """The bytes are no message with one reading; the text says where."""


class Field(NamedTuple):
    """One field as it stands: its number and wire type, and its value (an integer for varints, else octets)."""

    number: int
    kind: int
    value: int | bytes


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for step in range(_VARINT_MAX_BYTES):
        if at + step >= len(raw):
            raise WireError("a varint ends early")
        octet = raw[at + step]
        value |= (octet & 0x7F) << (7 * step)
        if octet < 0x80:
            if value >= 1 << 64:
                raise WireError("a varint is longer than 64 bits")
            return value, at + step + 1
    raise WireError("a varint has no end")


def fields(raw: bytes) -> list[Field]:
    """Every field of a message, in order. Raises `WireError`."""
    found: list[Field] = []
    at = 0
    while at < len(raw):
        if len(found) >= FIELDS_MAX:
            raise WireError(f"a message has more than {FIELDS_MAX} fields")
        tag, at = _varint(raw, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise WireError("a field has no number")
        if kind == VARINT:
            value, at = _varint(raw, at)
            found.append(Field(number, kind, value))
            continue
        if kind == LENGTH:
            size, at = _varint(raw, at)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise WireError(f"field {number} has a wire type that is not used")
        if size > len(raw) - at:
            raise WireError(f"field {number} is longer than its message")
        found.append(Field(number, kind, raw[at : at + size]))
        at += size
    return found


class Message:
    """A message's fields by number, read as the schema says."""

    __slots__ = ("_fields",)

    def __init__(self, raw: bytes) -> None:
        self._fields: dict[int, list[Field]] = {}
        for field in fields(raw):
            self._fields.setdefault(field.number, []).append(field)

    def _all(self, number: int) -> list[bytes]:
        values = []
        for field in self._fields.get(number, ()):
            if not isinstance(field.value, bytes) or field.kind != LENGTH:
                raise WireError(f"field {number} has another wire type than its schema")
            values.append(field.value)
        return values

    def octets(self, number: int) -> bytes:
        """A singular bytes, string or message field; empty when it is absent. Raises `WireError` when it stands twice."""
        values = self._all(number)
        if len(values) > 1:
            raise WireError(f"field {number} stands twice")
        return values[0] if values else b""

    def text(self, number: int) -> str:
        """A singular string field."""
        return _utf8(self.octets(number), number)

    def message(self, number: int) -> Message:
        """A singular message field; an empty message when it is absent."""
        return Message(self.octets(number))

    def messages(self, number: int) -> list[Message]:
        """A repeated message field."""
        return [Message(raw) for raw in self._all(number)]

    def has(self, number: int) -> bool:
        """Whether a field is there at all."""
        return number in self._fields

    def text_map(self, number: int) -> Mapping[str, str]:
        """A map of strings. Raises `WireError` when a key stands twice."""
        found: dict[str, str] = {}
        for entry in self.messages(number):
            key = entry.text(1)
            if key in found:
                raise WireError(f"a key of field {number} stands twice")
            found[key] = entry.text(2)
        return found


def _utf8(raw: bytes, number: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WireError(f"field {number} is no UTF-8") from error


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number_field(number: int, value: int) -> bytes:
    """A varint field; `value` is not negative."""
    return _encoded(number << 3 | VARINT) + _encoded(value)


def octets_field(number: int, value: bytes) -> bytes:
    """A bytes or message field."""
    return _encoded(number << 3 | LENGTH) + _encoded(len(value)) + value


def text_field(number: int, value: str) -> bytes:
    """A string field."""
    return octets_field(number, value.encode("utf-8"))
