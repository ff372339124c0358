"""Regular expressions without OPA: what is found, split and replaced, what is bounded, and what is declined."""

from __future__ import annotations

from decimal import Decimal

import pytest
import re2

from pdp.wasm.builtins.patterns import REFERENCES_MAX, RESULT_MAX_BYTES, SEARCHES_MAX, find_n, replace, split
from pdp.wasm.builtins.values import Declined, RegoSet, Undefined, Value

FOUND = {
    "all": ("a.", "paranormal", -1, ["ar", "an", "al"]),
    "the first ones": ("a.", "paranormal", 2, ["ar", "an"]),
    "none wanted": ("a.", "paranormal", 0, []),
    "none there": ("x", "paranormal", -1, []),
    "more wanted than there are": ("a.", "paranormal", 2**63 - 1, ["ar", "an", "al"]),
    "anchored": ("^a.", "abacad", -1, ["ab"]),
    "nothing, everywhere": ("", "ab", -1, ["", "", ""]),
    "nothing, but not behind a match": ("a*", "baac", -1, ["", "aa", ""]),
    "nothing between characters of several bytes": ("", "\u00e9\u20ac\U0001f600", -1, ["", "", "", ""]),
    "characters of several bytes": (".", "\u00e9\u20ac\U0001f600", -1, ["\u00e9", "\u20ac", "\U0001f600"]),
    "other cases beyond ASCII": ("(?i)k|s", "\u212a\u017f", -1, ["\u212a", "\u017f"]),
    "the leftmost alternative, not the longest": ("a|ab", "ab", -1, ["a"]),
}

PARTS = {
    "between": ("a", "banana", ["b", "n", "n", ""]),
    "nothing to split at": ("x", "ab", ["ab"]),
    "an empty text": ("x*", "", [""]),
    "an empty pattern": ("", "ab\u00e9", ["a", "b", "\u00e9"]),
    "an empty pattern and text": ("", "", []),
    "from the start": ("^a", "aba", ["", "ba"]),
    "at the end": ("a$", "aba", ["ab", ""]),
    "at the very end": ("$", "ab", ["ab"]),
    "characters of several bytes": ("\\s+", "\u00e9 \t\u20ac", ["\u00e9", "\u20ac"]),
}

REPLACED = {
    "each match": ("foo bar", "[a-z]+", "_", "_ _"),
    "anchored": ("foo", "^[a-z]", "F", "Foo"),
    "groups": ("ab", "(a)(b)", "$2$1", "ba"),
    "groups in braces": ("ab", "(a)", "${1}x", "axb"),
    "a group whose name goes on": ("ab", "(a)", "$1x", "b"),
    "a group that did not match": ("b", "(a)?b", "<$1>", "<>"),
    "a group that there is not": ("ab", "(a)", "<$2>", "<>b"),
    "a number with a zero before it": ("ab", "(a)", "<$01>", "<>b"),
    "a number far too large": ("ab", "(a)", "<$99999999999999999999>", "<>b"),
    "the whole match": ("ab", "a", "<$0>", "<a>b"),
    "a name": ("ab", "(?P<x>a)", "<$x|${x}>", "<a|a>b"),
    "a name that there is not": ("ab", "(?P<x>a)", "<$y>", "<>b"),
    "a dollar": ("ab", "a", "$$1", "$1b"),
    "a dollar without a name": ("ab", "a", "$-${", "$-${b"),
    "nothing, everywhere": ("\u00e9b", "", "-", "-\u00e9-b-"),
    "nothing, but not behind a match": ("baac", "a*", "x", "xbxcx"),
    "no match": ("ab", "x", "y", "ab"),
    "a character beyond ASCII behind two dollars": ("a", "a", "$$\u20ac", "$\u20ac"),
}

DECLINED_PATTERNS = {
    "invalid": "(",
    "refused": r"\B",
    "too large for RE2": r"(?i)(?:[^\x01ks\x03\x05][^\x02\x04\x06\x08s0k]){999}",
}

NO_TEXTS: dict[str, Value] = {
    "null": None,
    "a truth value": True,
    "a number": 1,
    "a list": ["a"],
    "an object": {"a": "a"},
    "a set": RegoSet(("a",)),
}

NO_COUNTS: dict[str, Value] = {
    "beyond 64 bits": 2**63,
    "below 64 bits": -(2**63) - 1,
    "a fraction": Decimal("1.5"),
    "a truth value": True,
    "a text": "1",
    "null": None,
}


@pytest.mark.parametrize(("pattern", "text", "number", "matches"), FOUND.values(), ids=FOUND.keys())
def test_find_n_gives_matches_when_looking_for(pattern: str, text: str, number: int, matches: Value) -> None:
    assert find_n(pattern, text, number) == matches


@pytest.mark.parametrize(("pattern", "text", "parts"), PARTS.values(), ids=PARTS.keys())
def test_split_gives_parts_when_splitting(pattern: str, text: str, parts: Value) -> None:
    assert split(pattern, text) == parts


@pytest.mark.parametrize(("text", "pattern", "template", "written"), REPLACED.values(), ids=REPLACED.keys())
def test_replace_gives_a_text_when_replacing(text: str, pattern: str, template: str, written: str) -> None:
    assert replace(text, pattern, template) == written


