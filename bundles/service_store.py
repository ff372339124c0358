"""The bundle service's disk: archives by digest, one index per bundle, replaced in one step.

Guarantees: what :meth:`BundleShelf.put` returned from survives a power cut; the index names only archives that were whole
before it; a damaged archive is found when the service starts. One process uses a directory at a time. Leaves to
``bundles.service``: what may be published.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bundles.canonical import JsonValue, StrictJsonError, canonical_json, parse_strict, sha256_hex
from bundles.errors import BundleUnavailable
from bundles.sequence import write_durably

INDEX_MAX_BYTES: Final = 4 << 20
_MEMBERS: Final = frozenset({"digest", "sequence", "epoch", "revision", "published_at", "publisher", "size_bytes"})


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


@dataclass(frozen=True, slots=True)
class Shelved:
    """What is served now."""

    publication: Publication
    archive: bytes
    cosignatures: bytes | None


class BundleShelf:
    """One bundle's place on disk. Its methods block: call them in a thread."""

    def __init__(self, folder: Path, *, history_max_count: int) -> None:
        self._folder = folder
        self._history_max = history_max_count
        self._history: tuple[Publication, ...] = ()
        self._highest: dict[str, int] = {}

    @property
    def history(self) -> tuple[Publication, ...]:
        """Newest first."""
        return self._history

    def highest(self, epoch: int) -> int:
        """The highest sequence ever published in ``epoch``; 0 when none was."""
        return self._highest.get(str(epoch), 0)

    def open(self) -> Shelved | None:
        """Read the index and what it names; raises ``storage_damaged`` when they do not belong together."""
        raw = _read(self._folder / "index.json")
        if raw is None:
            return None
        self._history, self._highest = _parse_index(raw, self._folder)
        if not self._history:
            return None
        newest = self._history[0]
        archive = _read(self._archive(newest))
        if archive is None or f"sha256:{sha256_hex(archive)}" != newest.digest:
            raise BundleUnavailable("storage_damaged", f"{self._archive(newest)} is not what was published")
        return Shelved(newest, archive, _read(self._envelope(newest)))

    def archive_of(self, digest: str) -> bytes | None:
        """The archive of a publication in the history; ``None`` for any other, and for one that is not whole any more."""
        known = next((entry for entry in self._history if entry.digest == digest), None)
        archive = _read(self._archive(known)) if known is not None else None
        return archive if archive is not None and f"sha256:{sha256_hex(archive)}" == digest else None

    def put(self, publication: Publication, archive: bytes, cosignatures: bytes | None) -> Shelved:
        """Keep a publication and make it the served one."""
        write_durably(self._archive(publication), archive)
        if cosignatures is not None:
            write_durably(self._envelope(publication), cosignatures)
        kept = (publication, *self._history)[: self._history_max]
        dropped = (publication, *self._history)[self._history_max :]
        highest = {**self._highest, str(publication.epoch): publication.sequence}
        listed: list[JsonValue] = [entry.document() for entry in kept]
        write_durably(
            self._folder / "index.json", canonical_json({"v": 1, "highest": dict(highest), "history": listed})
        )
        self._history, self._highest = kept, highest
        for old in dropped:
            for path in (self._archive(old), self._envelope(old)):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
        return Shelved(publication, archive, cosignatures)

    def _archive(self, publication: Publication) -> Path:
        return self._folder / "archives" / f"{publication.digest.removeprefix('sha256:')}.tar.gz"

    def _envelope(self, publication: Publication) -> Path:
        return self._folder / "archives" / f"{publication.digest.removeprefix('sha256:')}.dsse.json"


@contextmanager
def only_process(directory: Path) -> Iterator[None]:
    """Hold the directory for this process; raises ``storage_busy`` when another one has it."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as refused:
        raise BundleUnavailable("storage_failed", f"{directory}: {refused.strerror}") from refused
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as refused:
            raise BundleUnavailable("storage_busy", f"another bundle service uses {directory}") from refused
        yield
    finally:
        os.close(handle)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as refused:
        raise BundleUnavailable("storage_failed", f"{path}: {refused.strerror}") from refused


def _parse_index(raw: bytes, folder: Path) -> tuple[tuple[Publication, ...], dict[str, int]]:
    try:
        document = parse_strict(raw, max_bytes=INDEX_MAX_BYTES, max_depth=4)
    except StrictJsonError as refused:
        raise BundleUnavailable("storage_damaged", f"{folder}: {refused}") from refused
    damaged = BundleUnavailable("storage_damaged", f"{folder}/index.json is not an index of this version")
    if not isinstance(document, dict) or set(document) != {"v", "highest", "history"} or document["v"] != 1:
        raise damaged
    highest, history = document["highest"], document["history"]
    if not isinstance(highest, dict) or not isinstance(history, list):
        raise damaged
    sequences = {epoch: value for epoch, value in highest.items() if isinstance(value, int)}
    if len(sequences) != len(highest):
        raise damaged
    return tuple(_publication(entry, damaged) for entry in history), sequences


def _publication(entry: JsonValue, damaged: BundleUnavailable) -> Publication:
    if not isinstance(entry, dict) or set(entry) != _MEMBERS:
        raise damaged
    numbers = [entry[name] for name in ("sequence", "epoch", "published_at", "size_bytes")]
    texts = [entry[name] for name in ("digest", "revision", "publisher")]
    whole = [number for number in numbers if isinstance(number, int) and not isinstance(number, bool)]
    plain = [text for text in texts if isinstance(text, str)]
    if len(whole) != 4 or len(plain) != 3:
        raise damaged
    return Publication(plain[0], whole[0], whole[1], plain[1], whole[2], plain[2], whole[3])
