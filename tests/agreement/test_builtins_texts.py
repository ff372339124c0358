"""The host's builtins over texts beside OPA's: a table of cases for each, and drawn operands."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from pdp.wasm.builtins.texts import BUILTINS
from pdp.wasm.builtins.values import RegoSet, Value
from tests.agreement.builtin_values import Operands, compare

WRONG: Sequence[Value] = (None, True, 0, Decimal("1.5"), [], {}, [1], {"a": 1}, ["a", None])
EVERY_OCTET = "".join(map(chr, range(128))) + "\x80é€\uffff😀\U0010ffff"

MATCHED: list[Operands] = [
    ("a/b/c", "a/"),
    ("a/b/c", ""),
    ("", ""),
    ("", "a"),
    ("a", "ab"),
    (["a/b/c", "e/f/g"], ["f/", "d/"]),
    (["a/b/c", "e/f/g"], ["b/", "e/f"]),
    (["a/b/c", "e/f/g"], ["/c", "x"]),
    (["aa/bb/cc", "aa/bb/dd"], ["b/cc"]),
    ([], ["a"]),
    (["a"], []),
    ([], []),
    (["a", ""], ["b", ""]),
    (["", "a"], ["z", "a"]),
    (["", ""], ["", "z"]),
    (["", "x"], ["z"]),
    (["a", "b"], "a"),
    ("b", ["a", "b"]),
    (["été", "日本"], ["日", "é"]),
    (["été", "日本"], ["本", "té"]),
    (["a\x00b"], ["a\x00"]),
    (["10.0.0.1", "10.1.0.1", "192.168.0.1"], ["172.", "192.168."]),
    (RegoSet.of(["a/b", "c/d"]), RegoSet.of(["c/", "x"])),
    (RegoSet.of(["a/b", "c/d"]), ["/d"]),
    (RegoSet(()), "a"),
    ("a/b", RegoSet.of(["a", "/b"])),
]

URIS: Sequence[str] = (
    "https://example.com:8080/api?q=1#top",
    "https://example.com/path",
    "https://example.com:443/path",
    "https://example.com?q=1#frag",
    "https://example.com",
    "https://example.com/",
    "https://example.com:/",
    "https://example.com:0080/a",
    "HTTPS://Example.COM./A",
    "https://example.com/path%2Fwith%2Fslashes",
    "https://example.com/plain/path",
    "https://example.com/a b/ü/%C3%BC",
    "https://example.com/a%21b%27%28%29%2Ac",
    "https://example.com/a!b'c(d)*e[f]",
    "https://example.com/%2e%2e/%2E./a//b",
    "https://example.com/%zz",
    "https://example.com/%",
    "https://example.com/%4",
    "https://example.com/?",
    "https://example.com/??",
    "https://example.com/?a?b#c#d",
    "https://example.com/?%zz",
    "https://example.com/#",
    "https://example.com/#%zz",
    "https://example.com/#a%20b",
    "https://example.com/#a\nb",
    "https://example.com/a\nb",
    "https://example.com/a\x7fb",
    "https://exam ple.com/",
    "https://example.com\\@evil.example/",
    "https://good.example@evil.example/",
    "https://ann:secret@example.com/",
    "https://ann:p@ss@example.com/",
    "https://ann%40:%zz@example.com/",
    "https://a<b@example.com/",
    "https://user name@example.com/",
    "https://@example.com/",
    "https://ü@example.com/",
    "https://:80/",
    "https://example.com:80a/",
    "https://example.com:-1/",
    "https://example.com:\u0663\u0664/",
    "https://bücher.example/",
    'https://a!"$&()*+,;<=>~_-b/',
    "https://a^b/",
    "https://a`b/",
    "https://a{b}/",
    "https://a|b/",
    "https:///a",
    "https:/a",
    "https:a/b?c#d",
    "https:",
    "https:?a",
    "//example.com/a",
    "///example.com/a",
    "////a",
    "/a/b?c#d",
    "a/b?c#d",
    "a:b/c",
    "./a:b/c",
    "1a:b",
    "1a/b:c",
    ":a",
    "*",
    "?a",
    "#a",
    " ",
    "a b",
    "mailto:ann@example.com",
    "urn:a:b",
    "data:text/plain,x",
    "file:///etc/passwd",
    "a+b-c.d://x/y",
    "-a://x/y",
    "é://x/y",
    "http://127.1/a",
    "http://0x7f.1/a",
)

TABLE: Mapping[str, list[Operands]] = {
    "strings.any_prefix_match": MATCHED,
    "strings.any_suffix_match": MATCHED,
    "strings.count": [
        ("cheese", "e"),
        ("aaaa", "aa"),
        ("", ""),
        ("five", ""),
        ("éé", ""),
        ("", "a"),
        ("a\x00a\x00", "\x00"),
        ("日本日本", "日"),
    ],
    "strings.split_n": [
        *(("a,b,c", ",", number) for number in (0, 1, 2, 3, 4, -1, -2, -3, -4, 2**63 - 1, -(2**63), 2**63, -(2**64))),
        *(("aébc", "", number) for number in (0, 1, 2, 4, 5, -1, -4, -9)),
        *(("", "", number) for number in (0, 1, -1)),
        *(("", ",", number) for number in (0, 1, -1)),
        *((",a,,b,", ",", number) for number in (1, 5, 9, -1, -2)),
        *(("aaa", "aa", number) for number in (1, 2, -1, -2)),
        *(("a,b", ",", number) for number in (Decimal("1.0"), Decimal("-1.00"), Decimal("1.5"), "1", None, True)),
        ("a--b--c", "--", 2),
        ("abc", "x", 1),
        ("abc", "x", -1),
    ],
    "indexof_n": [
        ("banana", "an"),
        ("aaaa", "aa"),
        ("aaaa", "aaaa"),
        ("a", "aa"),
        ("", "a"),
        ("a", ""),
        ("", ""),
        ("éaéaé", "é"),
        ("😀é😀", "😀"),
        ("日本", "本x"),
        ("a\x00b\x00", "\x00"),
    ],
    "hex.encode": [("",), ("lorem ipsum",), (EVERY_OCTET,)],
    "hex.decode": [
        *((text,) for text in ("", "6c6f72656d", "6C6F", "fghijkl", "6", "6c6", "6c ", " 6c", "6c\n6c", "c3a9", "00")),
        *((text,) for text in ("0x6c", "６c", "6é", "c3A9", "7F", "g0", "6 c")),
    ],
    "base64url.encode_no_pad": [("",), ("a",), ("ab",), ("abc",), ("\u00fb\u00ff??>>",), (EVERY_OCTET,)],
    "urlquery.encode": [("",), ("a=b+1",), ("a b",), ("a%20b",), ("~-_.!*'()",), (EVERY_OCTET,)],
    "urlquery.decode": [
        *(
            (text,)
            for text in ("", "a%3Db%2B1", "a+b", "%", "%4", "%zz", "%4g", "a%", "%C3%A9", "é", "%2b+", "%00", "%25")
        ),
        *((text,) for text in ("%+1", "%٣٣", "a;b&c", "%c3%a9", "% 1", "%\n41")),
    ],
    "urlquery.encode_object": [
        *((value,) for value in ({}, {"a": "b", "c": "d"}, {"a": "c=b+1"}, {"a": ["b+1", "c+2"]}, {"a": []}, {"": ""})),
        *((value,) for value in ({"b": "1", "a": ["2", "1"], "é": "ü", "Z": "", " ": "&"}, {"a": [], "b": "c"})),
        *(
            (value,)
            for value in (
                {"a": 1},
                {"a": ["b", 1]},
                {"a": None},
                {"a": {"b": "c"}},
                {"a": [["b"]]},
                {"a": "b", "c": True},
            )
        ),
        ({"a": RegoSet.of(["c", "b+1"]), "d": RegoSet(())},),
    ],
    "urlquery.decode_object": [
        *(
            (text,)
            for text in (
                "a=value_a1&b=value_b&a=value_a2",
                "a=value_a1&b",
                "",
                "&&",
                "=",
                "=a",
                "a=b=c",
                "a=b&",
                "a&a=",
            )
        ),
        *(
            (text,)
            for text in (
                "a;b",
                "a=b;c=d",
                "%3B=%3b",
                "a=%",
                "a=1&%zz=2",
                "%=1",
                "a+b=c+d",
                "é=ü",
                "%C3%A9=1&é=2",
                "?a=b",
            )
        ),
        ("&".join(["a=b"] * 10_000),),
    ],
    "glob.quote_meta": [("",), ("*.github.com",), (EVERY_OCTET,), ("\\*",), ("{a,b}[!c-d]?",)],
    "uri.parse": [("",), *((text,) for text in URIS)],
    "uri.is_valid": [("",), *((text,) for text in URIS), *((value,) for value in WRONG)],
}

DECLINED: Mapping[str, list[Operands]] = {
    "strings.split_n": [("a,b", ",", Decimal("2.00000000000000000000"))],
    "hex.decode": [("ff",), ("80",), ("c3",), ("eda080",)],
    "urlquery.decode": [("%ff",), ("%C3",)],
    "urlquery.decode_object": [("%ff=1",), ("a=%ff",), ("&".join(["a=b"] * 10_001),)],
    "uri.parse": [
        *(
            (text,)
            for text in ("http://[::1]:8080/path", "http://[invalid", "http://foo]bar/", "http://exa%6dple.com/")
        ),
        *(
            (text,)
            for text in ("http://a:1:2/", "postgres://a:1,b:2/c", "https://example.com/%ff", "https://example.com/#%ff")
        ),
    ],
    "uri.is_valid": [
        ("http://[::1]/",),
        ("http://[invalid",),
        ("http://a]/",),
        ("http://%C3%BC/",),
        ("http://a:1:2/",),
    ],
}


def wrong_calls(name: str) -> list[Operands]:
    """Each operand of a sound call replaced by what it must not be. Sets of other things OPA refuses to compile."""
    sound = TABLE[name][0]
    calls = [[*sound[:at], wrong, *sound[at + 1 :]] for at in range(len(sound)) for wrong in WRONG]
    return [call for call in calls if name != "urlquery.encode_object" or call != [{}]]


@pytest.mark.parametrize("name", sorted(BUILTINS))
def test_texts_are_answered_as_by_opa_when_called_as_in_the_table(opa_path: Path, name: str) -> None:
    found = compare(opa_path, name, BUILTINS[name], [*TABLE[name], *wrong_calls(name)])
    assert found.differing == []
    assert found.declined == []
    assert found.agreeing_count > 2


@pytest.mark.parametrize("name", sorted(DECLINED))
def test_texts_are_declined_when_equality_is_not_proved(opa_path: Path, name: str) -> None:
    assert compare(opa_path, name, BUILTINS[name], DECLINED[name]).declined == DECLINED[name]


PIECES = (
    "",
    "a",
    "b",
    "ab",
    "aa",
    "aba",
    "/",
    ",",
    ".",
    "é",
    "日本",
    "😀",
    "e\u0301",
    "\x00",
    " ",
    "%41",
    "%",
    "+",
    "&",
    "=",
)


def draw_text(random_: random.Random, pieces: Sequence[str] = PIECES) -> str:
    return "".join(random_.choice(pieces) for _ in range(random_.choice((0, 1, 1, 2, 3, 5, 9))))


def draw_texts(random_: random.Random) -> Value:
    if random_.random() < 0.3:
        return draw_text(random_)
    texts = [draw_text(random_) for _ in range(random_.choice((0, 1, 2, 2, 3, 6, 20)))]
    return RegoSet.of(texts) if random_.random() < 0.02 else texts


def draw_part(random_: random.Random, text: str) -> str:
    start, end = sorted(random_.randrange(len(text) + 1) for _ in range(2))
    return text[start : min(end, start + 3)] if random_.random() < 0.6 else draw_text(random_)


def draw_searched(random_: random.Random) -> Operands:
    text = draw_text(random_, random_.choice((PIECES, ("a", "b"), ("a",))))
    return text, draw_part(random_, text)


def draw_split(random_: random.Random) -> Operands:
    text, part = draw_searched(random_)
    return text, part, random_.choice((0, 1, 2, 3, 9, -1, -2, -9, Decimal("2.0"), random_.randrange(-(2**65), 2**65)))


def draw_parameters(random_: random.Random) -> Operands:
    return ({draw_text(random_): draw_texts(random_) for _ in range(random_.randrange(5))},)


def draw_hexadecimal(random_: random.Random) -> Operands:
    if random_.random() < 0.5:
        return (random_.choice((str, str.upper))(draw_text(random_).encode().hex()),)
    return (draw_text(random_, ("6", "c", "C3", "a9", "41", "7f", "0", "20", "g", " ", "\n", "é")),)


QUERY = ("a", "b", "=", "=", "&", "&", "+", "%20", "%26", "%3D", "%C3%A9", "%41", "é", "1", "?", "/")
URL_PARTS: Sequence[Sequence[str]] = (
    ("https:", "http:", "https:", "ftp:", "mailto:", "", "", "HTTP:", "1a:", ":", "a+b:", "é:", "a_b:", "a%41:"),
    ("//", "//", "//", "//", "/", "", "///", "\\\\"),
    ("", "", "", "", "", "ann@", "ann:pw@", "a%40b@", "%zz@", "a b@", "a@b@", ":@", "é@", "a\\@"),
    (
        "example.com",
        "Example.COM",
        "a.b-c_d",
        "",
        "10.0.0.1",
        "bücher.example",
        "a b",
        "a^b",
        "a!b",
        "a<b>",
        "[::1]",
        "a%41",
    ),
    ("", "", "", ":443", ":", ":8a", ":-1", ":1:2", ":٣"),
    (
        "",
        "/",
        "/a/b",
        "/a%2Fb",
        "/%21",
        "/a b",
        "/é",
        "/%C3%A9",
        "/%zz",
        "/../b",
        "//c",
        "/a:b",
        "/%ff",
        "/a%2fb%2F",
        "/;@&=+$,",
    ),
    ("", "", "?", "?a=b", "?%zz", "??", "?a b", "?é", "?a?b"),
    ("", "", "#", "#top", "#a%20b", "#%zz", "#a#b", "#é", "#\n", "#%21!"),
    ("", "", "", "", "", "", "\n", " ", "\x7f", "%", ":", "@"),
)


def draw_uri(random_: random.Random) -> Operands:
    text = "".join(random_.choice(part[:3] if random_.random() < 0.6 else part) for part in URL_PARTS)
    if random_.random() < 0.2:
        at = random_.randrange(len(text) + 1)
        text = (
            text[:at]
            + random_.choice(("/", ":", "@", "?", "#", "%", "%4", "[", "]", "\\", "\t", "é", '"', "'", "~"))
            + text[at:]
        )
    return (text,)


DRAWN: Mapping[str, Callable[[random.Random], Operands]] = {
    "strings.any_prefix_match": lambda random_: (draw_texts(random_), draw_texts(random_)),
    "strings.any_suffix_match": lambda random_: (draw_texts(random_), draw_texts(random_)),
    "strings.count": draw_searched,
    "strings.split_n": draw_split,
    "indexof_n": draw_searched,
    "hex.encode": lambda random_: (draw_text(random_),),
    "hex.decode": draw_hexadecimal,
    "base64url.encode_no_pad": lambda random_: (draw_text(random_),),
    "urlquery.encode": lambda random_: (draw_text(random_),),
    "urlquery.decode": lambda random_: (draw_text(random_, random_.choice((PIECES, QUERY))),),
    "urlquery.encode_object": draw_parameters,
    "urlquery.decode_object": lambda random_: (
        draw_text(random_, random_.choice((QUERY, (*QUERY, ";", "%"), PIECES))),
    ),
    "glob.quote_meta": lambda random_: (draw_text(random_, (*PIECES, *"*?[]{}!-\\^$()|")),),
    "uri.parse": draw_uri,
    "uri.is_valid": draw_uri,
}


def draw_call(random_: random.Random, name: str) -> Operands:
    call = DRAWN[name](random_)
    if random_.random() < 0.03 and not any(isinstance(operand, RegoSet) for operand in call):
        at = random_.randrange(len(call))
        return [*call[:at], random_.choice(WRONG), *call[at + 1 :]]
    return call


@pytest.mark.parametrize("name", sorted(BUILTINS))
def test_texts_are_answered_as_by_opa_when_calls_are_drawn(opa_path: Path, name: str) -> None:
    random_ = random.Random(f"2024 {name}")
    calls = [draw_call(random_, name) for _ in range(2000)]
    found = compare(opa_path, name, BUILTINS[name], calls)
    assert found.differing == []
    assert found.agreeing_count > 900
    assert len(found.declined) < 400


@pytest.mark.soak
@pytest.mark.parametrize("name", sorted(BUILTINS))
def test_texts_are_answered_as_by_opa_when_many_more_are_drawn(opa_path: Path, name: str) -> None:
    random_ = random.Random()
    for _ in range(20):
        found = compare(opa_path, name, BUILTINS[name], [draw_call(random_, name) for _ in range(2000)])
        assert found.differing == []
