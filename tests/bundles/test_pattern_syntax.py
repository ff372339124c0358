"""Patterns that Go and RE2 read alike: what is read of them, and what is refused."""

from __future__ import annotations

import pytest

from bundles.pattern_syntax import (
    COPIES_MAX,
    NESTING_MAX,
    PATTERN_MAX_CHARACTERS,
    STEPS_MAX,
    PatternRefused,
    read_pattern,
    takes,
)

READ = (
    *(
        "",
        "a",
        "^a$",
        r"\Aa\b",
        "a|b|",
        "|",
        "()",
        "(a)(?:b)(?P<name>c)(?<n2>d)",
        "(?i)a",
        "(?i-s:a)",
        "(?-m)a",
        "(?imsU)a",
    ),
    *("a*", "a+?", "a??", "(ab)*", "a{3}", "a{3}?", "a{3,}", "a{0,}", "a{0,5}", "a{1000}", "(a{100}){10}", "(a*)?"),
    *(
        "{",
        "a{",
        "a{,3}",
        "a{x}",
        "}",
        "]",
        "a{2}b{3}",
        ".",
        r"\.\*\\\/\_\-",
        r"\a\f\n\r\t\v",
        r"\x41\x{41}\x{0000041}",
    ),
    *(
        "[a]",
        "[]a]",
        "[^]a]",
        "[a-z-]",
        "[-a]",
        "[a-c-e]",
        "[[]",
        r"[\]\-\\]",
        r"[\d\W]",
        "[[:alpha:][:^digit:]]",
        r"[\x41-\x5a]",
    ),
)

REFUSED = {
    "a character beyond ASCII": "\u00e9",
    "a line": "a\nb",
    "a NUL": "a\u0000",
    "a NUL by its number": r"\x00",
    "a NUL in braces": r"\x{0}",
    "a character beyond ASCII by its number": r"\x80",
    "a character beyond ASCII in braces": r"\x{100}",
    "a number that ends early": r"\x4",
    "a number that is none": r"\x{4g}",
    "octal digits": r"\101",
    "a zero": r"\0",
    "a reference": r"(a)\1",
    "a class of Unicode": r"\pL",
    "a class of others of Unicode": r"[\PL]",
    "any byte": r"\C",
    "a quoted text": r"\Qa\E",
    "the end of the text": r"a\z",
    "no boundary of a word": r"\B",
    "a boundary of a word in a class": r"[\b]",
    "an unknown escape": r"\y",
    "a backslash at the end": "a\\",
    "a backslash at the end of a class": "[a\\",
    "an open group": "(a",
    "an open group within": "((a)",
    "a closed group": "a)",
    "an open class": "[a",
    "an open class with a range": "[a-",
    "an empty class": "[]",
    "an empty class of others": "[^]",
    "an unknown named class": "[[:foo:]]",
    "an open named class": "[[:alpha]",
    "a range that goes down": "[c-a]",
    "a range to a class": r"[a-\d]",
    "a range to a named class": "[a-[:digit:]]",
    "nothing to repeat": "*a",
    "nothing to repeat with a count": "{2}",
    "nothing to repeat in a group": "(+a)",
    "nothing to repeat behind a bar": "a|?",
    "nothing to repeat behind flags": "a(?i)*",
    "a repeated start": "^*a",
    "a repeated end": "a${2}",
    "a repeated boundary": r"\b+",
    "two repetitions": "a**",
    "two counts": "a{2}{3}",
    "a repetition in possession": "a++",
    "three question marks": "a???",
    "none": "a{0}",
    "none at most": "a{0,0}",
    "over a thousand": f"a{{{COPIES_MAX + 1}}}",
    "over a thousand at least": f"a{{{COPIES_MAX + 1},}}",
    "over a thousand at most": f"a{{1,{COPIES_MAX + 1}}}",
    "a count of many digits": "a{10000}",
    "a count with a zero before it": "a{01}",
    "a count that goes on": "a{1,x}",
    "an open count": "a{1",
    "counts that go down": "a{3,2}",
    "over a thousand copies by nesting": "(?:a{50}){21}",
    "a loop over nothing": "(a*)*",
    "a loop over a place": "(^)+",
    "a loop over an empty choice": "(a|)*",
    "a loop over an empty group": "()*",
    "a count over nothing": "(a?){2}",
    "looking ahead": "(?=a)",
    "looking behind": "(?<=a)",
    "no capture of its own": "(?>a)",
    "a comment": "(?#a)",
    "a conditional": "(?(1)a)",
    "no flags": "(?)a",
    "no flags to take away": "(?i-)a",
    "an unknown flag": "(?x)a",
    "flags that end early": "(?i",
    "a name with a sign": "(?P<a-b>c)",
    "a name that begins with a digit": "(?P<1>c)",
    "an empty name": "(?P<>c)",
    "a name used twice": "(?P<a>b)(?P<a>c)",
    "a reference to a name": "(?P<a>b)(?P=a)",
    "a class without characters": r"[^\s\S]",
    "a class without characters in any case": r"(?i)[^\w\W]",
}


@pytest.mark.parametrize("pattern", READ)
def test_patterns_are_read_when_go_and_re2_read_them_alike(pattern: str) -> None:
    assert read_pattern(pattern).steps <= STEPS_MAX


