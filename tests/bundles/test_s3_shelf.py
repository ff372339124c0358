"""A bundle's place in a bucket: what is kept, who is held back, and what a lost answer may not be taken for."""

from __future__ import annotations

import json

import pytest

from bundles.canonical import sha256_hex
from bundles.errors import BundleError, BundleRefused, BundleUnavailable
from bundles.s3_shelf import ObjectShelf
from bundles.service_shelf import Publication, Shelved
from tests.bundles.bucket import DOWN, FORBIDDEN, INDEX, LOST, Bucket


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def publication(archive: bytes, sequence: int) -> Publication:
    return Publication(f"sha256:{sha256_hex(archive)}", sequence, 0, "r1", 1, "ci", len(archive))


def put(shelf: ObjectShelf, archive: bytes, sequence: int) -> Shelved:
    return shelf.put(publication(archive, sequence), archive, None)


def opened(bucket: Bucket, **settings: int) -> ObjectShelf:
    shelf = bucket.shelf(**settings)
    shelf.open()
    return shelf


def accept(shelved: Shelved) -> None:
    """Nothing against it."""


def sequences(shelf: ObjectShelf) -> list[int]:
    return [entry.sequence for entry in shelf.history]


def test_publication_is_read_again_when_another_service_opens_the_bucket(bucket: Bucket) -> None:
    shelf = opened(bucket)
    assert shelf.open() is None
    kept = shelf.put(publication(b"one", 1), b"one", b"{envelope}")
    other = bucket.shelf()
    assert other.open() == kept == Shelved(publication(b"one", 1), b"one", b"{envelope}")
    assert (other.highest(0), other.highest(1), other.doubt) == (1, 0, None)


def test_history_and_objects_keep_the_newest_when_the_limit_is_reached(bucket: Bucket) -> None:
    shelf = opened(bucket, history_max_count=2)
    for number in (1, 2, 3):
        put(shelf, b"%d" % number, number)
    assert sequences(shelf) == [3, 2]
    assert len([key for key in bucket.objects if key.endswith(".tar.gz")]) == 2


def test_left_over_objects_are_said_when_they_cannot_be_removed(bucket: Bucket) -> None:
    shelf = opened(bucket, history_max_count=1)
    put(shelf, b"1", 1)
    bucket.before[("delete", ".tar.gz")] = FORBIDDEN
    assert put(shelf, b"2", 2).publication.sequence == 2
    assert [what for what, _ in bucket.said] == ["left_over"]


# -- two writers ----------------------------------------------------------------------------------------------------


def test_stale_writer_is_refused_when_another_published_since_it_looked(bucket: Bucket) -> None:
    first, second = opened(bucket), opened(bucket)
    put(first, b"one", 1)
    with pytest.raises(BundleRefused) as refused:
        put(second, b"two", 2)
    assert refused.value.code == "precondition_failed"
    assert (sequences(opened(bucket)), second.history, second.highest(0)) == ([1], (), 0)
    assert second.refresh(accept) is not None
    put(second, b"two", 2)
    assert sequences(opened(bucket)) == [2, 1]


def test_stale_writer_is_refused_when_the_other_comes_between_look_and_write(bucket: Bucket) -> None:
    first, second = opened(bucket), opened(bucket)
    put(first, b"one", 1)
    second.refresh(accept)

    def publish() -> None:
        put(first, b"two", 2)

    bucket.meanwhile = publish
    with pytest.raises(BundleRefused):
        put(second, b"three", 3)
    assert sequences(opened(bucket)) == [2, 1]


def test_the_same_publication_counts_for_both_when_two_services_write_it_at_once(bucket: Bucket) -> None:
    first, second = opened(bucket), opened(bucket)
    put(first, b"one", 1)
    assert put(second, b"one", 1).publication.sequence == 1
    put(second, b"two", 2)
    assert first.refresh(accept) is not None


# -- lost answers ---------------------------------------------------------------------------------------------------


def test_publication_counts_when_only_the_answer_was_lost(bucket: Bucket) -> None:
    shelf = opened(bucket)
    bucket.after[("swap", "index.json")] = LOST
    assert put(shelf, b"one", 1).publication.sequence == 1
    put(shelf, b"two", 2)
    assert sequences(opened(bucket)) == [2, 1]


