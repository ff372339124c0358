"""The index of what was published: its one form, what is refused in it, and which index is behind which."""

from __future__ import annotations

import json

import pytest

from bundles.errors import BundleUnavailable
from bundles.service_shelf import INDEX_MAX_BYTES, Index, Publication, check_archive, parse_index

DIGEST = "sha256:" + "a" * 64


def publication(sequence: int, *, epoch: int = 0, digest: str = DIGEST) -> Publication:
    return Publication(digest, sequence, epoch, "r1", 1, "ci", 3)


ONE = Index().with_newest(publication(1), history_max_count=8)
TWO = ONE.with_newest(publication(2, digest="sha256:" + "b" * 64), history_max_count=8)


def test_index_comes_back_when_it_is_written_and_read() -> None:
    assert parse_index(TWO.encoded(), "here") == TWO
    assert (TWO.highest_of(0), TWO.highest_of(1)) == (2, 0)
    assert [entry.sequence for entry in TWO.history] == [2, 1]


def test_index_is_read_when_it_is_as_long_as_allowed_and_refused_one_byte_later() -> None:
    raw = ONE.encoded()
    padded = raw + b" " * (INDEX_MAX_BYTES - len(raw))
    assert parse_index(padded, "here") == ONE
    with pytest.raises(BundleUnavailable, match="here"):
        parse_index(padded + b" ", "here")


def test_archive_stays_named_when_an_older_entry_has_the_same() -> None:
    again = TWO.with_newest(publication(3, digest="sha256:" + "b" * 64), history_max_count=2)
    assert [entry.digest for entry in again.dropped_from(TWO)] == [DIGEST]
    assert TWO.dropped_from(ONE) == ()


BEHIND = {
    "an earlier one": (ONE, TWO, True),
    "a later one": (TWO, ONE, False),
    "the same": (TWO, TWO, False),
    "the first": (ONE, Index(), False),
    "an empty one": (Index(), ONE, True),
    "both empty": (Index(), Index(), False),
    "without the other's epoch": (TWO, ONE.with_newest(publication(1, epoch=1), history_max_count=8), True),
    "with one more epoch": (ONE.with_newest(publication(1, epoch=1), history_max_count=8), ONE, False),
    "another content under one sequence": (
        Index().with_newest(publication(1, digest="sha256:" + "c" * 64), history_max_count=8),
        ONE,
        True,
    ),
}


@pytest.mark.parametrize("case", BEHIND)
def test_index_is_behind_when_it_is(case: str) -> None:
    index, known, behind = BEHIND[case]
    assert index.is_behind(known) is behind


def spoiled(**changed: object) -> bytes:
    return json.dumps({**json.loads(ONE.encoded()), **changed}).encode()


def entry(**changed: object) -> bytes:
    return spoiled(history=[{**publication(1).document(), **changed}])


DAMAGED = {
    "nothing": b"",
    "a page": b"<html>",
    "a list": b"[]",
    "cut": ONE.encoded()[:-3],
    "with a key twice": b'{"v":1,"v":1}',
    "another version": spoiled(v=2),
    "with a member more": spoiled(more=1),
    "without history": b'{"v":1,"highest":{}}',
    "a history that is no list": spoiled(history={}),
    "highest that is no object": spoiled(highest=[]),
    "a highest that is no number": spoiled(highest={"0": "1"}),
    "an entry that is no object": spoiled(history=[1]),
    "an entry without a member": spoiled(history=[{"digest": DIGEST}]),
    "a sequence that is a text": entry(sequence="1"),
    "a sequence that is a truth": entry(sequence=True),
    "a size with a fraction": entry(size_bytes=1.5),
    "a publisher that is a number": entry(publisher=1),
    "a digest that is a path": entry(digest="sha256:../../../etc/passwd"),
    "a digest in capitals": entry(digest=DIGEST.upper()),
    "a digest too long": entry(digest=DIGEST + "a"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_index_is_refused_when_it_is(case: str) -> None:
    with pytest.raises(BundleUnavailable) as refused:
        parse_index(DAMAGED[case], "s3 place")
    assert refused.value.code == "storage_damaged" and "s3 place" in refused.value.detail


def test_archive_is_taken_only_when_it_is_the_one_that_was_published() -> None:
    empty = publication(1, digest="sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    assert check_archive(empty, b"", "there") == b""
    for wrong, word in ((None, "missing"), (b"x", "not what was published")):
        with pytest.raises(BundleUnavailable, match=word):
            check_archive(empty, wrong, "there")
    assert (empty.archive_name[:12], empty.envelope_name[-10:]) == ("archives/e3b", ".dsse.json")