@pytest.mark.parametrize("pattern", REFUSED.values(), ids=REFUSED.keys())
def test_patterns_are_refused_when_they_have(pattern: str) -> None:
    with pytest.raises(PatternRefused):
        read_pattern(pattern)


AT_THE_LIMIT = {
    "characters": ("a" * PATTERN_MAX_CHARACTERS, "a" * (PATTERN_MAX_CHARACTERS + 1)),
    "nesting": ("(" * NESTING_MAX + ")" * NESTING_MAX, "(" * (NESTING_MAX + 1) + ")" * (NESTING_MAX + 1)),
    "steps of a repetition": ("(?:ab){1000}", "(?:abc){1000}"),
    "steps of repetitions one after another": ("a{1000}b{1000}", "a{1000}b{1000}c"),
    "copies": ("(?:a{100}){10}", "(?:a{100}){11}"),
    "copies with loops between": ("(?:(?:a{100})+){10}", "(?:(?:a{100})+){11}"),
}


@pytest.mark.parametrize(("within", "beyond"), AT_THE_LIMIT.values(), ids=AT_THE_LIMIT.keys())
def test_patterns_are_refused_when_past_the_limit_of(within: str, beyond: str) -> None:
    read_pattern(within)
    with pytest.raises(PatternRefused):
        read_pattern(beyond)


def test_groups_are_counted_when_they_capture() -> None:
    shape = read_pattern("(a)(?:b)(?P<x>c((?i:d)))(?<y>e)")
    assert (shape.groups, shape.names) == (4, {"x": 2, "y": 4})


CHARACTERS = {
    "a letter": ("a", "a"),
    "a letter in any case": ("(?i)a", "Aa"),
    "a letter that has a case beyond ASCII": ("(?i)k", "Kk\u212a"),
    "the other such letter": ("(?i)S", "Ss\u017f"),
    "flags hold to the end of their group": ("(a(?i)b|c)d", "aBbCcd"),
    "flags hold in their group": ("(?i:a)b", "Aab"),
    "flags are taken away": ("(?i)a(?-i)b", "Aab"),
    "a range": ("[a-c]", "abc"),
    "a range in any case": ("(?i)[x-z]", "XYZxyz"),
    "what is escaped": (r"\.\n\x41\x{62}", ".\nAb"),
    "members that look like others": ("[]^-]", "]^-"),
    "a minus behind a range": ("[a-c-]", "abc-"),
    "a minus before a class": (r"[-\d]", "-0123456789"),
    "a named class": ("[[:xdigit:]]", "0123456789ABCDEFabcdef"),
    "places take nothing": (r"^a\b$", "a"),
    "all alternatives": ("a|(b|c)*", "abc"),
    "others than a class": (r"[^\W\d_]", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
}


@pytest.mark.parametrize(("pattern", "characters"), CHARACTERS.values(), ids=CHARACTERS.keys())
def test_patterns_take_no_other_characters_when_they_have(pattern: str, characters: str) -> None:
    shape = read_pattern(pattern)
    taken = {byte for byte in range(256) if takes(shape.characters, byte)}
    ascii_only = {ord(character) for character in characters if character.isascii()}
    assert taken == ascii_only | (set() if characters.isascii() else set(range(0x80, 256)))


@pytest.mark.parametrize(
    ("pattern", "left_out"),
    [
        (".", "\n"),
        ("(?s).", ""),
        ("[^a]", "a"),
        (r"\D", "0123456789"),
        ("(?i)[^k]", "Kk"),
        (r"(?i)\W", None),
        ("[[:^ascii:]]", None),
    ],
)
def test_patterns_take_characters_beyond_ascii_when_they_take_others(pattern: str, left_out: str | None) -> None:
    shape = read_pattern(pattern)
    assert takes(shape.characters, 0xE2)
    if left_out is not None:
        assert [chr(byte) for byte in range(128) if not takes(shape.characters, byte)] == list(left_out)


LOOPS = {
    "no loop": ("ab{5}|c", ""),
    "a loop at the end": ("ab*", ""),
    "a loop before what may be nothing": ("ab*c*d?", ""),
    "a loop before more": ("a*b", "a"),
    "a loop before a place": (r"a*\b", "a"),
    "a loop in an alternative": ("(?:a*b|c)", "a"),
    "a loop that ends an alternative": ("(?:a*|b)", ""),
    "a loop that ends an alternative before more": ("(?:a*|b)c", "a"),
    "a loop over a loop at the end": ("(?:ab*)*", ""),
    "a loop over a loop before more": ("(?:a*b)*", "a"),
    "a loop in all but the last copies": ("(?:ab*){2}", "b"),
    "a loop in copies that may be left out": ("(?:ab*){0,2}", ""),
    "a count without an end": ("a{3,}b", "a"),
    "several loops": (r"[ab]+@[bc]+\.d+", "abc"),
}


@pytest.mark.parametrize(("pattern", "characters"), LOOPS.values(), ids=LOOPS.keys())
def test_patterns_loop_before_the_match_can_end_when_they_have(pattern: str, characters: str) -> None:
    loops = read_pattern(pattern).loops
    assert "".join(chr(byte) for byte in range(128) if takes(loops, byte)) == characters
