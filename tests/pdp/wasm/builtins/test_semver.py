"""Versions without OPA: the order, what is refused, and where no answer is given."""

from __future__ import annotations

import pytest

from pdp.wasm.builtins.semver import compare, is_valid
from pdp.wasm.builtins.values import Declined, RegoSet, Undefined, Value

MAX = 2**63 - 1

ORDERED = {
    "the patch decides": ("1.0.2", "1.0.10"),
    "a pre-release comes before its release": ("1.0.0-rc.1", "1.0.0"),
    "pre-releases are ordered as numbers": ("1.0.0-rc.9", "1.0.0-rc.10"),
    "pre-releases are ordered as texts": ("1.0.0-RC", "1.0.0-rc"),
    "numbers come before words": ("1.0.0-99", "1.0.0-1a"),
    "fewer parts come before more": ("1.0.0-a", "1.0.0-a.1"),
    "what comes after equal numbers decides": ("1.0.0-01.a", "1.0.0-1.b"),
    "numbers beyond 64 bits leave it to what follows": (f"1.0.0-{MAX}9.1", f"1.0.0-{MAX}8.2"),
}

EQUAL = {
    "the same": ("1.0.0", "1.0.0"),
    "a leading v": ("v1.0.0", "1.0.0"),
    "builds": ("1.0.0+a", "1.0.0+b"),
    "an empty pre-release": ("1.0.0-", "1.0.0"),
    "an empty build": ("1.0.0+", "1.0.0"),
    "zeros before a number": ("01.00.0", "1.0.0"),
    "the largest number": (f"0{MAX}.0.0", f"{MAX}.0.0"),
}

REFUSED: dict[str, Value] = {
    "an empty text": "",
    "two parts": "1.0",
    "four parts": "1.0.0.0",
    "an empty part": "1..0",
    "two leading v": "vv1.0.0",
    "a sign": "-1.0.0",
    "an underscore": "1_0.0.0",
    "digits that are not ASCII": "\uff11.0.0",
    "a line at the end": "1.0.0\n",
    "a line after a pre-release": "1.0.0-a\n",
    "an empty part of a pre-release": "1.0.0-a..b",
    "an underscore in a build": "1.0.0+a_b",
    "a number beyond 64 bits": f"{MAX + 1}.0.0",
    "a number of many digits": "1" * 5000 + ".0.0",
    "null": None,
    "a truth value": True,
    "a number": 1,
    "a list": ["1.0.0"],
    "an object": {},
    "a set": RegoSet(()),
}

ENDLESS = {
    "zeros before a number": ("1.0.0-01", "1.0.0-1"),
    "zeros before a number within": ("1.0.0-a.0.b", "1.0.0-a.00.b"),
    "numbers beyond 64 bits": (f"1.0.0-{MAX}1", f"1.0.0-{MAX}2"),
}


@pytest.mark.parametrize("pair", ORDERED.values(), ids=ORDERED.keys())
def test_compare_orders_versions_when_they_differ(pair: tuple[str, str]) -> None:
    first, second = pair
    assert (compare(first, second), compare(second, first)) == (-1, 1)


@pytest.mark.parametrize("pair", EQUAL.values(), ids=EQUAL.keys())
def test_compare_finds_versions_equal_when_they_differ_only_in(pair: tuple[str, str]) -> None:
    assert compare(*pair) == 0


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED.keys())
def test_compare_is_undefined_when_a_side_is(value: Value) -> None:
    with pytest.raises(Undefined):
        compare(value, "1.0.0")
    with pytest.raises(Undefined):
        compare("1.0.0", value)


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED.keys())
def test_is_valid_refuses_when_given(value: Value) -> None:
    assert is_valid(value) is False


@pytest.mark.parametrize("pair", [*ORDERED.values(), *EQUAL.values(), *ENDLESS.values()])
def test_is_valid_accepts_when_given_versions(pair: tuple[str, str]) -> None:
    assert [is_valid(version) for version in pair] == [True, True]


@pytest.mark.parametrize("pair", ENDLESS.values(), ids=ENDLESS.keys())
def test_compare_declines_when_pre_releases_differ_only_in(pair: tuple[str, str]) -> None:
    with pytest.raises(Declined):
        compare(*pair)
