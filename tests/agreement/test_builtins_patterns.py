"""Regular expressions: the host finds, splits and replaces as OPA does, or declines the pattern."""

from __future__ import annotations

import random
from collections import Counter
from decimal import Decimal
from itertools import product
from pathlib import Path

import pytest

from bundles.pattern_syntax import PatternRefused, read_pattern, takes
from pdp.wasm.builtins.patterns import BUILTINS
from pdp.wasm.builtins.values import Value
from tests.agreement.builtin_values import Comparison, Operands, compare
from tests.agreement.pattern_operands import draw_pattern, draw_template, draw_text

PATTERNS = (
    *(
        "",
        "a",
        "a.",
        "z+",
        "a*",
        "a*?",
        "a+?",
        "a?",
        "a??",
        "b*a",
        "ab|a",
        "a|ab",
        "|a",
        "a|",
        "a||b",
        "()",
        "(a|b)(c?)",
    ),
    *(
        "^",
        "$",
        "^a",
        "a$",
        "^a$",
        "^$",
        r"\b",
        r"\ba",
        r"a\b",
        r"\Aa",
        "(?m)^",
        "(?m)$",
        "(?m)^a|b$",
        r"(?m)\Aa",
        "^a|b",
    ),
    *(".", "(?s).", "..", "[^a]", "[^\\n]", "(?s).*", ".*", ".+", "(?U)a+", "(?U)a+?", "(?i)k", "(?i)S", "(?i)[^k]"),
    *(r"(?i)\w", r"(?i)\W", r"(?i)[[:^lower:]]", r"\w+", r"\W+", r"\s+", r"\S+", r"\d", r"[\s\S]", "[^[:ascii:]]"),
    *(
        "a{2}",
        "a{2,}",
        "a{1,3}?",
        "a{0,2}",
        "(ab){2}",
        "a{,2}",
        "{",
        "a{",
        "a{x}",
        "}",
        "]",
        "[]a]",
        "[^]a]",
        "[a-]",
        "[-a]",
    ),
    *(
        "[a-c-e]",
        "[--a]",
        "[[a]",
        "[a^]",
        "[.]",
        r"\.",
        r"\/",
        r"\_",
        r"\x61",
        r"\x{61}",
        r"[\x61-\x63]",
        r"\a\f\v",
        r"\t",
    ),
    *("w(x*)y", "(a)(b)?(c)?", "(?P<name>a)|(?<n2>b)", "(?:a|(b))+", "((a)|b)+", "(?i:A)b", "(?i)a(?-i)B", "a(?i)b|C"),
    *("[a-z]+$", "^[a-z ]+$", "^[a-z]+", r"^[a-z]+\[[0-9]+\]$", "[abcdef]{2}", "(a+)(b+)", "(a*)(a*)", "(a*?)(a*)"),
)
TEXTS = (
    *(
        "",
        "a",
        "aa",
        "aaa",
        "ab",
        "ba",
        "abab",
        "abcabc",
        "b",
        "banana",
        "paranormal",
        "pizza",
        "foobar baz",
        "-wy-wxxy-",
    ),
    *(
        "a\na",
        "\n",
        "a\n",
        "\na",
        "a\nb\n\na",
        "kK\u212asS\u017f",
        "\u00e9",
        "a\u00e9a",
        "\u00e9a\u00e9",
        "\u20ac\u20ac",
    ),
    *(
        "\U0001f600a\U0001f600",
        "a b  c\t",
        " a ",
        "a{2}",
        "a{,2}",
        "{}[]-^_/.",
        "\x00",
        "a\x00a",
        "\x07\f\v",
        "\ufffd\u2028",
    ),
)
TEMPLATES = (
    *(
        "",
        "x",
        "$",
        "$$",
        "$$$",
        "$0",
        "$1",
        "${1}",
        "$1x",
        "${1}x",
        "$1$1",
        "$2$1",
        "$9",
        "$10",
        "$00",
        "$01",
        "${01}",
    ),
    *(
        "$name",
        "${name}",
        "$n2",
        "$nam",
        "$name_",
        "$a",
        "$_",
        "${",
        "${1",
        "${}",
        "${1 }",
        "$ 1",
        "$-",
        "a$",
        "\\1",
        "%1",
    ),
    *(
        "$99999999",
        "$100000000",
        "$99999999999999999999",
        "\u20ac",
        "$$\u20ac",
        "$1 \u20ac",
        "$1-\u20ac",
        "a\u00e9$1",
        "\x00",
    ),
)
DOUBTFUL_TEMPLATES = ("$\u00e9", "$1\u00e9", "${\u00e9}", "${1\u00e9}", "$\u20ac", "$a\u0301")

