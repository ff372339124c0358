"""What the builtins over texts answer, refuse and leave open. The same against OPA: ``tests/agreement``."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pdp.wasm.builtins.texts import BUILTINS, COMPARED_MAX, MEMBERS_MAX, PARAMETERS_MAX
from pdp.wasm.builtins.values import Declined, RegoSet, Undefined, Value

Call = tuple[str, tuple[Value, ...]]

URL = "HTTPS://ann:pw@Example.com:8443/a%2Fb/c%20d?q=1&r=%zz#t%C3%BCr"

ANSWERED: dict[str, tuple[str, tuple[Value, ...], Value]] = {
    "a prefix alone": ("strings.any_prefix_match", ("a/b", "a/"), True),
    "a prefix among many": ("strings.any_prefix_match", (["x", "a/b"], ["b", "a/"]), True),
    "a prefix in sets": ("strings.any_prefix_match", (RegoSet(("b", "a/b")), RegoSet(("a/", "c"))), True),
    "no prefix": ("strings.any_prefix_match", (["x", "a/b"], ["b", "z"]), False),
    "no texts for a prefix": ("strings.any_prefix_match", ([], ["a"]), False),
    "a suffix": ("strings.any_suffix_match", (["b.com", "é.org"], [".net", "é.org"]), True),
    "no suffix": ("strings.any_suffix_match", ("b.com", "b"), False),
    "a count without overlaps": ("strings.count", ("aaaa", "aa"), 2),
    "a count of nothing": ("strings.count", ("éé", ""), 3),
    "the first pieces": ("strings.split_n", ("a,b,c", ",", 2), ["a", "b"]),
    "more pieces than there are": ("strings.split_n", ("a,b", ",", 2**63 - 1), ["a", "b"]),
    "the last pieces": ("strings.split_n", ("a,b,c", ",", -2), ["b", "c"]),
    "the last characters": ("strings.split_n", ("aéb", "", -2), ["é", "b"]),
    "the first characters": ("strings.split_n", ("aéb", "", Decimal("2.0")), ["a", "é"]),
    "no pieces": ("strings.split_n", ("a", ",", 0), []),
    "positions that overlap": ("indexof_n", ("éaaa", "aa"), [1, 2]),
    "no position": ("indexof_n", ("abc", "x"), []),
    "hexadecimal digits": ("hex.encode", ("é/",), "c3a92f"),
    "a text from hexadecimal digits": ("hex.decode", ("C3a9",), "é"),
    "base64 without its end": ("base64url.encode_no_pad", ("é>?a",), "w6k-P2E"),
    "a part of a query": ("urlquery.encode", ("a=b+1 ~é",), "a%3Db%2B1+~%C3%A9"),
    "a text from a part of a query": ("urlquery.decode", ("a%3Db%2B1+%c3%A9",), "a=b+1 é"),
    "a query": (
        "urlquery.encode_object",
        ({"b": "1", "a": ["2", "&"], "c": RegoSet(("z", "y")), "d": []},),
        "a=2&a=%26&b=1&c=y&c=z",
    ),
    "parameters": ("urlquery.decode_object", ("a=1&b&&a=%3B+&=x",), {"a": ["1", "; "], "b": [""], "": ["x"]}),
    "no parameters": ("urlquery.decode_object", ("",), {}),
    "a pattern for one text": ("glob.quote_meta", ("*.a?[b]{c}\\-",), "\\*.a\\?\\[b\\]\\{c\\}\\\\-"),
    "a URL with everything": (
        "uri.parse",
        (URL,),
        {
            "scheme": "https",
            "hostname": "Example.com",
            "port": "8443",
            "path": "/a/b/c d",
            "raw_path": "/a%2Fb/c%20d",
            "raw_query": "q=1&r=%zz",
            "fragment": "tür",
        },
    ),
    "a path that Go would write alike": ("uri.parse", ("/a%21b",), {"path": "/a!b", "raw_path": "/a!b"}),
    "a URL without a host": ("uri.parse", ("mailto:ann@example.com?a",), {"scheme": "mailto", "raw_query": "a"}),
    "a host without a scheme": ("uri.parse", ("//a",), {"hostname": "a"}),
    "a path that looks like a host": ("uri.parse", ("///a",), {"path": "///a", "raw_path": "///a"}),
    "a host that stands after a name": (
        "uri.parse",
        ("http://good.example@evil.example",),
        {"scheme": "http", "hostname": "evil.example"},
    ),
    "an empty URL": ("uri.parse", ("",), {}),
    "a URL": ("uri.is_valid", (URL,), True),
    "octets that are no text in a URL": ("uri.is_valid", ("/%ff",), True),
    "no URL": ("uri.is_valid", ("http://a b/",), False),
    "an empty text as URL": ("uri.is_valid", ("",), False),
    "a number as URL": ("uri.is_valid", (1,), False),
}


@pytest.mark.parametrize(("name", "operands", "expected"), ANSWERED.values(), ids=ANSWERED.keys())
def test_texts_are_answered_when_given(name: str, operands: tuple[Value, ...], expected: Value) -> None:
    assert BUILTINS[name](*operands) == expected


UNDEFINED: dict[str, Call] = {
    "prefixes of a number": ("strings.any_prefix_match", (1, "a")),
    "a prefix that is null": ("strings.any_prefix_match", ("a", None)),
    "suffixes among which is a number": ("strings.any_suffix_match", ("a", ["a", 1])),
    "a set with a number": ("strings.any_suffix_match", (RegoSet(("a", 1)), "a")),
    "an object of texts": ("strings.any_prefix_match", ({"a": "b"}, "a")),
    "a count in a number": ("strings.count", (1, "a")),
    "a text as number of pieces": ("strings.split_n", ("a", ",", "1")),
    "a boolean as number of pieces": ("strings.split_n", ("a", ",", True)),
    "a fraction as number of pieces": ("strings.split_n", ("a", ",", Decimal("1.5"))),
    "a number of pieces beyond 64 bits": ("strings.split_n", ("a", ",", 2**63)),
    "a number of pieces below 64 bits": ("strings.split_n", ("a", ",", -(2**63) - 1)),
    "an empty text that is searched": ("indexof_n", ("a", "")),
    "an odd number of digits": ("hex.decode", ("6c6",)),
    "digits with a space": ("hex.decode", ("6c 6c",)),
    "digits of another alphabet": ("hex.decode", ("６c",)),
    "hexadecimal of a number": ("hex.encode", (1,)),
    "an escape without digits": ("urlquery.decode", ("a%",)),
    "an escape with one digit": ("urlquery.decode", ("%4z",)),
    "a query of an array": ("urlquery.encode_object", (["a"],)),
    "a query with a number": ("urlquery.encode_object", ({"a": 1},)),
    "a query with an array of arrays": ("urlquery.encode_object", ({"a": [["b"]]},)),
    "a semicolon in a query": ("urlquery.decode_object", ("a=1&b;c",)),
    "an escape without digits in a query": ("urlquery.decode_object", ("a=%ff&b=%",)),
    "a pattern for null": ("glob.quote_meta", (None,)),
    "a URL that is a number": ("uri.parse", (1,)),
    "a control character in a URL": ("uri.parse", ("http://a/\n",)),
    "a URL without its scheme": ("uri.parse", ("://a",)),
    "a colon in a relative path": ("uri.parse", ("1a:b",)),
    "a space in a host": ("uri.parse", ("http://a b/",)),
    "a backslash in a host": ("uri.parse", ("http://a\\@b/",)),
    "an escape without digits before a host": ("uri.parse", ("http://%zz@a/",)),
    "letters in a port": ("uri.parse", ("http://a:8a/",)),
    "digits of another alphabet in a port": ("uri.parse", ("http://a:٣/",)),
    "an escape without digits in a path": ("uri.parse", ("http://a/%4",)),
    "an escape without digits in a fragment": ("uri.parse", ("http://a/#%",)),
}


@pytest.mark.parametrize(("name", "operands"), UNDEFINED.values(), ids=UNDEFINED.keys())
def test_texts_are_undefined_when_given(name: str, operands: tuple[Value, ...]) -> None:
    with pytest.raises(Undefined):
        BUILTINS[name](*operands)


DECLINED: dict[str, Call] = {
    "a number of pieces with an exponent": ("strings.split_n", ("a", ",", Decimal("1E+1"))),
    "a number of pieces that lost its exponent": ("strings.split_n", ("a", ",", Decimal("5E0"))),
    "a number of pieces with many digits": ("strings.split_n", ("a", ",", Decimal(f"1.{'0' * 18}"))),
    "too many pieces": ("strings.split_n", ("," * MEMBERS_MAX, ",", MEMBERS_MAX + 1)),
    "too many characters": ("strings.split_n", ("a" * (MEMBERS_MAX + 1), "", -(2**63))),
    "too many positions": ("indexof_n", ("a" * (MEMBERS_MAX + 1), "a")),
    "positions that take too long": ("indexof_n", ("a" * 10_000, "a" * 5_000)),
    "octets that are no text": ("hex.decode", ("ff",)),
    "octets of half a pair": ("hex.decode", ("eda080",)),
    "an escaped octet that is no text": ("urlquery.decode", ("%ff",)),
    "a parameter's name that is no text": ("urlquery.decode_object", ("%ff=1",)),
    "a parameter that is no text": ("urlquery.decode_object", ("a=%ff",)),
    "too many parameters": ("urlquery.decode_object", ("&" * PARAMETERS_MAX,)),
    "a text that is no Unicode": ("urlquery.encode", ("\ud800",)),
    "a path that is no text": ("uri.parse", ("http://a/%ff",)),
    "a host in brackets": ("uri.parse", ("http://[::1]/",)),
    "a host with an escape": ("uri.is_valid", ("http://%C3%BC/",)),
    "a host with two colons": ("uri.is_valid", ("http://a:1:2/",)),
}


@pytest.mark.parametrize(("name", "operands"), DECLINED.values(), ids=DECLINED.keys())
def test_texts_are_declined_when_given(name: str, operands: tuple[Value, ...]) -> None:
    with pytest.raises(Declined):
        BUILTINS[name](*operands)


def test_texts_are_answered_when_everything_is_at_its_limit() -> None:
    assert len(BUILTINS["strings.split_n"]("," * MEMBERS_MAX, ",", MEMBERS_MAX)) == MEMBERS_MAX
    assert len(BUILTINS["strings.split_n"]("," * MEMBERS_MAX, ",", -MEMBERS_MAX)) == MEMBERS_MAX
    assert len(BUILTINS["indexof_n"]("a" * MEMBERS_MAX, "a")) == MEMBERS_MAX
    long = COMPARED_MAX // 100
    assert BUILTINS["indexof_n"]("a" * (long + 99), "a" * long) == list(range(100))
    assert BUILTINS["urlquery.decode_object"]("&" * (PARAMETERS_MAX - 1)) == {}
    assert BUILTINS["strings.split_n"]("a", ",", Decimal(f"1.{'0' * 17}")) == ["a"]
