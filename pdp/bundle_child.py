"""The process that checks one large bundle for a gate, or applies one delta: ``python -m pdp.bundle_child``, a question in, an
answer out.

Guarantees: it works with the very functions that the gate uses for small bundles, at a low priority, within a bound of
memory and processor time, and says one whole frame or nothing. It opens no file and no connection. Leaves waiting for it,
and ending it, to ``pdp.bundle_verifier``.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO, Final

from bundles.archive import ArchiveLimits
from bundles.content import package_of
from bundles.delta import apply_delta
from bundles.errors import BundleError, BundleRefused
from bundles.merged import RULEBOOK_ROOTS
from bundles.trusted_set import TrustedBundle, verify_bundle
from pdp.bundle_frames import (
    PREFIX_BYTES,
    REBUILD,
    FrameMalformed,
    answer_frame,
    archive_frame,
    document_size,
    read_document,
    read_question,
    read_rebuild,
    refusal_frame,
)
from pdp.wasm.data import split_data

MEMORY_MAX_BYTES: Final = 3 << 30
"""Of address space. Twenty megabytes of data take about 400 MB; text made of nothing but empty objects takes most."""
PROCESSOR_MAX_SECONDS: Final = 120
NICENESS: Final = 10
"""Beside the gate: a tenth of its weight gives way to calls, and still ends on a machine that is never idle."""
EXIT_UNASKED: Final = 2


def read_exactly(source: BinaryIO, size: int) -> bytes:
    """``size`` bytes; raises :class:`FrameMalformed` when fewer come."""
    raw = source.read(size)
    if len(raw) != size:
        raise FrameMalformed("the frame ends early")
    return raw


def answered(source: BinaryIO, verify: Callable[..., TrustedBundle] = verify_bundle) -> tuple[bytes, ...]:
    """Read one question and give the answer's frame; raises :class:`FrameMalformed` for what is no question."""
    document, sizes = read_document(read_exactly(source, document_size(read_exactly(source, PREFIX_BYTES))))
    parts = [read_exactly(source, size) for size in sizes]
    if document.get("about") == REBUILD:
        return _rebuilt(*read_rebuild(document, parts))
    question = read_question(document, parts)
    try:
        bundle = verify(
            question.archive,
            question.trust,
            now=question.at,
            highest_sequence=question.highest_sequence,
            cosignatures=question.cosignatures,
        )
        return answer_frame(_split(bundle))
    except BundleError as refused:
        return refusal_frame(BundleRefused(refused.code, refused.detail))
    except MemoryError:
        return refusal_frame(BundleRefused("bundle_too_large", f"checking it takes over {MEMORY_MAX_BYTES} bytes"))


def _rebuilt(base: bytes, delta: bytes, limits: ArchiveLimits) -> tuple[bytes, ...]:
    try:
        return archive_frame(apply_delta(base, delta, limits))
    except BundleError as refused:
        return refusal_frame(BundleRefused(refused.code, refused.detail))
    except MemoryError:
        return refusal_frame(BundleRefused("delta_too_large", f"applying it takes over {MEMORY_MAX_BYTES} bytes"))


def _split(bundle: TrustedBundle) -> TrustedBundle:
    """The bundle with what only its engine reads as text, so that the gate need not parse it."""
    packages = {package_of(name, source)[0] for name, source in bundle.rego.items()}
    data, texts = split_data(bundle.data, RULEBOOK_ROOTS | packages)
    return replace(bundle, data=data, texts=texts)


def give_way() -> None:
    """Give way to the gate, and end rather than take more than the bounds."""
    os.nice(NICENESS)
    for limit, most in (
        (resource.RLIMIT_AS, MEMORY_MAX_BYTES),
        (resource.RLIMIT_CPU, PROCESSOR_MAX_SECONDS),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def main() -> int:
    """Answer the one question on standard input; the exit status."""
    give_way()
    try:
        pieces = answered(sys.stdin.buffer)
    except FrameMalformed:
        return EXIT_UNASKED
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
