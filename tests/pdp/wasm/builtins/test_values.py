"""Values between Wasm and the host: read as they were written, and nothing guessed."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pdp.wasm.builtins.values import DEPTH_MAX, Declined, RegoSet, Value, order, read_value, write_value

READ: dict[str, tuple[bytes, Value]] = {
    "a text": (b'"a\\"b\\n\\u00e9"', 'a"b\né'),
    "a text beyond ASCII": ('"é\U0001f600"'.encode(), "é\U0001f600"),
    "an integer": (b"-12", -12),
    "an integer beyond 64 bits": (b"123456789012345678901234567890", 123456789012345678901234567890),
    "a fraction with its spelling": (b"[1.50, -0.05]", [Decimal("1.50"), Decimal("-0.05")]),
    "words": (b"[null, true, false]", [None, True, False]),
    "an object": (b'{"a": {"b": []}, "c": {}}', {"a": {"b": []}, "c": {}}),
    "an empty set": (b"set()", RegoSet(())),
    "a set": (b'{1, "a", -2.5}', RegoSet((1, "a", Decimal("-2.5")))),
    "a set of one text": (b'{"a"}', RegoSet(("a",))),
    "sets in a list": (b"[set(), {null}, {[true], {1}}]", [RegoSet(()), RegoSet((None,)), RegoSet(([True], RegoSet((1,))))]),
    "sets in an object": (b'{"a": {1}, "b": set()}', {"a": RegoSet((1,)), "b": RegoSet(())}),
    "an empty object in a set": (b'{{}, {"set()": [ ]}}', RegoSet(({}, {"set()": []}))),
    "a text that looks like a set": (b'["set()", "{1}"]', ["set()", "{1}"]),
    "texts with escapes in a set": (b'{"a\\"}", "\\\\"}', RegoSet(('a"}', "\\"))),
}  # fmt: skip


@pytest.mark.parametrize(("text", "value"), READ.values(), ids=READ.keys())
def test_read_value_gives_the_value_when_it_is(text: bytes, value: Value) -> None:
    given = read_value(text)
    assert given == value
    assert order(given) == order(value)
    assert read_value(write_value(given)) == value


REFUSED = {
    "nothing": b"",
    "half a text": b'"a',
    "half a text in a set": b'{"a',
    "half a list": b"[1, {2}",
    "half a set": b"{1",
    "half a set after a comma": b"{1,",
    "half an object": b'{"a": {1}',
    "half an object after a comma": b'{"a": {1},',
    "an object without a value": b'{"a": }',
    "an object with a value missing later": b'{"a": {1}, "b"}',
    "an object whose key is a number": b"{1: 2}",
    "an object whose later key is a number": b'{"a": {1}, 2: 3}',
    "two values": b"{1} {2}",
    "a set without commas": b"{1 2}",
    "a list without commas": b"[{1} 2]",
    "an unknown word": b"[undefined, {1}]",
    "a number with an exponent": b"15e-1",
    "a number with an exponent in a set": b"{1E3}",
    "less than nothing": b"-0",
    "less than nothing in a set": b"{-0}",
    "less than nothing with a point": b"[-0.0]",
    "a number with zeros before it": b"[007]",
    "a number with zeros before it in a set": b"{007}",
    "a number that ends in a point": b"1.",
    "a number that ends in a point in a set": b"{1.}",
    "no number": b"NaN",
    "no number in a list": b"[Infinity]",
    "a text that is no Unicode": b'{"\xff"}',
    "deep sets": b"{" * (DEPTH_MAX + 2) + b"1" + b"}" * (DEPTH_MAX + 2),
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "a number with too many digits": b"1" * 5_000,
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_read_value_declines_when_it_is(text: bytes) -> None:
    with pytest.raises(Declined):
        read_value(text)


def test_write_value_writes_a_small_number_without_an_exponent() -> None:
    assert write_value(Decimal("0.0000001")) == b"0.0000001"
    assert write_value([Decimal("1.50"), 1, True]) == b"[1.50,1,true]"


UNWRITABLE: dict[str, Value] = {
    "a text that is no Unicode": "\ud800",
    "a key that is no Unicode": {"\ud800": 1},
    "a list that holds itself": [],
}


@pytest.mark.parametrize("value", UNWRITABLE.values(), ids=UNWRITABLE.keys())
def test_write_value_declines_when_it_is(value: Value) -> None:
    if value == []:
        value.append(value)  # type: ignore[union-attr]
    with pytest.raises(Declined):
        write_value(value)


SORTED: list[Value] = [
    None, False, True, -1, 0, Decimal("0.5"), 1, "", "a", "b", "é", [], [1], [1, 2], [2], {}, {"a": 1}, {"a": 2}, {"b": 0},
    RegoSet(()), RegoSet((1,)), RegoSet((2, 1)), RegoSet((2,)),
]  # fmt: skip


def test_order_is_that_of_rego_over_all_types() -> None:
    mixed = SORTED[::-2] + SORTED[-2::-2]
    assert sorted(mixed, key=order) == SORTED
    assert len({order(value) for value in SORTED}) == len(SORTED)


def test_order_takes_numbers_as_equal_when_only_their_spelling_differs() -> None:
    assert order(1) == order(Decimal("1.0"))
    assert order(1) != order(True)
    assert order(RegoSet((1, 2))) == order(RegoSet((2, 1)))


def test_a_set_holds_equal_members_once_and_sorted() -> None:
    assert RegoSet.of([2, "a", 1, 2, None]).members == (None, 1, 2, "a")