REFUSED = {
    "an open group": "(",
    "a closed group": ")",
    "an open class": "[a",
    "an empty class": "[]",
    "a backslash at the end": "a\\",
    "nothing to repeat": "*a",
    "two repetitions": "a**",
    "three question marks": "a???",
    "a repetition in possession": "a++",
    "a thousand and one": "a{1001}",
    "nested thousands": "(a{100}){100}",
    "counts in the wrong order": "a{2,1}",
    "a repetition of none": "a{0}",
    "a range that goes down": "[c-a]",
    "a class as an end of a range": r"[a-\d]",
    "an unknown named class": "[[:foo:]]",
    "an unknown escape": r"\y",
    "a reference": r"(a)\1",
    "looking ahead": "(?=a)",
    "looking behind": "(?<=a)",
    "an unknown flag": "(?x)a",
    "two groups of one name": "(?P<a>b)(?P<a>c)",
    "a class of Unicode": r"\pL",
    "any byte": r"\C",
    "a quoted text": r"\Qa\E",
    "the end of the text": r"a\z",
    "no boundary of a word": r"\B",
    "octal digits": r"\101",
    "a NUL": r"\x00",
    "a character beyond ASCII": "\u00e9",
    "a character beyond ASCII by its number": r"\x{e9}",
    "a line": "a\nb",
    "a loop over nothing": "(a*)*",
    "a class without characters": r"[^\s\S]",
    "a pattern without end": "a" * 1001,
    "groups without end": "(" * 60 + ")" * 60,
}
WRONG: tuple[Value, ...] = (None, True, 1, Decimal("1.5"), ["a"], {"a": "a"})
COUNTS: tuple[Value, ...] = (-1, -5, 0, 1, 2, 3, 100, 2**63 - 1, -(2**63))
NO_COUNTS: tuple[Value, ...] = (2**63, -(2**63) - 1, 10**30, Decimal("1.5"), Decimal("0.5"), "1", None, True, [1], {})


def _clean(found: Comparison) -> bool:
    return (found.differing, found.declined, found.undefined_count) == ([], [], 0)


def test_split_answers_as_opa_when_patterns_are_read(opa_path: Path) -> None:
    assert _clean(compare(opa_path, "regex.split", BUILTINS["regex.split"], list(product(PATTERNS, TEXTS))))


def test_find_n_answers_as_opa_when_patterns_are_read(opa_path: Path) -> None:
    calls = [
        (pattern, text, COUNTS[number % len(COUNTS)]) for number, (pattern, text) in enumerate(product(PATTERNS, TEXTS))
    ]
    assert _clean(compare(opa_path, "regex.find_n", BUILTINS["regex.find_n"], calls))


def test_replace_answers_as_opa_when_patterns_are_read(opa_path: Path) -> None:
    calls = [(text, pattern, "<$0|$1>") for pattern, text in product(PATTERNS, TEXTS)]
    groups = ("(a)(b)?(c)?", "(?P<name>a)|(?<n2>b)", "a", "((a)|b)+", "", "(b*)")
    calls += [
        (text, pattern, template) for text, pattern, template in product(("abcab", "", "\u00e9a"), groups, TEMPLATES)
    ]
    assert _clean(compare(opa_path, "regex.replace", BUILTINS["regex.replace"], calls))


def test_replace_declines_when_a_name_goes_beyond_ascii(opa_path: Path) -> None:
    calls: list[Operands] = [("a", "(a)", template) for template in DOUBTFUL_TEMPLATES]
    assert compare(opa_path, "regex.replace", BUILTINS["regex.replace"], calls).declined == calls


