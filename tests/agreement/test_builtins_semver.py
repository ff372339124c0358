"""Versions: the host compares and judges them as OPA does, and declines where OPA never ends."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pdp.wasm.builtins.semver import BUILTINS
from pdp.wasm.builtins.values import Declined, RegoSet, Undefined, Value
from tests.agreement.builtin_values import Comparison, Operands, compare

MAX = str(2**63 - 1)

ORDERED = {
    "equal": ("1.0.0", "1.0.0"),
    "major decides": ("1.9.9", "2.0.0"),
    "minor decides": ("1.2.9", "1.10.0"),
    "patch decides": ("1.0.2", "1.0.10"),
    "a leading v on one side": ("v1.2.3", "1.2.3"),
    "zeros before a number": ("01.002.0003", "1.2.3"),
    "the largest numbers": (f"{MAX}.{MAX}.{MAX}", f"{MAX}.{MAX}.0"),
    "the largest number with zeros before it": (f"000{MAX}.0.0", f"{MAX}.0.0"),
    "builds do not decide": ("1.0.0+build.1", "1.0.0+other"),
    "a build with a minus": ("1.0.0+a-b", "1.0.0-a+b"),
    "an empty build": ("1.0.0+", "1.0.0"),
    "an empty pre-release": ("1.0.0-", "1.0.0"),
    "a pre-release before its release": ("1.0.0-rc.1", "1.0.0"),
    "a release after its pre-release": ("1.0.0", "1.0.0-rc.1"),
    "pre-releases as texts": ("1.0.0-alpha", "1.0.0-beta"),
    "pre-releases in upper and lower case": ("1.0.0-RC", "1.0.0-rc"),
    "pre-releases as numbers": ("1.0.0-rc.9", "1.0.0-rc.10"),
    "numbers before words": ("1.0.0-1", "1.0.0-a"),
    "words after numbers": ("1.0.0-1a", "1.0.0-99"),
    "fewer parts before more": ("1.0.0-a", "1.0.0-a.1"),
    "more parts after fewer": ("1.0.0-a.b.c", "1.0.0-a.b"),
    "zeros before a number that something later decides": ("1.0.0-01.a", "1.0.0-1.b"),
    "zeros before a number and one more part": ("1.0.0-01", "1.0.0-1.0"),
    "numbers beyond 64 bits before a difference": (f"1.0.0-{MAX}9.1", f"1.0.0-{MAX}8.2"),
    "the largest number and one beyond": (f"1.0.0-{MAX}.1", "1.0.0-9999999999999999999.2"),
    "minuses within a pre-release": ("1.0.0--", "1.0.0---"),
    "a minus is a word": ("1.0.0--1", "1.0.0-1"),
}

REFUSED = {
    "empty": "",
    "only a v": "v",
    "two leading v": "vv1.0.0",
    "a capital v": "V1.0.0",
    "one part": "1",
    "two parts": "1.0",
    "four parts": "1.0.0.0",
    "an empty part": "1..0",
    "an empty last part": "1.0.",
    "a word": "a.b.c",
    "a sign": "-1.0.0",
    "a plus": "+1.0.0",
    "a sign in the middle": "1.-1.0",
    "a space before": " 1.0.0",
    "a space after": "1.0.0 ",
    "a line after": "1.0.0\n",
    "a line after a pre-release": "1.0.0-a\n",
    "a line after a build": "1.0.0+a\n",
    "an underscore": "1_0.0.0",
    "a hexadecimal number": "0x1.0.0",
    "digits that are not ASCII": "\u0661.0.0",
    "wide digits": "\uff11.0.0",
    "a number beyond 64 bits": f"{2**63}.0.0",
    "a number far beyond 64 bits": "9" * 5000 + ".0.0",
    "an empty part of a pre-release": "1.0.0-a..b",
    "a pre-release that ends with a dot": "1.0.0-a.",
    "a pre-release that begins with a dot": "1.0.0-.a",
    "an underscore in a pre-release": "1.0.0-a_b",
    "a letter that is not ASCII in a pre-release": "1.0.0-\u00e9",
    "an empty part of a build": "1.0.0+a..b",
    "two builds": "1.0.0+a+b",
    "a NUL": "1.0.0\u0000",
}

WRONG: dict[str, Value] = {
    "null": None,
    "a truth value": True,
    "a number": 1,
    "a list": ["1.0.0"],
    "an object": {"1.0.0": "1.0.0"},
}

ENDLESS = {
    "zeros before a number": ("1.0.0-01", "1.0.0-1"),
    "zeros before a number within": ("1.0.0-a.0.b", "1.0.0-a.00.b"),
    "numbers beyond 64 bits": (f"1.0.0-{MAX}1", f"1.0.0-{MAX}2"),
}


def _draw_version(source: random.Random) -> Value:
    if source.random() < 0.05:
        return source.choice(list(WRONG.values()))
    faulty = source.random() < 0.1
    numbers = ("0", "1", "2", "10", "01", MAX, str(2**63), "", "a", "-1")[: None if faulty else 6]
    parts = source.choices(numbers, k=source.choice((2, 3, 4)) if faulty else 3)
    text = source.choice(("", "v", "V", "vv")[: None if faulty else 2]) + ".".join(parts)
    if source.random() < 0.6:
        text += "-" + _draw_identifiers(source)
    if source.random() < 0.2:
        text += "+" + _draw_identifiers(source)
    if source.random() < 0.03:
        text += source.choice(("\n", " ", "\u0000", "\u00e9", "_", "+", "-", "."))
    return text


def _draw_identifiers(source: random.Random) -> str:
    words = ("0", "00", "1", "01", "2", "10", "a", "b", "A", "-", "1a", "a1", "rc", MAX, MAX + "0", "")
    chances = [30] * (len(words) - 1) + [1]
    return ".".join(source.choices(words, chances, k=source.choice((1, 1, 1, 2, 2, 3))))


def _draw(seed: int, count: int) -> list[Operands]:
    source = random.Random(seed)
    calls: list[Operands] = []
    while len(calls) < count:
        first, second = _draw_version(source), _draw_version(source)
        if isinstance(first, str) and source.random() < 0.5:
            second = first.partition("-")[0] + "-" + _draw_identifiers(source)
        calls.append((first, second))
    return calls


def _is_endless(first: Value, second: Value) -> bool:
    try:
        BUILTINS["semver.compare"](first, second)
    except Declined:
        return True
    except Undefined:
        pass
    return False


def _compared(opa: Path, calls: list[Operands]) -> Comparison:
    """What comes of the calls that OPA would end; every other one is of two versions, alike but for a pre-release."""
    ending = [call for call in calls if not _is_endless(*call)]
    for first, second in (call for call in calls if _is_endless(*call)):
        assert isinstance(first, str) and isinstance(second, str)
        assert "-" in first and "-" in second
    assert len(ending) > 0.9 * len(calls)
    return compare(opa, "semver.compare", BUILTINS["semver.compare"], ending)


def test_compare_answers_as_opa_when_versions_are_versions(opa_path: Path) -> None:
    calls = [*ORDERED.values(), *((second, first) for first, second in ORDERED.values())]
    found = compare(opa_path, "semver.compare", BUILTINS["semver.compare"], calls)
    assert (found.differing, found.declined, found.agreeing_count) == ([], [], len(calls))


def test_compare_is_undefined_as_in_opa_when_a_side_is_no_version(opa_path: Path) -> None:
    bad: list[Value] = [*REFUSED.values(), *WRONG.values()]
    calls = [*((value, "1.0.0") for value in bad), *(("1.0.0", value) for value in bad)]
    found = compare(opa_path, "semver.compare", BUILTINS["semver.compare"], calls)
    assert (found.differing, found.declined, found.undefined_count) == ([], [], len(calls))


def test_is_valid_answers_as_opa_when_given_anything(opa_path: Path) -> None:
    values: list[Value] = [*REFUSED.values(), *WRONG.values(), *(text for pair in ORDERED.values() for text in pair)]
    values += [RegoSet(("1.0.0",)), *(text for pair in ENDLESS.values() for text in pair)]
    found = compare(opa_path, "semver.is_valid", BUILTINS["semver.is_valid"], [(value,) for value in values])
    assert (found.differing, found.declined, found.agreeing_count) == ([], [], len(values))


@pytest.mark.parametrize("pair", ENDLESS.values(), ids=ENDLESS.keys())
def test_compare_declines_when_opa_does_not_end(pair: tuple[str, str]) -> None:
    with pytest.raises(Declined):
        BUILTINS["semver.compare"](*pair)


def test_versions_agree_with_opa_when_drawn(opa_path: Path) -> None:
    calls = _draw(31, 4000)
    compared = _compared(opa_path, calls)
    assert (compared.differing, compared.declined) == ([], [])
    assert compared.agreeing_count > 2000
    judged = compare(opa_path, "semver.is_valid", BUILTINS["semver.is_valid"], [call[:1] for call in calls])
    assert (judged.differing, judged.declined, judged.undefined_count) == ([], [], 0)


@pytest.mark.soak
def test_versions_agree_with_opa_when_many_are_drawn(opa_path: Path) -> None:
    for seed in range(32, 52):
        calls = _draw(seed, 4000)
        compared = _compared(opa_path, calls)
        assert (compared.differing, compared.declined) == ([], [])
        judged = compare(opa_path, "semver.is_valid", BUILTINS["semver.is_valid"], [call[:1] for call in calls])
        assert (judged.differing, judged.declined) == ([], [])