def test_publication_counts_when_the_answer_was_lost_and_another_built_on_it(bucket: Bucket) -> None:
    first, second = opened(bucket), opened(bucket)

    def overtake() -> None:
        second.refresh(accept)
        put(second, b"two", 2)

    bucket.after_lost = overtake
    bucket.after[("swap", "index.json")] = LOST
    assert put(first, b"one", 1).publication.sequence == 1
    assert sequences(second) == [2, 1]
    with pytest.raises(BundleRefused):
        put(first, b"three", 3)
    found = first.refresh(accept)
    assert found is not None and found.publication.sequence == 2
    assert sequences(opened(bucket)) == [2, 1]


def test_outcome_is_unknown_when_the_write_may_still_arrive(bucket: Bucket) -> None:
    shelf = opened(bucket)
    put(shelf, b"one", 1)
    bucket.before[("swap", "index.json")] = LOST
    with pytest.raises(BundleUnavailable) as failed:
        put(shelf, b"two", 2)
    assert failed.value.code == "storage_outcome_unknown"
    assert sequences(shelf) == [1]


def test_outcome_is_unknown_when_nobody_can_look_either(bucket: Bucket) -> None:
    shelf = opened(bucket)
    bucket.after[("swap", "index.json")] = LOST
    bucket.before[("get", "index.json")] = DOWN
    with pytest.raises(BundleUnavailable) as failed:
        put(shelf, b"one", 1)
    assert failed.value.code == "storage_outcome_unknown"
    bucket.before.clear()
    found = shelf.refresh(accept)
    assert found is not None and found.publication.sequence == 1


def test_outcome_is_known_when_the_lost_write_was_overtaken(bucket: Bucket) -> None:
    first, second = opened(bucket), opened(bucket)
    put(first, b"one", 1)
    bucket.before[("swap", "index.json")] = LOST
    with pytest.raises(BundleRefused) as refused:
        put(second, b"two", 2)
    assert refused.value.code == "precondition_failed"


NOT_WRITTEN = {
    "the archive is refused": ("put", ".tar.gz", FORBIDDEN),
    "the archive's answer is lost": ("put", ".tar.gz", LOST),
    "the co-signatures are refused": ("put", ".dsse.json", FORBIDDEN),
    "the archive cannot be read back": ("get", ".tar.gz", DOWN),
    "the index is refused": ("swap", "index.json", FORBIDDEN),
}


@pytest.mark.parametrize("case", NOT_WRITTEN)
def test_nothing_is_published_when(case: str, bucket: Bucket) -> None:
    operation, end, fault = NOT_WRITTEN[case]
    shelf = opened(bucket)
    put(shelf, b"one", 1)
    bucket.before[(operation, end)] = fault
    with pytest.raises(BundleUnavailable) as failed:
        shelf.put(publication(b"two", 2), b"two", b"{}")
    assert failed.value is fault
    bucket.before.clear()
    assert sequences(shelf) == sequences(opened(bucket)) == [1]


# -- what lies there ------------------------------------------------------------------------------------------------


def spoil_index(bucket: Bucket, **changed: object) -> None:
    bucket.objects[INDEX] = json.dumps({**json.loads(bucket.objects[INDEX]), **changed}).encode()


def archive_key(bucket: Bucket) -> str:
    return next(key for key in bucket.objects if key.endswith(".tar.gz"))