@pytest.mark.parametrize("number", NO_COUNTS, ids=repr)
def test_find_n_is_undefined_as_in_opa_when_the_count_is(opa_path: Path, number: Value) -> None:
    found = compare(opa_path, "regex.find_n", BUILTINS["regex.find_n"], [("a", "aa", number)])
    assert (found.differing, found.undefined_count) == ([], 1)


def test_builtins_are_undefined_as_in_opa_when_operands_are_no_texts(opa_path: Path) -> None:
    twos = [(wrong, "a") for wrong in WRONG] + [("a", wrong) for wrong in WRONG]
    calls: dict[str, list[Operands]] = {
        "regex.split": list(twos),
        "regex.find_n": [(*two, 1) for two in twos],
        "regex.replace": [*((*two, "a") for two in twos), *(("a", "a", wrong) for wrong in WRONG)],
    }
    for name, operands in calls.items():
        found = compare(opa_path, name, BUILTINS[name], operands)
        assert (found.differing, found.undefined_count) == ([], len(operands))


@pytest.mark.parametrize("pattern", REFUSED.values(), ids=REFUSED.keys())
def test_builtins_decline_when_a_pattern_has(opa_path: Path, pattern: str) -> None:
    found = compare(opa_path, "regex.split", BUILTINS["regex.split"], [(pattern, "a")])
    assert len(found.declined) == 1


def _compare_drawn(opa: Path, seed: int, patterns_count: int) -> Counter[str]:
    """How calls of drawn patterns end; a pattern that is refused is drawn once more, but some stay."""
    source = random.Random(seed)
    endings = Counter[str]()
    patterns = [_draw_read(source) for _ in range(patterns_count)]
    pairs = [(pattern, draw_text(source, pattern)) for pattern in patterns for _ in range(4)]
    calls: dict[str, list[Operands]] = {
        "regex.split": list(pairs),
        "regex.find_n": [(*pair, source.choice((-1, -1, 0, 1, 2, 3))) for pair in pairs],
        "regex.replace": [
            (text, pattern, source.choice(("<$0>", "<$1|$2>", draw_template(source)))) for pattern, text in pairs
        ],
    }
    for name, operands in calls.items():
        found = compare(opa, name, BUILTINS[name], operands)
        assert found.differing == []
        assert all(_is_outside(name, declined) for declined in found.declined)
        endings += Counter(agreeing=found.agreeing_count, declined=len(found.declined), undefined=found.undefined_count)
    return endings


def _draw_read(source: random.Random) -> str:
    pattern = draw_pattern(source)
    return draw_pattern(source) if _is_refused(pattern) else pattern


def _is_refused(pattern: str) -> bool:
    try:
        read_pattern(pattern)
    except PatternRefused:
        return True
    return False


def _is_outside(name: str, operands: Operands) -> bool:
    """Whether a call may be declined: for its pattern, or for its template."""
    if name != "regex.replace":
        return _is_refused(str(operands[0]))
    return _is_refused(str(operands[1])) or not str(operands[2]).isascii()


def test_patterns_agree_with_opa_when_drawn(opa_path: Path) -> None:
    endings = _compare_drawn(opa_path, 61, 350)
    assert endings["agreeing"] > 3500
    assert endings["undefined"] == 0


def test_matches_are_made_of_what_patterns_take_when_drawn() -> None:
    source = random.Random(62)
    matched = 0
    for _ in range(1500):
        pattern = _draw_read(source)
        if _is_refused(pattern):
            continue
        shape = read_pattern(pattern)
        found = BUILTINS["regex.find_n"](pattern, draw_text(source, pattern), -1)
        assert isinstance(found, list)
        taken = {byte for match in found for byte in match.encode()}
        assert all(takes(shape.characters, byte) for byte in taken), pattern
        matched += bool(taken)
    assert matched > 350


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_patterns_agree_with_opa_when_many_are_drawn(opa_path: Path) -> None:
    for seed in range(63, 83):
        assert _compare_drawn(opa_path, seed, 350)["undefined"] == 0
