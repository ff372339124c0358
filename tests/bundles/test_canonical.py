"""Strict JSON: what is refused, that nothing is lost, and the vectors of RFC 8785 and of OPA."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundles.canonical import (
    SAFE_INTEGER_MAX,
    SpelledNumber,
    StrictJsonError,
    canonical_json,
    is_flat,
    opa_canonical,
    parse_spelled,
    parse_strict,
    strict_and_canonical,
)

REFUSED = {
    "a duplicate key": (b'{"a":1,"a":2}', "duplicate_key", "/a"),
    "an escaped twin of a key": (b'{"x":[{"a":1,"\\u0061":2}]}', "duplicate_key", "/x/0/a"),
    "a duplicate key with a slash": (b'{"a/b":1,"a/b":2}', "duplicate_key", "/a~1b"),
    "duplicate keys that colons in texts would hide": (b'{"a":":","a":":"}', "duplicate_key", "/a"),
    "NaN": (b"[NaN]", "not_a_number", ""),
    "Infinity": (b"[-Infinity]", "not_a_number", ""),
    "1e400": (b'{"n":1e400}', "number_out_of_range", "/n"),
    "2^53": (b"[9007199254740992]", "number_out_of_range", "/0"),
    "-2^53": (b"[-9007199254740992]", "number_out_of_range", "/0"),
    "2^64, which orjson rounds": (b"[18446744073709551616]", "number_out_of_range", "/0"),
    "1e16, a whole number in disguise": (b"[1e16]", "number_out_of_range", "/0"),
    "invalid UTF-8": (b'"\xff"', "invalid_utf8", ""),
    "a surrogate encoded in UTF-8": (b'"\xed\xa0\x80"', "invalid_utf8", ""),
    "a lone surrogate": (b'{"a":"\\ud800"}', "lone_surrogate", "/a"),
    "a lone surrogate in a key": (b'{"\\ud800":1}', "lone_surrogate", "/\ud800"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "byte_order_mark", ""),
    "65 levels": (b"[" * 65 + b"]" * 65, "too_deep", ""),
    "65 levels of both kinds": (b'{"a":[' * 32 + b"{}" + b"]}" * 32, "too_deep", ""),
    "2,000 levels": (b"[" * 2000 + b"]" * 2000, "too_deep", ""),
    "10,000 levels": (b"[" * 10000 + b"]" * 10000, "too_deep", ""),
    "a trailing comma": (b"[1,]", "not_json", ""),
    "two documents": (b"{} {}", "not_json", ""),
    "nothing": (b"", "not_json", ""),
    "a control character in a text": (b'"\x01"', "not_json", ""),
}


@pytest.mark.parametrize(("raw", "code", "pointer"), REFUSED.values(), ids=REFUSED.keys())
def test_text_is_refused_when_it_holds(raw: bytes, code: str, pointer: str) -> None:
    with pytest.raises(StrictJsonError) as refused:
        parse_strict(raw)
    assert (refused.value.code, refused.value.pointer) == (code, pointer)


ACCEPTED: dict[str, tuple[bytes, Any]] = {
    "64 levels": (b"[" * 64 + b"]" * 64, None),
    "2^53 - 1": (b"[9007199254740991,-9007199254740991]", [2**53 - 1, 1 - 2**53]),
    "a pair of surrogates": (b'"\\ud83d\\ude00"', "\U0001f600"),
    "colons and brackets in texts": (b'{"a:{[":":\\":{"}', {"a:{[": ':":{'}),
    "many brackets side by side": (b"[" + b"[]," * 500 + b"[]]", [[]] * 501),
    "a long fraction": (b"[0.12345678901234567890]", [0.12345678901234568]),
    "an exponent": (b"[1e3]", [1000.0]),
}


@pytest.mark.parametrize(("raw", "value"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_text_is_accepted_when_it_holds(raw: bytes, value: Any) -> None:
    parsed = parse_strict(raw)
    assert value is None or parsed == value


def test_text_is_refused_when_one_byte_over_the_limit() -> None:
    assert parse_strict(b"[1]", max_bytes=3) == [1]
    with pytest.raises(StrictJsonError) as refused:
        parse_strict(b"[1] ", max_bytes=3)
    assert refused.value.code == "too_large"


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("twins")
    return dict(pairs)


KEYS = st.sampled_from(["a", "b", '"', "\\", ":", "{", "é", "\\u0061"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(["", ":", '\\"', "{", "\u2028"]))
TREES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.lists(st.tuples(KEYS, inner), max_size=3))
)


def _spell(tree: Any) -> str:
    """JSON text of a tree in which a list of pairs is an object, twins and all."""
    if isinstance(tree, list) and tree and all(isinstance(item, tuple) for item in tree):
        return "{" + ", ".join(f"{json.dumps(key)}: {_spell(value)}" for key, value in tree) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(map(_spell, tree)) + "]"
    return json.dumps(tree, ensure_ascii=False)


@settings(max_examples=300, deadline=None)
@given(TREES)
def test_fast_parse_equals_the_plain_one_when_keys_may_repeat(tree: Any) -> None:
    text = _spell(tree)
    try:
        expected = json.loads(text, object_pairs_hook=_no_twins)
    except ValueError:
        with pytest.raises(StrictJsonError):
            parse_strict(text.encode())
    else:
        assert parse_strict(text.encode()) == expected


# The numbers of RFC 8785 appendix B, as far as a double of that size is finite.
NUMBERS = {
    -0.0: "0", 5e-324: "5e-324", 1.7976931348623157e308: "1.7976931348623157e+308",
    9007199254740992.0: "9007199254740992", 295147905179352830000.0: "295147905179352830000",
    9.999999999999997e22: "9.999999999999997e+22", 1e23: "1e+23", 1e21: "1e+21", 1e20: "100000000000000000000",
    9.999999999999997e-7: "9.999999999999997e-7", 0.000001: "0.000001", 333333333.33333329: "333333333.3333333",
    -0.0000033333333333333333: "-0.0000033333333333333333", 1424953923781206.2: "1424953923781206.2",
    1.5: "1.5", 100.0: "100", 123.456: "123.456", 0.002: "0.002", 1e-27: "1e-27", -1.25e-9: "-1.25e-9",
}  # fmt: skip


@pytest.mark.parametrize(("number", "text"), NUMBERS.items(), ids=NUMBERS.values())
def test_number_is_written_as_ecmascript_does(number: float, text: str) -> None:
    assert canonical_json(number).decode() == text


@settings(max_examples=300, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_survives_when_written_and_read(number: float) -> None:
    assert float(canonical_json(number)) == number


def test_object_is_ordered_by_utf16_when_keys_are_astral() -> None:
    # RFC 8785 section 3.2.3: the surrogates of U+1F600 sort before U+FB33.
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    written = canonical_json(dict.fromkeys(keys, 1))
    assert list(json.loads(written)) == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


def test_text_is_escaped_as_little_as_possible() -> None:
    assert canonical_json('\u20ac$\x0f\nA\'B"\\\\"/\x7f') == '"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/\x7f"'.encode()


UNWRITABLE: dict[str, tuple[Any, str]] = {
    "NaN beside null": ([None, math.nan], "not_a_number"),
    "infinity": ([math.inf], "not_a_number"),
    "2^53": ({"a": 2**53}, "number_out_of_range"),
    "2^70": ([2**70], "number_out_of_range"),
    "a lone surrogate": ("\ud800", "lone_surrogate"),
    "bytes": ({"a": b"x"}, "not_json_type"),
    "a number for a key": ({1: "x"}, "not_json_type"),
}


@pytest.mark.parametrize(("value", "code"), UNWRITABLE.values(), ids=UNWRITABLE.keys())
def test_value_is_refused_when_it_has_no_canonical_text(value: Any, code: str) -> None:
    with pytest.raises(StrictJsonError) as refused:
        canonical_json(value)
    assert refused.value.code == code


def test_value_is_refused_when_it_contains_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(StrictJsonError) as refused:
        canonical_json(loop)
    assert refused.value.code == "too_deep"


def test_deep_value_is_written_when_orjson_would_stop() -> None:
    value: Any = []
    for _ in range(300):
        value = [value]
    assert canonical_json(value) == b"[" * 301 + b"]" * 301


@settings(max_examples=200, deadline=None)
@given(TREES.filter(lambda tree: "tuple" not in str(tree)))
def test_value_comes_back_when_written_and_parsed(tree: Any) -> None:
    value = json.loads(json.dumps(tree))
    assert parse_strict(canonical_json(value)) == value


def test_opa_hash_is_the_published_one() -> None:
    # OPA's own test, v1/bundle/hash_test.go.
    canonical = opa_canonical(b'{"revision": "quickbrownfaux"}')
    assert hashlib.md5(canonical, usedforsecurity=False).hexdigest() == "a005c38a509dc2d5a7407b9494efb2ad"


OPA_TEXTS = {
    "number literals stay as written": (b'{"n": [1.50, 1E3, -0, 1.0e-1, 12345678901234567890]}',) * 2,
    "keys are sorted": (b'{"b":1, "a":{"d":null,"c":true}}', b'{"a":{"c":true,"d":null},"b":1}'),
    "keys are sorted beside literals": (b'{"b":1.0, "a":2}', b'{"a":2,"b":1.0}'),
    "line separators are escaped": ('{"a":"\u2028<>&\u2029"}'.encode(), b'{"a":"\\u2028<>&\\u2029"}'),
    "escapes are undone": (b'{"a":"\\u00e9\\/"}', '{"a":"é/"}'.encode()),
}


@pytest.mark.parametrize(("raw", "canonical"), OPA_TEXTS.values(), ids=OPA_TEXTS.keys())
def test_opa_text(raw: bytes, canonical: bytes) -> None:
    assert opa_canonical(raw) == canonical.replace(b": ", b":").replace(b", ", b",")


def test_opa_text_is_refused_when_it_holds_a_constant() -> None:
    with pytest.raises(StrictJsonError):
        opa_canonical(b"[1.0, NaN]")


@pytest.mark.parametrize(
    "raw",
    [
        b'{"b": 1, "a": [1, 2, {"c": "x: y"}]}',
        b'{"n": 1.50, "m": 10}',
        b'{"n": -0, "m": 1e3}',
        b'{"n": 9007199254740991}',
        b"[]",
        b'"text with \\" and : inside"',
        b'{"line\xe2\x80\xa8": "\xe2\x80\xa9"}',
    ],
)
def test_strict_and_canonical_are_what_either_gives_alone(raw: bytes) -> None:
    value, text = strict_and_canonical(raw, max_bytes=1000, max_depth=8)
    assert (value, text) == (parse_strict(raw, max_bytes=1000, max_depth=8), opa_canonical(raw))


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": 1, "a": 1}',
        b'{"a": 1.5, "a": 2}',
        b'{"n": 9007199254740992}',
        b'{"a": ',
        b"[[[[[[[[[1]]]]]]]]]",
        b"\xef\xbb\xbf1",
    ],
)
def test_strict_and_canonical_refuse_what_strict_parsing_refuses(raw: bytes) -> None:
    with pytest.raises(StrictJsonError) as alone:
        parse_strict(raw, max_depth=8)
    with pytest.raises(StrictJsonError) as together:
        strict_and_canonical(raw, max_bytes=1000, max_depth=8)
    assert (together.value.code, together.value.pointer) == (alone.value.code, alone.value.pointer)


@pytest.mark.parametrize(("raw", "depth"), [(b'{"a":1}', 0), (b'{"a":[1]}', 1), (b'{"a":{}}', 1), (b'{"a":[[]]}', 2)])
def test_parse_strict_refuses_when_one_object_is_a_level_too_deep(raw: bytes, depth: int) -> None:
    with pytest.raises(StrictJsonError) as refused:
        parse_strict(raw, max_depth=depth)
    assert refused.value.code == "too_deep"
    assert parse_strict(raw, max_depth=depth + 1) == json.loads(raw)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({}, True, id="an empty object"),
        pytest.param(
            {"a": "1.5", "b": True, "c": None, "d": SAFE_INTEGER_MAX, "e": -SAFE_INTEGER_MAX}, True, id="plain"
        ),
        pytest.param({"a": SAFE_INTEGER_MAX + 1}, False, id="a wide integer"),
        pytest.param({"a": -SAFE_INTEGER_MAX - 1}, False, id="a wide negative integer"),
        pytest.param({"a": 1.0}, False, id="a float"),
        pytest.param({"a": math.nan}, False, id="no number"),
        pytest.param({"a": []}, False, id="a list inside"),
        pytest.param({"a": {}}, False, id="an object inside"),
        pytest.param({1: "a"}, False, id="a key that is no text"),
        pytest.param([("a", "b")], False, id="a list"),
        pytest.param("a", False, id="a text"),
    ],
)
def test_value_is_flat_when_it_is_one_object_of_plain_values(value: object, expected: bool) -> None:
    assert is_flat(value) is expected


@pytest.mark.parametrize("number", ["0", "-1", "9223372036854775808", "18446744073709551615", "18446744073709551616"])
def test_parse_spelled_reads_as_the_quick_reader_does_when_a_number_with_a_point_stands_beside(number: str) -> None:
    value = parse_spelled(f'[{number}, 1.50, "2e1"]'.encode())
    assert value == orjson.loads(f'[{number}, 1.5, "2e1"]')
    assert isinstance(value, list)
    assert type(value[0]) is type(orjson.loads(number))
    assert [item.spelling for item in value if isinstance(item, SpelledNumber)] == ["1.50"]


def test_parse_spelled_refuses_when_a_number_is_beyond_a_double() -> None:
    with pytest.raises(orjson.JSONDecodeError):
        parse_spelled(b"[1e400]")
