"""The bundles that are decided with no more, as the gate keeps them on disk.

Guarantees: what was written is read back exactly or refused; at most `ENTRIES_MAX_COUNT` are kept, the newest. Leaves the disk
to `gateway.quarantine_store`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bundles.canonical import JsonValue, StrictJsonError, canonical_json, parse_strict
from gateway.errors import GateUnavailable

ENTRIES_MAX_COUNT: Final = 64
FILE_MAX_BYTES: Final = 65_536
_MEMBERS: Final = frozenset({"at_ms", "call", "input_digest", "ours", "theirs"})


class QuarantineUnreadable(GateUnavailable):
    """Nobody can say which bundles are quarantined, so none decides."""

    code = "quarantine_unreadable"


@dataclass(frozen=True, slots=True)
class Entry:
    """Why a bundle is quarantined: the first difference, in wall milliseconds and digests."""

    at_ms: int
    call: str
    input_digest: str
    ours: str
    theirs: str


def encode_entries(entries: Mapping[str, Entry]) -> bytes:
    """The file's content: entries by bundle digest, the newest `ENTRIES_MAX_COUNT` of them."""
    newest = sorted(entries.items(), key=lambda item: item[1].at_ms)[-ENTRIES_MAX_COUNT:]
    bundles: dict[str, JsonValue] = {
        digest: {
            "at_ms": entry.at_ms,
            "call": entry.call,
            "input_digest": entry.input_digest,
            "ours": entry.ours,
            "theirs": entry.theirs,
        }
        for digest, entry in newest
    }
    document: dict[str, JsonValue] = {"v": 1, "bundles": bundles}
    return canonical_json(document) + b"\n"


def decode_entries(raw: bytes) -> dict[str, Entry]:
    """What `encode_entries` wrote. Raises `QuarantineUnreadable`."""
    try:
        document = parse_strict(raw, max_bytes=FILE_MAX_BYTES, max_depth=4)
    except StrictJsonError as refused:
        raise QuarantineUnreadable(f"the quarantine file is no strict JSON: {refused}") from refused
    bundles = document.get("bundles") if isinstance(document, dict) and document.get("v") == 1 else None
    if not isinstance(bundles, dict):
        raise QuarantineUnreadable("the quarantine file is not of this version")
    return {digest: _entry(digest, value) for digest, value in bundles.items()}


def _entry(digest: str, value: JsonValue) -> Entry:
    if not isinstance(value, dict) or value.keys() != _MEMBERS:
        raise QuarantineUnreadable(f"the quarantine of {digest} has not the members it was written with")
    at_ms, *words = (value[name] for name in ("at_ms", "call", "input_digest", "ours", "theirs"))
    texts = [word for word in words if isinstance(word, str)]
    if isinstance(at_ms, bool) or not isinstance(at_ms, int) or len(texts) != len(words):
        raise QuarantineUnreadable(f"the quarantine of {digest} holds what was not written")
    call, input_digest, ours, theirs = texts
    return Entry(at_ms, call, input_digest, ours, theirs)
