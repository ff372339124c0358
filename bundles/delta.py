"""What changed between two bundle archives, as a small archive; and the second archive again, from the first and that.

Guarantees: :func:`apply_delta` gives an archive of our own writer or refuses, within the limits of any archive;
:func:`make_delta` gives a delta only when applying it was tried and gave the target's bytes. Leaves to ``bundles.delta_envelope``
who made a delta and for what, to ``bundles.trusted_set`` whether the result may be believed.

A delta holds ``plan.json``, ``{"edited": {NAME: [[START, SIZE] | SIZE, …]}, "removed": [NAME, …]}``, and ``inserted``. A pair copies
from the base's file of that name (a new file has an empty base); a number takes the next bytes of ``inserted``, in the order of
the names.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from bundles.archive import ArchiveLimits, read_archive, write_archive
from bundles.canonical import SAFE_INTEGER_MAX, JsonValue, StrictJsonError, canonical_json, parse_strict
from bundles.delta_edits import Copy, Edit, Insert, apply_edits, edits_between
from bundles.errors import BundleError, BundleRefused

PLAN_FILE: Final = "plan.json"
INSERTED_FILE: Final = "inserted"
PLAN_MAX_BYTES: Final = 4 << 20
EDITS_MAX_COUNT: Final = 1 << 17
QUICK_SHARE: Final = 2
"""What the quickest packing may take of the best and a delta be given up for it; JSON takes 1.3 times as much."""
_CODE: Final = "delta_edits_invalid"


class ApplyDelta(Protocol):
    """:func:`apply_delta`, or what does the same elsewhere; blocks."""

    def __call__(self, base: bytes, delta: bytes, limits: ArchiveLimits | None = None) -> bytes: ...


@dataclass(frozen=True, slots=True)
class DeltaPlan:
    """What a delta does, form checked only: edits by file, files that go, all inserted bytes."""

    edited: dict[str, tuple[Edit, ...]]
    removed: tuple[str, ...]
    inserted: bytes


def make_delta(base: bytes, target: bytes, *, max_bytes: int | None = None) -> bytes | None:
    """The delta that makes the archive ``target`` out of ``base``; ``None`` when our writer does not reproduce ``target``.

    ``None`` too for one of more than ``max_bytes``; where most of the data is new, a quarter of the work shows that.
    Raises :class:`BundleRefused` for what is no archive.
    """
    old, new = read_archive(base), read_archive(target)
    edited: dict[str, JsonValue] = {}
    inserted: list[bytes] = []
    for name in sorted(new):
        if name in old and old[name] == new[name]:
            continue
        edits = edits_between(old.get(name, b""), new[name])
        edited[name] = [[step.start, step.size] if isinstance(step, Copy) else step.size for step in edits.steps]
        inserted.append(edits.inserted)
    if max_bytes is not None and _packs_beyond(inserted, max_bytes):
        return None
    removed: list[JsonValue] = [*sorted(set(old) - set(new))]
    plan = canonical_json({"edited": edited, "removed": removed})
    delta = write_archive({PLAN_FILE: plan, INSERTED_FILE: b"".join(inserted)})
    if max_bytes is not None and len(delta) > max_bytes:
        return None
    try:
        return delta if apply_delta(base, delta) == target else None
    except BundleRefused:
        return None  # Too many edits, or a plan past its limit: the whole archive is the shorter way.


def _packs_beyond(inserted: Sequence[bytes], max_bytes: int) -> bool:
    """Whether bytes pack to more, as far as the quickest packing tells; wrong for text that repeats itself far apart."""
    engine = zlib.compressobj(1)
    packed = 0
    for piece in inserted:
        packed += len(engine.compress(piece))
        if packed > QUICK_SHARE * max_bytes:
            return True
    return packed + len(engine.flush()) > QUICK_SHARE * max_bytes


def apply_delta(base: bytes, delta: bytes, limits: ArchiveLimits | None = None) -> bytes:
    """The archive that ``delta`` makes out of ``base``, which was verified before.

    Codes: ``delta_archive_invalid`` (no archive, or of other files), ``delta_edits_invalid`` (edits that do not fit this
    base), ``delta_too_large`` for every limit.

    **Security**: what comes out has no more authority than bytes from the network: compare its digest, then verify it.
    """
    limits = limits or ArchiveLimits()
    plan = read_plan(delta, limits)
    files = read_archive(base, limits)
    for name in plan.removed:
        if files.pop(name, None) is None:
            raise BundleRefused(_CODE, f"{name!r} is removed, the base has no such file")
    taken, total = 0, sum(len(content) for content in files.values())
    for name in sorted(plan.edited):
        steps, old = plan.edited[name], files.get(name, b"")
        size = sum(step.size for step in steps if isinstance(step, Insert))
        piece = plan.inserted[taken : taken + size]
        files[name] = apply_edits(old, steps, piece, max_bytes=limits.file_max_bytes)
        taken += size
        total += len(files[name]) - len(old)
        if total > limits.total_max_bytes or len(files) > limits.files_max_count:
            raise BundleRefused("delta_too_large", "what the edits make is larger than an archive may be")
    if taken != len(plan.inserted):
        raise BundleRefused(_CODE, "bytes are left that no edit inserts")
    try:
        return write_archive(files)
    except BundleError as refused:
        raise BundleRefused(_CODE, refused.detail) from refused


def read_plan(delta: bytes, limits: ArchiveLimits | None = None) -> DeltaPlan:
    """Take a delta apart without a base; raises as :func:`apply_delta` does."""
    try:
        files = read_archive(delta, limits)
    except BundleRefused as refused:
        code = "delta_too_large" if refused.code == "bundle_too_large" else "delta_archive_invalid"
        raise BundleRefused(code, refused.detail) from refused
    if set(files) != {PLAN_FILE, INSERTED_FILE}:
        raise BundleRefused("delta_archive_invalid", f"a delta has {PLAN_FILE} and {INSERTED_FILE} and nothing else")
    try:
        document = parse_strict(files[PLAN_FILE], max_bytes=PLAN_MAX_BYTES, max_depth=4)
    except StrictJsonError as refused:
        code = "delta_too_large" if refused.code == "too_large" else "delta_archive_invalid"
        raise BundleRefused(code, f"{PLAN_FILE}: {refused}") from refused
    if not isinstance(document, dict) or set(document) != {"edited", "removed"}:
        raise BundleRefused("delta_archive_invalid", f"{PLAN_FILE} has edited and removed")
    edited, removed = document["edited"], document["removed"]
    if not isinstance(edited, dict) or not isinstance(removed, list):
        raise BundleRefused("delta_archive_invalid", "edited is an object, removed a list")
    names = tuple(name for name in removed if isinstance(name, str))
    if len(set(names)) != len(removed) or set(names) & set(edited):
        raise BundleRefused("delta_archive_invalid", "removed are names, each once and none of them edited")
    if sum(len(steps) for steps in edited.values() if isinstance(steps, list)) > EDITS_MAX_COUNT:
        raise BundleRefused("delta_too_large", f"more than {EDITS_MAX_COUNT} edits")
    return DeltaPlan({name: _steps(steps) for name, steps in edited.items()}, names, files[INSERTED_FILE])


def plan_summary(plan: DeltaPlan) -> dict[str, JsonValue]:
    """For people: which files a delta touches and how much it brings."""
    return {
        "edited": {name: sum(step.size for step in steps) for name, steps in sorted(plan.edited.items())},
        "removed": [*plan.removed],
        "inserted_bytes": len(plan.inserted),
    }


def _steps(listed: JsonValue) -> tuple[Edit, ...]:
    if not isinstance(listed, list):
        raise BundleRefused("delta_archive_invalid", "a file's edits are a list")
    return tuple(_step(entry) for entry in listed)


def _step(entry: JsonValue) -> Edit:
    if isinstance(entry, list):
        if len(entry) != 2:
            raise BundleRefused("delta_archive_invalid", "a copy is its start and its size")
        return Copy(_count(entry[0], least=0), _count(entry[1], least=1))
    return Insert(_count(entry, least=1))


def _count(value: JsonValue, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= SAFE_INTEGER_MAX:
        raise BundleRefused("delta_archive_invalid", f"starts and sizes are whole numbers from {least}")
    return value
