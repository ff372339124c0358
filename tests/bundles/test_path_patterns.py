"""Patterns of path parameters match what they say, in linear time, or do not build."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundles.errors import BundleRefused
from bundles.path_patterns import PATTERN_MAX_CHARACTERS, path_pattern

LENGTH = 60_000
PROCESSOR_SECONDS = 2.0

QUICK = [
    "[0-9]{1,20}",
    "[1-9][0-9]{0,9}",
    r"v1\.[0-9]+\.json",
    "[^/]+",
    "x{3}y*",
    r"\d+",
    r"[\w.]+",
    ".+",
    "abc",
    r"[A-Z]{3}-?[0-9]{4}",
]
SLOW_ELSEWHERE = [
    "(a+)+",
    "(a|a)*",
    "(a|aa)+",
    "a*a*a*a*",
    "(?:a?){30}a{30}",
    "(.*)(.*)(.*)x",
    "[a-z]*[a-z0-9]*[a-z_]*!",
]


@pytest.mark.parametrize("pattern", QUICK)
def test_pattern_with_one_variable_part_stays_with_the_quick_engine(pattern: str) -> None:
    assert isinstance(path_pattern(pattern), re.Pattern)


@pytest.mark.parametrize(
    "pattern", [*SLOW_ELSEWHERE, "a|b", "a+?", "(?s:.+)", "[a-z]+(/[a-z]+)*", r"\bfoo+", "^a+", "a+$"]
)
def test_every_other_pattern_goes_to_the_linear_engine(pattern: str) -> None:
    assert not isinstance(path_pattern(pattern), re.Pattern)


@pytest.mark.parametrize("pattern", [*QUICK, *SLOW_ELSEWHERE])
@pytest.mark.parametrize("piece", ["a", "1", "aa0", ".", "/"])
def test_matching_takes_linear_time_whatever_the_pattern(pattern: str, piece: str) -> None:
    compiled = path_pattern(pattern)
    began = time.process_time()
    compiled.fullmatch(piece * (LENGTH // len(piece)) + "\n")
    assert time.process_time() - began < PROCESSOR_SECONDS


@given(
    st.sampled_from([*QUICK, "(a|ab)(c|bcd)*", "[a-z]+(/[a-z]+)*", "a|b", "(?:x?){3}y"]),
    st.text("abcdxy019./-", max_size=9),
)
def test_pattern_matches_what_it_would_match_anywhere(pattern: str, text: str) -> None:
    assert (path_pattern(pattern).fullmatch(text) is None) is (re.fullmatch(pattern, text) is None)


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param("[", id="no pattern"),
        pytest.param(r"(a)\1+", id="a reference back"),
        pytest.param("(?=a)a+b+", id="a look ahead"),
        pytest.param("(?<!a)b+", id="a look behind"),
        pytest.param("(?>a+)b", id="an atomic group"),
        pytest.param("a++b+", id="a possessive part"),
        pytest.param("(((a{1,1000}){1,1000}){1,1000})", id="too large"),
        pytest.param("a" * (PATTERN_MAX_CHARACTERS + 1), id="too long"),
    ],
)
def test_pattern_is_refused_when_it_is(pattern: str) -> None:
    with pytest.raises(BundleRefused) as refused:
        path_pattern(pattern)
    assert refused.value.code == "manifest_invalid"


def test_pattern_is_taken_when_it_is_as_long_as_may_be() -> None:
    assert path_pattern("a" * PATTERN_MAX_CHARACTERS).fullmatch("a" * PATTERN_MAX_CHARACTERS) is not None
