"""Deltas of archives: the second archive comes out byte for byte, or the delta is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundles.archive import ArchiveLimits, read_archive, write_archive
from bundles.canonical import canonical_json
from bundles.delta import (
    EDITS_MAX_COUNT,
    INSERTED_FILE,
    PLAN_FILE,
    PLAN_MAX_BYTES,
    apply_delta,
    make_delta,
    plan_summary,
    read_plan,
)
from bundles.errors import BundleRefused
from tests.bundles.parts import good_bundle, good_files, link, signed, tarred
from tests.bundles.test_archive import _bomb

BASE = write_archive({"a.rego": b"package a\n" * 50, "data.json": b'{"k":1}', "gone.rego": b"package gone"})


def delta_of(plan: Any, inserted: bytes = b"") -> bytes:
    """An archive with this plan and these bytes."""
    raw = plan if isinstance(plan, bytes) else canonical_json(plan)
    return write_archive({PLAN_FILE: raw, INSERTED_FILE: inserted})


def edited(*steps: Any, name: str = "a.rego", inserted: bytes = b"", removed: Any = ()) -> bytes:
    """A delta that edits one file."""
    return delta_of({"edited": {name: list(steps)}, "removed": list(removed)}, inserted)


contents = st.one_of(st.binary(max_size=60), st.integers(0, 400).map(lambda n: b"package a\nallow := true\n" * n))
names = st.from_regex(r"[a-z]{1,3}(/[a-z]{1,3}){0,2}\.(rego|json)", fullmatch=True)
bundles = st.dictionaries(names, contents, max_size=6)


@given(bundles, bundles, st.booleans())
@settings(deadline=None)
def test_delta_gives_the_second_archive_when_applied_to_the_first(
    first: dict[str, bytes], second: dict[str, bytes], alike: bool
) -> None:
    target = {**first, **second} if alike else second
    base, wanted = write_archive(first), write_archive(target)
    delta = make_delta(base, wanted)
    assert delta is not None and apply_delta(base, delta) == wanted


def test_delta_is_small_when_one_line_of_much_data_changed() -> None:
    chance = random.Random(3)
    lines = [b'"u%06d":{"team":%d}' % (number, chance.randrange(10**9)) for number in range(20_000)]
    before = signed({**good_files(), "chains/data.json": b"{" + b",".join(lines) + b"}"}, sequence=7)
    lines[12_345] = b'"u012345":{"team":"another"}'
    after = signed({**good_files(), "chains/data.json": b"{" + b",".join(lines) + b"}"}, sequence=8)
    delta = make_delta(before, after)
    assert delta is not None and apply_delta(before, delta) == after
    assert len(before) > 150_000 and len(delta) < 1_500


def test_plan_says_what_changes_when_a_file_comes_and_one_goes() -> None:
    target = write_archive({"a.rego": b"package a\n" * 50, "data.json": b'{"k":2}', "new/empty.rego": b""})
    delta = make_delta(BASE, target)
    assert delta is not None and apply_delta(BASE, delta) == target
    assert plan_summary(read_plan(delta)) == {
        "edited": {"data.json": 7, "new/empty.rego": 0},
        "removed": ["gone.rego"],
        "inserted_bytes": 1,
    }


NOT_OURS = {
    "another tool packed it": tarred(("a.rego", b"package b")),
    "a leading slash stands before a name": tarred(("/a.rego", b"package b")),
}


@pytest.mark.parametrize("case", NOT_OURS)
def test_no_delta_is_made_when(case: str) -> None:
    assert make_delta(BASE, NOT_OURS[case]) is None


def test_no_delta_is_made_when_it_would_take_too_many_edits() -> None:
    chance = random.Random(4)
    blocks = [chance.randbytes(64), chance.randbytes(64)]
    base = write_archive({"a.rego": b"".join(blocks)})
    count = EDITS_MAX_COUNT // 2 + 1  # each a copy and an insertion
    target = write_archive({"a.rego": b"".join(blocks[number % 2] + chance.randbytes(2) for number in range(count))})
    assert make_delta(base, target) is None


def test_no_delta_is_made_when_it_would_have_more_bytes_than_are_allowed() -> None:
    target = write_archive({"a.rego": b"package b", "noise": random.Random(5).randbytes(4096)})
    delta = make_delta(BASE, target)
    assert delta is not None and make_delta(BASE, target, max_bytes=len(delta)) == delta
    assert make_delta(BASE, target, max_bytes=len(delta) - 1) is None


def test_delta_is_given_up_when_only_the_last_bytes_packed_are_too_many() -> None:
    """What the quick packer still holds back counts as well."""
    target = write_archive({"noise": random.Random(7).randbytes(4096)})
    assert make_delta(BASE, target, max_bytes=100) is None


def test_delta_is_made_from_another_tools_archive_when_the_target_is_ours() -> None:
    base, target = tarred(("a.rego", b"package a")), write_archive({"a.rego": b"package b"})
    delta = make_delta(base, target)
    assert delta is not None and apply_delta(base, delta) == target


def test_delta_gives_a_bundle_that_is_trusted_when_it_was_made_between_two() -> None:
    older, newer = good_bundle(), signed({**good_files(), "chains/data.json": b"{}"}, sequence=8)
    delta = make_delta(older, newer)  # a bundle that is signed again is another base: signatures are drawn
    assert delta is not None and apply_delta(older, delta) == newer


WHOLE = [[0, 500]]
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "is no archive": (lambda: b"{}", "delta_archive_invalid"),
    "is empty": (lambda: b"", "delta_archive_invalid"),
    "is OPA's kind": (
        lambda: write_archive({".manifest": b"{}", "patch.json": b'{"data":[]}'}),
        "delta_archive_invalid",
    ),
    "is a whole bundle": (good_bundle, "delta_archive_invalid"),
    "has a file more": (
        lambda: write_archive({PLAN_FILE: b"{}", INSERTED_FILE: b"", "x": b""}),
        "delta_archive_invalid",
    ),
    "has a link": (lambda: tarred((PLAN_FILE, b"{}"), link(INSERTED_FILE, b"2")), "delta_archive_invalid"),
    "climbs": (lambda: tarred((PLAN_FILE, b"{}"), ("../" + INSERTED_FILE, b"")), "delta_archive_invalid"),
    "is a bomb": (lambda: _bomb(256 << 20), "delta_too_large"),
    "has a plan that is no JSON": (lambda: delta_of(b"{"), "delta_archive_invalid"),
    "has a plan with one name twice": (
        lambda: delta_of(b'{"edited":{"a.rego":[],"a.rego":[]},"removed":[]}'),
        "delta_archive_invalid",
    ),
    "has a plan that is a list": (lambda: delta_of([]), "delta_archive_invalid"),
    "has a plan with a member more": (
        lambda: delta_of({"edited": {}, "removed": [], "run": "x"}),
        "delta_archive_invalid",
    ),
    "has a plan past its limit": (lambda: delta_of(b" " * (PLAN_MAX_BYTES + 1)), "delta_too_large"),
    "edits a list": (lambda: delta_of({"edited": [], "removed": []}), "delta_archive_invalid"),
    "removes an object": (lambda: delta_of({"edited": {}, "removed": {}}), "delta_archive_invalid"),
    "removes a number": (lambda: delta_of({"edited": {}, "removed": [1]}), "delta_archive_invalid"),
    "removes a file twice": (
        lambda: delta_of({"edited": {}, "removed": ["gone.rego", "gone.rego"]}),
        "delta_archive_invalid",
    ),
    "edits what it removes": (
        lambda: edited([0, 1], name="gone.rego", removed=["gone.rego"]),
        "delta_archive_invalid",
    ),
    "removes what is not there": (
        lambda: delta_of({"edited": {}, "removed": ["none.rego"]}),
        "delta_edits_invalid",
    ),
    "has edits that are no list": (
        lambda: delta_of({"edited": {"a.rego": {}}, "removed": []}),
        "delta_archive_invalid",
    ),
    "has a copy of one number": (lambda: edited([0]), "delta_archive_invalid"),
    "has a copy of three numbers": (lambda: edited([0, 1, 2]), "delta_archive_invalid"),
    "has an edit that is a text": (lambda: edited("all"), "delta_archive_invalid"),
    "has an edit that is true": (lambda: edited(True), "delta_archive_invalid"),
    "has an edit that is a fraction": (lambda: edited(1.5), "delta_archive_invalid"),
    "copies nothing": (lambda: edited([0, 0]), "delta_archive_invalid"),
    "copies from before the beginning": (lambda: edited([-1, 2]), "delta_archive_invalid"),
    "copies a negative size": (lambda: edited([3, -2]), "delta_archive_invalid"),
    "copies from behind the end": (lambda: edited([499, 2]), "delta_edits_invalid"),
    "copies in a new file": (lambda: edited([0, 1], name="new.rego"), "delta_edits_invalid"),
    "inserts more than it brings": (lambda: edited(*WHOLE, 2, inserted=b"x"), "delta_edits_invalid"),
    "brings more than it inserts": (lambda: edited(*WHOLE, inserted=b"x"), "delta_edits_invalid"),
    "copies a file a hundred thousand times": (lambda: edited(*[[0, 500]] * 100_000), "delta_too_large"),
    "has too many edits": (lambda: edited(*[1] * (EDITS_MAX_COUNT + 1)), "delta_too_large"),
    "writes above the root": (lambda: edited(1, name="../a.rego", inserted=b"x"), "delta_edits_invalid"),
    "writes to the disk's root": (lambda: edited(1, name="/etc/passwd", inserted=b"x"), "delta_edits_invalid"),
    "writes a name with a space": (lambda: edited(1, name="a b", inserted=b"x"), "delta_edits_invalid"),
    "writes a name without letters": (lambda: edited(1, name="", inserted=b"x"), "delta_edits_invalid"),
    "writes a name longer than a tar's": (lambda: edited(1, name="a" * 300, inserted=b"x"), "delta_edits_invalid"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_delta_is_refused_when_it(fault: str) -> None:
    make, code = REFUSED[fault]
    with pytest.raises(BundleRefused) as refused:
        apply_delta(BASE, make())
    assert refused.value.code == code


numbers = st.one_of(
    st.integers(-2, 600), st.sampled_from([2**53 - 1, 2**53, -(2**63), 10**30]), st.floats(), st.booleans()
)
steps = st.lists(st.one_of(numbers, st.lists(numbers, max_size=3), st.none(), st.text(max_size=3)), max_size=5)
names_of_any_kind = st.one_of(st.sampled_from(["a.rego", "gone.rego", "new.rego", "../x"]), st.text(max_size=5))
plans = st.fixed_dictionaries(
    {
        "edited": st.one_of(st.dictionaries(names_of_any_kind, st.one_of(steps, st.none()), max_size=3), steps),
        "removed": st.one_of(st.lists(st.one_of(names_of_any_kind, numbers), max_size=3), st.none()),
    }
)


@given(plans, st.binary(max_size=20))
@settings(deadline=None)
def test_delta_makes_an_archive_or_is_refused_when_its_plan_is_anything(plan: Any, inserted: bytes) -> None:
    delta = write_archive({PLAN_FILE: json.dumps(plan).encode(), INSERTED_FILE: inserted})
    try:
        made = apply_delta(BASE, delta)
    except BundleRefused as refused:
        assert refused.code in ("delta_archive_invalid", "delta_edits_invalid", "delta_too_large")
    else:
        assert "../x" not in read_archive(made)


@given(st.binary(max_size=300), st.integers(0, 400))
@settings(deadline=None)
def test_delta_is_refused_when_its_bytes_are_spoilt(noise: bytes, place: int) -> None:
    delta = bytearray(edited([0, 100], 3, [100, 400], inserted=b"abc"))
    delta[place : place + len(noise)] = noise
    try:
        made = apply_delta(BASE, bytes(delta))
    except BundleRefused as refused:
        assert refused.code in ("delta_archive_invalid", "delta_edits_invalid", "delta_too_large")
    else:
        assert made == apply_delta(BASE, edited([0, 100], 3, [100, 400], inserted=b"abc"))


LIMITS = {
    "all files together": ArchiveLimits(total_max_bytes=2048),
    "one file": ArchiveLimits(file_max_bytes=600),
    "their number": ArchiveLimits(files_max_count=3),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_result_is_refused_when_it_passes_the_limit_of(limit: str) -> None:
    copies = edited(*[[0, 500]] * (2 if limit == "one file" else 5), name="a.rego")
    if limit == "their number":
        copies = edited(1, name="new.rego", inserted=b"x")
    elif limit == "all files together":
        base = write_archive({"a.rego": b"p" * 500})
        with pytest.raises(BundleRefused) as refused:
            apply_delta(base, copies, LIMITS[limit])
        assert refused.value.code == "delta_too_large"
        return
    with pytest.raises(BundleRefused) as refused:
        apply_delta(BASE, copies, LIMITS[limit])
    assert refused.value.code == "delta_too_large"


def test_archive_that_comes_out_is_refused_by_the_reader_when_two_names_differ_in_case_only() -> None:
    made = apply_delta(BASE, edited(1, name="A.rego", inserted=b"x"))
    with pytest.raises(BundleRefused):
        read_archive(made)
