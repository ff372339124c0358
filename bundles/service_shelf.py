"""What the bundle service keeps of each bundle, as values, and the port of whatever keeps it.

Guarantees: an index is read strictly and written in one form, so that two services write the same bytes for the same
history. Leaves disk and network to ``bundles.service_store`` and ``bundles.s3_shelf``, and what may be published to
``bundles.service``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from bundles.canonical import JsonValue, StrictJsonError, canonical_json, parse_strict, sha256_hex
from bundles.errors import BundleUnavailable
from bundles.service_config import ServedBundle

INDEX_MAX_BYTES: Final = 4 << 20
_MEMBERS: Final = frozenset({"digest", "sequence", "epoch", "revision", "published_at", "publisher", "size_bytes"})
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Publication:
    """One published archive; ``published_at`` in Unix seconds."""

    digest: str
    sequence: int
    epoch: int
    revision: str
    published_at: int
    publisher: str
    size_bytes: int

    def document(self) -> dict[str, JsonValue]:
        """As history shows it and the index keeps it."""
        return {
            "digest": self.digest,
            "sequence": self.sequence,
            "epoch": self.epoch,
            "revision": self.revision,
            "published_at": self.published_at,
            "publisher": self.publisher,
            "size_bytes": self.size_bytes,
        }

    @property
    def archive_name(self) -> str:
        """Where its archive lies, beside the index."""
        return f"archives/{self.digest.removeprefix('sha256:')}.tar.gz"

    @property
    def envelope_name(self) -> str:
        """Where its co-signatures lie, beside the index."""
        return f"archives/{self.digest.removeprefix('sha256:')}.dsse.json"


@dataclass(frozen=True, slots=True)
class Shelved:
    """What is served now."""

    publication: Publication
    archive: bytes = field(repr=False)
    cosignatures: bytes | None = field(repr=False)


class Shelf(Protocol):
    """One bundle's place. Its methods block: call them in a thread, one at a time."""

    @property
    def history(self) -> tuple[Publication, ...]:
        """Newest first."""

    @property
    def doubt(self) -> str | None:
        """Why something newer may have been published that this process does not know; ``None`` while it knows."""

    def highest(self, epoch: int) -> int:
        """The highest sequence ever published in ``epoch``; 0 when none was."""

    def open(self) -> Shelved | None:
        """Read the index and what it names; raises ``storage_damaged`` when they do not belong together."""

    def put(self, publication: Publication, archive: bytes, cosignatures: bytes | None) -> Shelved:
        """Keep a publication and make it the served one.

        Raises :class:`BundleRefused` ``precondition_failed`` when somebody else published meanwhile, and
        :class:`BundleUnavailable`, with ``storage_outcome_unknown`` when nobody knows whether it was kept.
        """

    def refresh(self, accept: Callable[[Shelved], None]) -> Shelved | None:
        """What another service made the served one meanwhile, once ``accept`` raised nothing about it."""


class Shelves(Protocol):
    """Where every bundle of a service has its shelf."""

    def shelf(self, served: ServedBundle) -> Shelf:
        """The place of one bundle, not opened yet."""


@dataclass(frozen=True, slots=True)
class Index:
    """What was published, newest first, and the highest sequence of each epoch, beyond what history still names."""

    history: tuple[Publication, ...] = ()
    highest: Mapping[str, int] = field(default_factory=dict)

    def highest_of(self, epoch: int) -> int:
        """The highest sequence ever published in ``epoch``; 0 when none was."""
        return self.highest.get(str(epoch), 0)

    def with_newest(self, publication: Publication, *, history_max_count: int) -> Index:
        """The index once ``publication`` is the newest; history keeps ``history_max_count`` entries."""
        kept = (publication, *self.history)[:history_max_count]
        return Index(kept, {**self.highest, str(publication.epoch): publication.sequence})

    def dropped_from(self, older: Index) -> tuple[Publication, ...]:
        """Which publications of ``older`` are named no more; an archive that any entry still names is kept."""
        named = {entry.digest for entry in self.history}
        return tuple(entry for entry in older.history if entry.digest not in named)

    def is_behind(self, known: Index) -> bool:
        """Whether something that was published according to ``known`` never happened according to this index."""
        if any(self.highest.get(epoch, 0) < sequence for epoch, sequence in known.highest.items()):
            return True
        return self.highest == known.highest and self.history[:1] != known.history[:1]

    def encoded(self) -> bytes:
        """The one form in which it is kept."""
        listed: list[JsonValue] = [entry.document() for entry in self.history]
        return canonical_json({"v": 1, "highest": dict(self.highest), "history": listed})


def parse_index(raw: bytes, place: str) -> Index:
    """An index as it is kept; raises ``storage_damaged`` naming ``place``."""
    try:
        document = parse_strict(raw, max_bytes=INDEX_MAX_BYTES, max_depth=4)
    except StrictJsonError as refused:
        raise BundleUnavailable("storage_damaged", f"{place}: {refused}") from refused
    damaged = BundleUnavailable("storage_damaged", f"{place} is not an index of this version")
    if not isinstance(document, dict) or set(document) != {"v", "highest", "history"} or document["v"] != 1:
        raise damaged
    highest, history = document["highest"], document["history"]
    if not isinstance(highest, dict) or not isinstance(history, list):
        raise damaged
    sequences = {epoch: value for epoch, value in highest.items() if isinstance(value, int)}
    if len(sequences) != len(highest):
        raise damaged
    return Index(tuple(_publication(entry, damaged) for entry in history), sequences)


def check_archive(publication: Publication, archive: bytes | None, place: str) -> bytes:
    """The archive, if it is the one that was published; raises ``storage_damaged`` naming ``place``."""
    if archive is None:
        raise BundleUnavailable("storage_damaged", f"{place} is missing, though the index names it")
    if f"sha256:{sha256_hex(archive)}" != publication.digest:
        raise BundleUnavailable("storage_damaged", f"{place} is not what was published")
    return archive


def _publication(entry: JsonValue, damaged: BundleUnavailable) -> Publication:
    if not isinstance(entry, dict) or set(entry) != _MEMBERS:
        raise damaged
    numbers = [entry[name] for name in ("sequence", "epoch", "published_at", "size_bytes")]
    texts = [entry[name] for name in ("digest", "revision", "publisher")]
    whole = [number for number in numbers if isinstance(number, int) and not isinstance(number, bool)]
    plain = [text for text in texts if isinstance(text, str)]
    if len(whole) != 4 or len(plain) != 3 or not _DIGEST.fullmatch(plain[0]):
        raise damaged
    return Publication(plain[0], whole[0], whole[1], plain[1], whole[2], plain[2], whole[3])
