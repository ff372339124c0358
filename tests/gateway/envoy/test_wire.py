"""The wire format: one reading of each message, refusals of everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.envoy.wire import (
    FIELDS_MAX,
    LENGTH,
    VARINT,
    Field,
    Message,
    WireError,
    fields,
    number_field,
    octets_field,
    text_field,
)

BROKEN = {
    "a tag ends early": b"\x80",
    "a varint ends early": b"\x08\xff",
    "a varint has no end": b"\x08" + b"\xff" * 10,
    "a varint is longer than 64 bits": b"\x08" + b"\xff" * 9 + b"\x02",
    "a length is longer than the message": b"\x0a\x05abcd",
    "a length is huge": b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    "a fixed number ends early": b"\x09\x01\x02",
    "a field has no number": b"\x02\x00",
    "a field number is too large": b"\xfa\xff\xff\xff\x1f\x00",
    "a group starts": b"\x0b",
    "a group ends": b"\x0c",
    "a wire type is unknown": b"\x0f",
    "there are too many fields": number_field(1, 0) * (FIELDS_MAX + 1),
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN.keys())
def test_fields_refuses_when(raw: bytes) -> None:
    with pytest.raises(WireError):
        fields(raw)


def test_fields_reads_all_when_there_are_as_many_as_allowed() -> None:
    assert len(fields(number_field(1, 0) * FIELDS_MAX)) == FIELDS_MAX


def test_fields_skips_over_fixed_numbers_when_they_are_whole() -> None:
    raw = b"\x09" + b"\x01" * 8 + b"\x15" + b"\x02" * 4 + number_field(3, 300)
    assert [field.number for field in fields(raw)] == [1, 2, 3]
    assert fields(raw)[2] == Field(3, VARINT, 300)


def test_octets_refuses_when_a_singular_field_stands_twice() -> None:
    with pytest.raises(WireError, match="twice"):
        Message(octets_field(1, b"a") + octets_field(1, b"b")).octets(1)


def test_octets_refuses_when_the_field_is_a_number() -> None:
    with pytest.raises(WireError, match="wire type"):
        Message(number_field(1, 5)).octets(1)


def test_text_refuses_when_it_is_no_utf8() -> None:
    with pytest.raises(WireError, match="UTF-8"):
        Message(octets_field(1, b"\xff")).text(1)


def test_text_map_refuses_when_a_key_stands_twice() -> None:
    entry = octets_field(1, text_field(1, "k") + text_field(2, "v"))
    with pytest.raises(WireError, match="key"):
        Message(entry + entry).text_map(1)


def test_message_is_empty_when_nothing_is_there() -> None:
    read = Message(b"")
    assert (read.octets(1), read.text(1), read.messages(1), read.has(1), read.text_map(1)) == (b"", "", [], False, {})


@given(st.lists(st.tuples(st.integers(1, 2**29 - 1), st.integers(0, 2**64 - 1) | st.binary(max_size=300)), max_size=20))
def test_fields_gives_back_what_was_written(written: list[tuple[int, int | bytes]]) -> None:
    raw = b"".join(
        number_field(number, value) if isinstance(value, int) else octets_field(number, value)
        for number, value in written
    )
    kinds = [VARINT if isinstance(value, int) else LENGTH for _, value in written]
    assert fields(raw) == [Field(*pair, value) for (pair, value) in _zipped(written, kinds)]


def _zipped(written: list[tuple[int, int | bytes]], kinds: list[int]) -> list[tuple[tuple[int, int], int | bytes]]:
    return [((number, kind), value) for (number, value), kind in zip(written, kinds, strict=True)]


@given(st.binary(max_size=200))
def test_fields_refuses_or_reads_when_bytes_are_arbitrary(raw: bytes) -> None:
    try:
        found = fields(raw)
    except WireError:
        return
    assert len(found) <= len(raw)
