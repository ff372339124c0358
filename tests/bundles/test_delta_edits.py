"""Edits between byte strings: they give back the target for anything, are short where they can be, and fit or are refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundles import delta_edits
from bundles.delta_edits import Copy, Edit, Edits, Insert, apply_edits, edits_between
from bundles.errors import BundleRefused

BIG = 1 << 20
LINE = b'"u%07d":{"role":"reader","team":%d},'
TEXT = b"".join(LINE % (number, number * 7919 % 10_007) for number in range(2_000))


def applied(base: bytes, edits: Edits, max_bytes: int = BIG) -> bytes:
    return apply_edits(base, edits.steps, edits.inserted, max_bytes=max_bytes)


def scattered(seed: int, changes: int) -> bytes:
    """The text with bytes replaced, lines cut out and lines put in."""
    chance = random.Random(seed)
    changed = bytearray(TEXT)
    for _ in range(changes):
        place = chance.randrange(len(changed) - 200)
        kind = chance.randrange(3)
        if kind == 0:
            changed[place] = chance.randrange(256)
        elif kind == 1:
            del changed[place : place + chance.randrange(1, 90)]
        else:
            changed[place:place] = chance.randbytes(chance.randrange(1, 90))
    return bytes(changed)


pieces = st.lists(st.sampled_from([b"", b"a", b"\0" * 30, TEXT[:100], TEXT[60:300], TEXT[200:1000]]), max_size=6)


@given(
    st.one_of(st.binary(max_size=200), pieces.map(b"".join)), st.one_of(st.binary(max_size=200), pieces.map(b"".join))
)
@settings(deadline=None)
def test_edits_give_the_target_when_applied_to_any_base(base: bytes, target: bytes) -> None:
    assert applied(base, edits_between(base, target)) == target


@given(st.integers(0, 2**32), st.integers(0, 60))
@settings(deadline=None)
def test_edits_give_the_target_and_stay_short_when_a_text_is_changed_here_and_there(seed: int, changes: int) -> None:
    target = scattered(seed, changes)
    edits = edits_between(TEXT, target)
    assert applied(TEXT, edits) == target
    assert len(edits.inserted) <= 300 * changes


SHORT: dict[str, tuple[bytes, bytes, Edits]] = {
    "nothing changed": (TEXT, TEXT, Edits((Copy(0, len(TEXT)),), b"")),
    "one byte changed": (
        TEXT,
        TEXT[:5000] + b"!" + TEXT[5001:],
        Edits((Copy(0, 5000), Insert(1), Copy(5001, len(TEXT) - 5001)), b"!"),
    ),
    "something was appended": (TEXT, TEXT + b"more", Edits((Copy(0, len(TEXT)), Insert(4)), b"more")),
    "something was put in front": (TEXT, b"more" + TEXT, Edits((Insert(4), Copy(0, len(TEXT))), b"more")),
    "the beginning is gone": (TEXT, TEXT[999:], Edits((Copy(999, len(TEXT) - 999),), b"")),
    "the end is gone": (TEXT, TEXT[:999], Edits((Copy(0, 999),), b"")),
    "two halves changed places": (
        TEXT[:2000],
        TEXT[1000:2000] + TEXT[:1000],
        Edits((Copy(1000, 1000), Copy(0, 1000)), b""),
    ),
    "only the last bytes are the same": (b"abcde", b"xyzde", Edits((Insert(3), Copy(3, 2)), b"xyz")),
    "there was nothing": (b"", b"abc", Edits((Insert(3),), b"abc")),
    "nothing is left": (b"abc", b"", Edits((), b"")),
    "nothing is the same": (b"abc", b"xyz", Edits((Insert(3),), b"xyz")),
}


@pytest.mark.parametrize("case", SHORT)
def test_edits_are_these_when(case: str) -> None:
    base, target, expected = SHORT[case]
    found = edits_between(base, target)
    assert applied(base, found) == target
    if case == "one byte changed":
        assert found.inserted == b"!" and len(found.steps) == 3
    else:
        assert found == expected


def test_edits_insert_the_rest_when_too_much_was_looked_for_in_vain() -> None:
    base = random.Random(1).randbytes(100_000)
    unlike = random.Random(2).randbytes(delta_edits.LOOKUPS_MAX_COUNT + 1)
    edits = edits_between(base, unlike + base)
    # The base's copy lies behind the last position that is looked at; only what both end with is still found.
    assert edits.steps == (Insert(len(unlike)), Copy(0, len(base)))
    edits = edits_between(base, unlike + base + b"x")
    assert edits.steps == (Insert(len(unlike) + len(base) + 1),)


BAD: dict[str, tuple[list[Edit], bytes, int, str]] = {
    "copies from behind the end": ([Copy(3, 3)], b"", BIG, "delta_edits_invalid"),
    "copies from far behind the end": ([Copy(10**15, 1)], b"", BIG, "delta_edits_invalid"),
    "inserts more than came": ([Insert(3)], b"ab", BIG, "delta_edits_invalid"),
    "leaves inserted bytes over": ([Insert(1)], b"ab", BIG, "delta_edits_invalid"),
    "makes one byte too many": ([Copy(0, 5), Copy(0, 5), Insert(1)], b"a", 10, "delta_too_large"),
    "is a bomb of copies": ([Copy(0, 5)] * 100_000, b"", 1000, "delta_too_large"),
    "says a size beyond all memory": ([Insert(2**53 - 1)], b"", BIG, "delta_too_large"),
}


@pytest.mark.parametrize("fault", BAD)
def test_edits_are_refused_when_one(fault: str) -> None:
    steps, inserted, limit, code = BAD[fault]
    with pytest.raises(BundleRefused) as refused:
        apply_edits(b"abcde", steps, inserted, max_bytes=limit)
    assert refused.value.code == code


def test_edits_are_applied_when_they_reach_the_limit_exactly() -> None:
    assert apply_edits(b"abcde", [Copy(0, 5), Copy(1, 4), Insert(1)], b"x", max_bytes=10) == b"abcdebcdex"
