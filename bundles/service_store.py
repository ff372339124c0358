"""The bundle service's disk: archives by digest, one index per bundle, replaced in one step.

Guarantees: what :meth:`BundleShelf.put` returned from survives a power cut; the index names only archives that were whole
before it; a damaged archive is found when the service starts. One process uses a directory at a time. Leaves to
``bundles.service``: what may be published.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bundles.errors import BundleUnavailable
from bundles.sequence import write_durably
from bundles.service_config import ServedBundle
from bundles.service_shelf import Index, Publication, Shelved, check_archive, parse_index


class DirectoryShelves:
    """A directory for all bundles of a service."""

    def __init__(self, directory: Path, *, history_max_count: int) -> None:
        self._directory = directory
        self._history_max = history_max_count

    def shelf(self, served: ServedBundle) -> BundleShelf:
        """The place of one bundle, not opened yet."""
        folder = self._directory / "published" / (served.tenant or "_") / served.name
        return BundleShelf(folder, history_max_count=self._history_max)


class BundleShelf:
    """One bundle's place on disk. Its methods block: call them in a thread."""

    doubt: None = None
    """Nobody else writes here."""

    def __init__(self, folder: Path, *, history_max_count: int) -> None:
        self._folder = folder
        self._history_max = history_max_count
        self._index = Index()

    @property
    def history(self) -> tuple[Publication, ...]:
        """Newest first."""
        return self._index.history

    def highest(self, epoch: int) -> int:
        """The highest sequence ever published in ``epoch``; 0 when none was."""
        return self._index.highest_of(epoch)

    def open(self) -> Shelved | None:
        """Read the index and what it names; raises ``storage_damaged`` when they do not belong together."""
        place = self._folder / "index.json"
        raw = _read(place)
        if raw is None:
            return None
        self._index = parse_index(raw, str(place))
        if not self.history:
            return None
        newest = self.history[0]
        path = self._folder / newest.archive_name
        archive = check_archive(newest, _read(path), str(path))
        return Shelved(newest, archive, _read(self._folder / newest.envelope_name))

    def put(self, publication: Publication, archive: bytes, cosignatures: bytes | None) -> Shelved:
        """Keep a publication and make it the served one."""
        write_durably(self._folder / publication.archive_name, archive)
        if cosignatures is not None:
            write_durably(self._folder / publication.envelope_name, cosignatures)
        older, index = self._index, self._index.with_newest(publication, history_max_count=self._history_max)
        write_durably(self._folder / "index.json", index.encoded())
        self._index = index
        for old in index.dropped_from(older):
            for name in (old.archive_name, old.envelope_name):
                with contextlib.suppress(FileNotFoundError):
                    (self._folder / name).unlink()
        return Shelved(publication, archive, cosignatures)

    def refresh(self, accept: Callable[[Shelved], None]) -> Shelved | None:
        """Nothing: one process uses a directory."""
        return None


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
