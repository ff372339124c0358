"""Frames between a gate and the process that checks its large bundles: read back as written, or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundles.archive import ArchiveLimits
from bundles.errors import BundleRefused
from bundles.trusted_set import Probe, TrustedBundle
from pdp.bundle_frames import (
    DOCUMENT_MAX_BYTES,
    MAGIC,
    PARTS_MAX_BYTES,
    PARTS_MAX_COUNT,
    PREFIX_BYTES,
    FrameMalformed,
    Question,
    answer_frame,
    document_size,
    frame,
    question_frame,
    read_answer,
    read_document,
    read_question,
    refusal_frame,
)
from tests.pdp import large

QUESTION = large.question()
BUNDLE = replace(large.verified_here(QUESTION), texts={"more": b"{}"})


def parsed(pieces: Sequence[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """A frame as its reader gets it."""
    raw = b"".join(pieces)
    end = PREFIX_BYTES + document_size(raw[:PREFIX_BYTES])
    document, sizes = read_document(raw[PREFIX_BYTES:end])
    parts = []
    for size in sizes:
        parts.append(raw[end : end + size])
        end += size
    assert end == len(raw)
    return document, parts


def answer(pieces: Sequence[bytes], about: Question = QUESTION, digest: str = BUNDLE.digest) -> TrustedBundle:
    document, parts = parsed(pieces)
    return read_answer(document, parts, about=about, digest=digest)


@pytest.mark.parametrize(
    "asked",
    [
        QUESTION,
        replace(QUESTION, cosignatures=b"{}"),
        replace(QUESTION, cosignatures=b""),
        replace(QUESTION, trust=replace(QUESTION.trust, keys=QUESTION.trust.keys * 2, threshold=2, epoch=4)),
        replace(QUESTION, trust=replace(QUESTION.trust, keys=(), limits=ArchiveLimits(files_max_count=3))),
    ],
    ids=["one key", "co-signatures", "empty co-signatures", "two keys", "no keys and other limits"],
)
def test_question_is_read_back_when_it_was_framed(asked: Question) -> None:
    document, parts = parsed(question_frame(asked))
    assert read_question(document, parts) == asked


@pytest.mark.parametrize(
    "bundle",
    [
        BUNDLE,
        replace(BUNDLE, wasm=None, texts={}, expires_at=None, profile=None, probes=(), keyids=("a", "b")),
        replace(BUNDLE, rego={}, wasm=b"", texts={"a": b"1", "b": b"2"}, cacheable=True),
    ],
    ids=["everything", "no module and no texts", "an empty module"],
)
def test_bundle_is_read_back_when_it_was_framed(bundle: TrustedBundle) -> None:
    assert answer(answer_frame(bundle)) == bundle


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(), st.lists, max_leaves=5
        ),
        max_size=4,
    ),
    st.lists(st.binary(max_size=64), max_size=4),
)
def test_frame_is_read_back_when_it_holds_any_json_and_any_bytes(document: dict[str, Any], parts: list[bytes]) -> None:
    assert parsed(frame(document, parts)) == (document, parts)


def test_refusal_is_raised_when_the_answer_is_one() -> None:
    with pytest.raises(BundleRefused) as refused:
        answer(refusal_frame(BundleRefused("bundle_rollback", "sequence 2 is below 3")))
    assert (refused.value.code, refused.value.detail) == ("bundle_rollback", "sequence 2 is below 3")


@pytest.mark.parametrize(
    "prefix",
    [
        b"",
        MAGIC,
        MAGIC + b"\0\0\0",
        b"Traceback (most re",
        b"x" * PREFIX_BYTES,
        MAGIC + (DOCUMENT_MAX_BYTES + 1).to_bytes(4, "big"),
        MAGIC + b"\0\0\0\0\0",
    ],
    ids=["nothing", "no size", "half a size", "an error's text", "other bytes", "a document too long", "too much"],
)
def test_document_size_refuses_when_it_is_no_beginning(prefix: bytes) -> None:
    with pytest.raises(FrameMalformed):
        document_size(prefix)


def test_document_size_accepts_when_it_is_the_largest() -> None:
    assert document_size(MAGIC + DOCUMENT_MAX_BYTES.to_bytes(4, "big")) == DOCUMENT_MAX_BYTES


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"sizes":[]}',
        b'{"document":{}}',
        b'{"document":[],"sizes":[]}',
        b'{"document":{},"sizes":{}}',
        b'{"document":{},"sizes":[-1]}',
        b'{"document":{},"sizes":[true]}',
        b'{"document":{},"sizes":[1.0]}',
        orjson.dumps({"document": {}, "sizes": [PARTS_MAX_BYTES, 1]}),
        orjson.dumps({"document": {}, "sizes": [0] * (PARTS_MAX_COUNT + 1)}),
    ],
)
def test_document_is_refused_when_it_has_another_shape(raw: bytes) -> None:
    with pytest.raises(FrameMalformed):
        read_document(raw)


def test_document_is_accepted_when_its_parts_are_as_many_and_as_large_as_may_be() -> None:
    sizes = [PARTS_MAX_BYTES, *[0] * (PARTS_MAX_COUNT - 1)]
    assert read_document(orjson.dumps({"document": {}, "sizes": sizes})) == ({}, tuple(sizes))


QUESTIONS_SPOILT: dict[str, Callable[[dict[str, Any], list[bytes]], object]] = {
    "no archive": lambda document, parts: parts.clear(),
    "a key is missing": lambda document, parts: document["keys"].append(["b", "ES256", "write"]) or parts.pop(),
    "a part too many": lambda document, parts: parts.extend([b"", b""]),
    "keys are no list": lambda document, parts: document.update(keys={}),
    "a key without a scope": lambda document, parts: document.update(keys=[["bundle", "ES256"]]),
    "a key's id is a number": lambda document, parts: document.update(keys=[[1, "ES256", "write"]]),
    "no limits": lambda document, parts: document.pop("limits"),
    "a limit is missing": lambda document, parts: document["limits"].pop("ratio_max"),
    "a limit nobody knows": lambda document, parts: document["limits"].update(more=1),
    "a limit is a text": lambda document, parts: document["limits"].update(ratio_max="1"),
    "no name": lambda document, parts: document.pop("name"),
    "the epoch is true": lambda document, parts: document.update(epoch=True),
    "the time is a fraction": lambda document, parts: document.update(now=1.5),
    "no highest sequence": lambda document, parts: document.pop("highest_sequence"),
}


@pytest.mark.parametrize("spoil", QUESTIONS_SPOILT.values(), ids=QUESTIONS_SPOILT.keys())
def test_question_is_refused_when(spoil: Callable[[dict[str, Any], list[bytes]], object]) -> None:
    document, parts = parsed(question_frame(QUESTION))
    spoil(document, parts)
    with pytest.raises(FrameMalformed):
        read_question(document, parts)


ANSWERS_SPOILT: dict[str, Callable[[dict[str, Any], list[bytes]], object]] = {
    "nothing is said": lambda document, parts: document.clear(),
    "a refusal without words": lambda document, parts: (document.clear(), document.update(refused=["code"])),
    "a refusal of numbers": lambda document, parts: (document.clear(), document.update(refused=[1, 2])),
    "a refusal beside a bundle": lambda document, parts: document.pop("rego") and document.update(refused=["a", "b"]),
    "a part is missing": lambda document, parts: (parts.pop(), parts.pop()),
    "a part too many": lambda document, parts: parts.append(b""),
    "another bundle's name": lambda document, parts: document.update(name="other"),
    "another epoch": lambda document, parts: document.update(epoch=1),
    "another archive": lambda document, parts: document.update(digest="sha256:" + "1" * 64),
    "a sequence below the highest": lambda document, parts: document.update(sequence=2),
    "the sequence is a text": lambda document, parts: document.update(sequence="7"),
    "the data is a list": lambda document, parts: document.update(data=[]),
    "the manifest is missing": lambda document, parts: document.pop("manifest"),
    "the end is a text": lambda document, parts: document.update(expires_at="never"),
    "key ids are no list": lambda document, parts: document.update(keyids="bundle"),
    "a probe without a decision": lambda document, parts: document.update(probes=[["a", {}]]),
    "a probe's input is a list": lambda document, parts: document.update(probes=[["a", [], {}]]),
    "the profile is a number": lambda document, parts: document.update(profile=1),
    "cacheable is a number": lambda document, parts: document.update(cacheable=1),
}


@pytest.mark.parametrize("spoil", ANSWERS_SPOILT.values(), ids=ANSWERS_SPOILT.keys())
def test_answer_is_refused_when(spoil: Callable[[dict[str, Any], list[bytes]], object]) -> None:
    document, parts = parsed(answer_frame(BUNDLE))
    spoil(document, parts)
    with pytest.raises(FrameMalformed):
        read_answer(document, parts, about=QUESTION, digest=BUNDLE.digest)


def test_answer_is_accepted_when_its_sequence_is_the_highest() -> None:
    asked = replace(QUESTION, highest_sequence=BUNDLE.sequence)
    assert answer(answer_frame(BUNDLE), asked).sequence == asked.highest_sequence


def test_probes_are_read_back_in_order_when_there_are_several() -> None:
    probes = (Probe("b", {"v": 1}, {"effect": "DENY"}), Probe("a", {}, {}))
    assert answer(answer_frame(replace(BUNDLE, probes=probes))).probes == probes
