"""Deltas applied in a process of their own: the same archive or the same refusal as here, and never anything else."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

from bundles.archive import ArchiveLimits
from bundles.delta import apply_delta, make_delta
from bundles.errors import BundleRefused, BundleUnavailable
from pdp.bundle_child import MEMORY_MAX_BYTES, answered
from pdp.bundle_frames import (
    PREFIX_BYTES,
    FrameMalformed,
    archive_frame,
    document_size,
    read_archive_answer,
    read_document,
    read_rebuild,
    rebuild_frame,
    refusal_frame,
)
from pdp.bundle_verifier import BundleVerifier
from tests.bundles.parts import good_bundle
from tests.pdp import large

BASE, TARGET = large.archive(), good_bundle()


def _delta() -> bytes:
    made = make_delta(BASE, TARGET)
    assert made is not None
    return made


DELTA = _delta()


def parsed(pieces: tuple[bytes, ...]) -> tuple[dict[str, Any], list[bytes]]:
    raw = io.BytesIO(b"".join(pieces))
    document, sizes = read_document(raw.read(document_size(raw.read(PREFIX_BYTES))))
    return document, [raw.read(size) for size in sizes]


def asked_child(base: bytes, delta: bytes, limits: ArchiveLimits | None = None) -> bytes:
    question = b"".join(rebuild_frame(base, delta, limits or ArchiveLimits()))
    return read_archive_answer(*parsed(answered(io.BytesIO(question))))


def test_archive_is_the_same_when_a_child_applies_the_delta() -> None:
    assert apply_delta(BASE, DELTA) == TARGET
    assert asked_child(BASE, DELTA) == TARGET
    assert BundleVerifier(large_bytes=0).rebuild(BASE, DELTA) == TARGET


def test_small_delta_is_applied_without_a_child() -> None:
    verifier = BundleVerifier(command=("/nowhere/no-such-program",))
    assert verifier.rebuild(BASE, DELTA, ArchiveLimits()) == TARGET
    verifier = BundleVerifier(large_bytes=0, command=("/nowhere/no-such-program",))
    with pytest.raises(BundleUnavailable, match="bundle_check_failed"):
        verifier.rebuild(BASE, DELTA)


@pytest.mark.parametrize(
    ("base", "delta", "limits"),
    [
        pytest.param(TARGET, DELTA, ArchiveLimits(), id="another base"),
        pytest.param(BASE, b"no archive", ArchiveLimits(), id="no delta"),
        pytest.param(BASE, DELTA, ArchiveLimits(files_max_count=1), id="more files than may be"),
    ],
)
def test_refusal_is_the_same_when_a_child_refuses(base: bytes, delta: bytes, limits: ArchiveLimits) -> None:
    with pytest.raises(BundleRefused) as here:
        apply_delta(base, delta, limits)
    with pytest.raises(BundleRefused) as there:
        asked_child(base, delta, limits)
    assert (there.value.code, there.value.detail) == (here.value.code, here.value.detail)
    verifier = BundleVerifier(large_bytes=0)
    with pytest.raises(BundleRefused) as behind:
        verifier.rebuild(base, delta, limits)
    assert behind.value.code == here.value.code


SPOILT: dict[str, Callable[[dict[str, Any], list[bytes]], object]] = {
    "no delta": lambda document, parts: parts.pop(),
    "a part too many": lambda document, parts: parts.append(b""),
    "no limits": lambda document, parts: document.pop("limits"),
    "a limit is a text": lambda document, parts: document["limits"].update(ratio_max="1"),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_question_is_refused_when(spoil: Callable[[dict[str, Any], list[bytes]], object]) -> None:
    document, parts = parsed(rebuild_frame(BASE, DELTA, ArchiveLimits()))
    spoil(document, parts)
    with pytest.raises(FrameMalformed):
        read_rebuild(document, parts)


@pytest.mark.parametrize(
    ("document", "parts"),
    [
        pytest.param({}, [b"archive"], id="nothing is said"),
        pytest.param({"about": "rebuild"}, [], id="no archive"),
        pytest.param({"about": "rebuild"}, [b"a", b"b"], id="two archives"),
        pytest.param({"about": "rebuild", "more": 1}, [b"a"], id="more is said"),
        pytest.param({"refused": ["code"]}, [], id="a refusal without words"),
    ],
)
def test_answer_is_refused_when(document: dict[str, Any], parts: list[bytes]) -> None:
    with pytest.raises(FrameMalformed):
        read_archive_answer(document, parts)


def test_answer_is_read_as_it_was_said() -> None:
    assert read_archive_answer(*parsed(archive_frame(b"archive"))) == b"archive"
    with pytest.raises(BundleRefused, match="delta_too_large"):
        read_archive_answer(*parsed(refusal_frame(BundleRefused("delta_too_large", f"over {MEMORY_MAX_BYTES}"))))