@pytest.mark.parametrize("value", NO_TEXTS.values(), ids=NO_TEXTS.keys())
def test_builtins_are_undefined_when_an_operand_is(value: Value) -> None:
    pairs: list[tuple[Value, Value]] = [(value, "a"), ("a", value)]
    for first, second in pairs:
        with pytest.raises(Undefined):
            split(first, second)
        with pytest.raises(Undefined):
            find_n(first, second, 1)
        with pytest.raises(Undefined):
            replace(first, second, "a")
    with pytest.raises(Undefined):
        replace("a", "a", value)


@pytest.mark.parametrize("number", NO_COUNTS.values(), ids=NO_COUNTS.keys())
def test_find_n_is_undefined_when_the_count_is(number: Value) -> None:
    with pytest.raises(Undefined):
        find_n("a", "a", number)


def test_find_n_declines_when_the_count_is_whole_and_written_otherwise() -> None:
    with pytest.raises(Declined):
        find_n("a", "a", Decimal("1.0"))


@pytest.mark.parametrize("pattern", DECLINED_PATTERNS.values(), ids=DECLINED_PATTERNS.keys())
def test_builtins_decline_when_a_pattern_is(pattern: str) -> None:
    with pytest.raises(Declined):
        split(pattern, "a")
    with pytest.raises(Declined):
        find_n(pattern, "a", 1)
    with pytest.raises(Declined):
        replace("a", pattern, "a")


@pytest.mark.parametrize("template", ["$\u00e9", "$1\u00e9", "${\u00e9}", "${1\u00e9"])
def test_replace_declines_when_a_name_goes_beyond_ascii(template: str) -> None:
    with pytest.raises(Declined):
        replace("a", "(a)", template)


def test_replace_declines_when_references_are_more_than_may_be() -> None:
    assert replace("a", "(a)", "$1" * REFERENCES_MAX) == "a" * REFERENCES_MAX
    with pytest.raises(Declined):
        replace("a", "(a)", "$1" * REFERENCES_MAX + "$$")


def test_builtins_decline_when_a_text_is_no_unicode() -> None:
    with pytest.raises(Declined):
        split("a", "\ud800")
    with pytest.raises(Declined):
        replace("a", "a", "\ud800")


def test_find_n_answers_when_searches_are_as_many_as_may_be() -> None:
    assert find_n("a", "a" * (SEARCHES_MAX - 1), -1) == ["a"] * (SEARCHES_MAX - 1)


@pytest.mark.parametrize("pattern", ["a", "a??", "\\b"])
def test_find_n_declines_when_searches_are_more_than_may_be(pattern: str) -> None:
    with pytest.raises(Declined):
        find_n(pattern, "a " * SEARCHES_MAX, -1)


def test_find_n_answers_when_a_match_of_few_is_wanted_of_many() -> None:
    assert find_n("a", "a" * (2 * SEARCHES_MAX), 3) == ["a", "a", "a"]


def test_replace_answers_when_the_result_is_as_long_as_may_be() -> None:
    template = "x" * (RESULT_MAX_BYTES // 100)
    assert replace("a" * 100, "a", template) == template * 100
    with pytest.raises(Declined):
        replace("a" * 100 + "b", "a", template)
    with pytest.raises(Declined):
        replace("b" + "a" * 100, "a", template)


LASTING = {
    "a loop that is looked along in vain by each search": ("(?:a*c|a)", "a" * 30_000),
    "a pattern too large for the text": ("(?:abc|[abc]{100}d){9}", "abc" * 100_000),
}

SHORT = {
    "a loop at the end": (r"\s+", "a  b " * 400, 800),
    "loops within, each of which ends soon": (
        r"[a-z0-9.]+@[a-z0-9.]+\.[a-z]{2,}",
        "a word, a.b@c.example " * 200,
        200,
    ),
    "a loop over few characters before many": (
        r"(?i)(?:secret|token)\s*[:=]\s*[^\s]+",
        "my token = hunter2; " * 200,
        200,
    ),
    "a loop that ends with the text": ("x*y|x", "x" * 600, 600),
}


@pytest.mark.parametrize(("pattern", "text"), LASTING.values(), ids=LASTING.keys())
def test_find_n_declines_when_there_is_much_work_for(pattern: str, text: str) -> None:
    with pytest.raises(Declined):
        find_n(pattern, text, -1)


@pytest.mark.parametrize(("pattern", "text", "matches_count"), SHORT.values(), ids=SHORT.keys())
def test_find_n_answers_when_there_is_little_work_for(pattern: str, text: str, matches_count: int) -> None:
    found = find_n(pattern, text, -1)
    assert isinstance(found, list)
    assert len(found) == matches_count


def test_builtins_say_nothing_when_re2_refuses_or_runs_out_of_memory(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Declined):
        split(DECLINED_PATTERNS["too large for RE2"], "a")
    assert find_n("(?i)(?:[^k][^s]){990}[ab]*a[ab]{12}c", "ab" * 50, -1) == []
    assert capfd.readouterr() == ("", "")


def test_builtins_keep_no_patterns_in_the_store_of_re2_when_they_read_one() -> None:
    split("a{17}", "a")
    assert re2._Regexp._make.cache_info().currsize == 0