DAMAGED = {
    "the archive is missing": lambda b: b.objects.pop(archive_key(b)),
    "the archive is another": lambda b: b.objects.update({archive_key(b): b"other"}),
    "the archive is cut": lambda b: b.objects.update({archive_key(b): b"on"}),
    "the index is no JSON": lambda b: b.objects.update({INDEX: b"<html>"}),
    "the index is cut": lambda b: b.objects.update({INDEX: b.objects[INDEX][:-9]}),
    "the index is of another version": lambda b: spoil_index(b, v=2),
    "the index is too large": lambda b: b.objects.update({INDEX: b" " * (4 << 20) + b.objects[INDEX]}),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_open_says_what_is_damaged_when(case: str, bucket: Bucket) -> None:
    put(opened(bucket), b"one", 1)
    DAMAGED[case](bucket)
    with pytest.raises(BundleUnavailable) as failed:
        bucket.shelf().open()
    assert failed.value.code == "storage_damaged"
    assert ".tar.gz" in failed.value.detail or "index.json" in failed.value.detail


ROLLED_BACK = {
    "the index is an earlier one": lambda b, earlier: b.objects.update({INDEX: earlier}),
    "the index is gone": lambda b, earlier: b.objects.pop(INDEX),
    "the index forgot its highest": lambda b, earlier: spoil_index(b, highest={}),
    "the index names another under one sequence": lambda b, earlier: spoil_index(
        b, history=[publication(b"other", 2).document()]
    ),
    "the index is empty": lambda b, earlier: spoil_index(b, history=[]),
}


@pytest.mark.parametrize("case", ROLLED_BACK)
def test_running_service_goes_on_with_what_it_has_when(case: str, bucket: Bucket) -> None:
    shelf = opened(bucket)
    put(shelf, b"one", 1)
    earlier = bucket.objects[INDEX]
    put(shelf, b"two", 2)
    ROLLED_BACK[case](bucket, earlier)
    with pytest.raises(BundleUnavailable) as failed:
        shelf.refresh(accept)
    assert failed.value.code == "storage_rolled_back"
    assert sequences(shelf) == [2, 1]


def test_index_is_taken_when_only_its_etag_changed(bucket: Bucket) -> None:
    shelf = opened(bucket)
    put(shelf, b"one", 1)
    bucket.objects[INDEX] += b"\n"
    assert shelf.refresh(accept) is None
    put(shelf, b"two", 2)
    assert sequences(opened(bucket)) == [2, 1]


def test_empty_index_counts_as_nothing_published_when_the_service_starts(bucket: Bucket) -> None:
    bucket.objects[INDEX] = b'{"highest":{"0":5},"history":[],"v":1}'
    shelf = bucket.shelf()
    assert (shelf.open(), shelf.highest(0)) == (None, 5)


def test_refresh_asks_once_when_nothing_changed(bucket: Bucket) -> None:
    shelf = opened(bucket)
    put(shelf, b"one", 1)
    bucket.asked.clear()
    assert shelf.refresh(accept) is None
    assert bucket.asked == [("get", INDEX)]


def test_refresh_changes_nothing_when_what_came_is_not_accepted(bucket: Bucket) -> None:
    first, second = opened(bucket), opened(bucket)
    put(first, b"one", 1)

    def refuse(shelved: Shelved) -> None:
        raise BundleUnavailable("storage_refused", "not here")

    for _ in range(2):
        with pytest.raises(BundleError):
            second.refresh(refuse)
    assert second.history == ()
    with pytest.raises(BundleRefused):
        put(second, b"two", 2)


# -- doubt ----------------------------------------------------------------------------------------------------------


def test_doubt_begins_one_step_after_the_limit_when_nobody_can_look(bucket: Bucket) -> None:
    shelf = opened(bucket)
    put(shelf, b"one", 1)
    bucket.before[("get", "index.json")] = FORBIDDEN
    bucket.now = 100.0
    with pytest.raises(BundleUnavailable):
        shelf.refresh(accept)
    assert shelf.doubt is None
    bucket.now = 100.5
    assert shelf.doubt == "the storage has confirmed nothing for 100 s (storage_forbidden)"
    bucket.before.clear()
    shelf.refresh(accept)
    assert shelf.doubt is None


def test_doubt_begins_when_nobody_looked_at_all(bucket: Bucket) -> None:
    shelf = opened(bucket)
    bucket.now = 101.0
    assert shelf.doubt is not None and "nobody looked" in shelf.doubt


# -- conditions -----------------------------------------------------------------------------------------------------


def test_storage_is_used_when_it_heeds_both_conditions(bucket: Bucket) -> None:
    for _ in range(2):
        bucket.shelves().check_conditions()
    assert list(bucket.objects) == ["p/conditions.probe"]


@pytest.mark.parametrize("heeded", [(), ("If-Match",), ("If-None-Match",)], ids=["none", "If-Match", "If-None-Match"])
def test_storage_is_refused_when_it_heeds_only(heeded: tuple[str, ...], bucket: Bucket) -> None:
    bucket.heeds = frozenset(heeded)
    with pytest.raises(BundleUnavailable) as refused:
        bucket.shelves().check_conditions()
    assert refused.value.code == "storage_unsupported"
