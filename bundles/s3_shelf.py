"""One bundle's place in a bucket: archives by digest, one index, replaced only if nobody else replaced it meanwhile.

Guarantees: what :meth:`ObjectShelf.put` returned from was read back by its digest and stands in the index that S3 confirmed; a
writer that did not know the newest publication changes nothing; an index never goes back while this process runs; an answer
that was lost is never taken for a yes or a no. Any number of services may share a bucket. Leaves the protocol to
``bundles.s3_client``, and what may be published to ``bundles.service``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

from bundles.archive import ArchiveLimits
from bundles.dsse import ENVELOPE_MAX_BYTES
from bundles.errors import BundleError, BundleRefused, BundleUnavailable
from bundles.s3_answers import StorageFault, no_conditions
from bundles.service_config import ServedBundle
from bundles.service_shelf import INDEX_MAX_BYTES, Index, Publication, Shelved, check_archive, parse_index

PROBE_MAX_BYTES: Final = 4096
Say = Callable[[str, Mapping[str, object]], None]

_SUPERSEDED: Final = '"superseded"'
"""In the place of an ETag that was never learnt: no index has it, so that the next look reads and a write is refused."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object as it was at one moment."""

    etag: str
    body: bytes = field(repr=False)


class Missing(Enum):
    """Why no object came."""

    ABSENT = "absent"
    UNCHANGED = "unchanged"


class Objects(Protocol):
    """A bucket. Errors are :class:`StorageFault`, and ``precondition_failed`` where a condition did not hold."""

    def place(self, key: str) -> str:
        """Where an object is, in words."""

    def get(self, key: str, *, max_bytes: int, unless_etag: str | None = None) -> Found | Missing:
        """An object with its ETag, unless it is absent or still has ``unless_etag``."""

    def put(self, key: str, body: bytes) -> None:
        """Write an object, whatever is there."""

    def swap(self, key: str, body: bytes, *, expected: str | None) -> str:
        """Write an object if what is there has the ETag ``expected`` (``None``: if nothing is there); its new ETag."""

    def delete(self, key: str) -> None:
        """Remove an object; an absent one is removed already."""


@dataclass(frozen=True, slots=True)
class ShelfSettings:
    """What all shelves of one bucket share. ``boot_clock`` counts seconds, those of a machine's sleep as well."""

    prefix: str
    history_max_count: int
    unconfirmed_max_seconds: float
    boot_clock: Callable[[], float]
    say: Say


class ObjectShelves:
    """A bucket for all bundles of a service."""

    def __init__(self, objects: Objects, settings: ShelfSettings) -> None:
        self._objects = objects
        self._settings = settings

    def shelf(self, served: ServedBundle) -> ObjectShelf:
        """The place of one bundle, not opened yet."""
        return ObjectShelf(
            self._objects, f"{self._settings.prefix}published/{served.tenant or '_'}/{served.name}/", self._settings
        )

    def check_conditions(self) -> None:
        """Find out whether this storage keeps two writers apart; raises ``storage_unsupported`` when it does not.

        A storage that takes a condition and does not heed it would lose publications without a word.
        """
        key = f"{self._settings.prefix}conditions.probe"
        if isinstance(self._objects.get(key, max_bytes=PROBE_MAX_BYTES), Missing):
            self._objects.put(key, b"probe\n")
        self._must_fail(key, None)
        self._must_fail(key, '"0123456789abcdef0123456789abcdef"')

    def _must_fail(self, key: str, expected: str | None) -> None:
        try:
            self._objects.swap(key, b"probe\n", expected=expected)
        except BundleRefused:
            return
        condition = "If-None-Match" if expected is None else "If-Match"
        raise no_conditions(self._objects.place(key), f"{condition} was not heeded")


class ObjectShelf:
    """One bundle's place in a bucket. Its methods block: call them in a thread, one at a time."""

    def __init__(self, objects: Objects, folder: str, settings: ShelfSettings) -> None:
        self._objects = objects
        self._folder = folder
        self._settings = settings
        self._index = Index()
        self._etag: str | None = None
        self._confirmed_at = settings.boot_clock()
        self._fault: BundleError | None = None

    @property
    def history(self) -> tuple[Publication, ...]:
        """Newest first."""
        return self._index.history

    @property
    def doubt(self) -> str | None:
        """Why something newer may have been published that this process does not know; ``None`` while it knows."""
        age = self._settings.boot_clock() - self._confirmed_at
        if age <= self._settings.unconfirmed_max_seconds:
            return None
        why = self._fault.code if self._fault is not None else "nobody looked"
        return f"the storage has confirmed nothing for {age:.0f} s ({why})"

    def highest(self, epoch: int) -> int:
        """The highest sequence ever published in ``epoch``; 0 when none was."""
        return self._index.highest_of(epoch)

    def open(self) -> Shelved | None:
        """Read the index and what it names; raises ``storage_damaged`` when they do not belong together."""
        return self.refresh(_accept_any)

    def refresh(self, accept: Callable[[Shelved], None]) -> Shelved | None:
        """What another service made the served one meanwhile, once ``accept`` raised nothing about it.

        Raises :class:`StorageFault`, ``storage_rolled_back`` for an index that knows less than this process does, and what
        ``accept`` raises. State changes after the last check, so that an index that is not accepted overwrites nothing.
        """
        asked_at = self._settings.boot_clock()
        try:
            shelved = self._refreshed(accept)
        except BundleError as fault:
            self._fault = fault
            raise
        self._fault, self._confirmed_at = None, asked_at
        return shelved

    def _refreshed(self, accept: Callable[[Shelved], None]) -> Shelved | None:
        key = f"{self._folder}index.json"
        found = self._objects.get(key, max_bytes=INDEX_MAX_BYTES, unless_etag=self._etag)
        if found is Missing.UNCHANGED:
            return None
        if isinstance(found, Missing):
            if self._etag is not None:
                detail = (
                    f"{self._objects.place(key)} is gone; restore it, or start the service anew to begin without it"
                )
                raise BundleUnavailable("storage_rolled_back", detail)
            return None
        index = parse_index(found.body, self._objects.place(key))
        if index.is_behind(self._index):
            detail = f"{self._objects.place(key)} knows less than was published; somebody restored an older one"
            raise BundleUnavailable("storage_rolled_back", detail)
        shelved = None
        if index.history and index.history[0] != (self._index.history or (None,))[0]:
            shelved = self._read(index.history[0])
            accept(shelved)
        self._index, self._etag = index, found.etag
        return shelved

    def put(self, publication: Publication, archive: bytes, cosignatures: bytes | None) -> Shelved:
        """Keep a publication and make it the served one.

        Raises ``precondition_failed`` when another service published since this one looked, and
        ``storage_outcome_unknown`` when the answer was lost and the index does not tell: a later look does.
        """
        self._objects.put(self._folder + publication.archive_name, archive)
        if cosignatures is not None:
            self._objects.put(self._folder + publication.envelope_name, cosignatures)
        shelved = self._read(publication)
        index = self._index.with_newest(publication, history_max_count=self._settings.history_max_count)
        asked_at = self._settings.boot_clock()
        etag = self._swapped(index)
        older, self._index = self._index, index
        self._etag, self._fault, self._confirmed_at = etag, None, asked_at
        for old in index.dropped_from(older):
            self._remove(old)
        return shelved

    def _swapped(self, index: Index) -> str:
        """The ETag of the index once it is this one: an answer that did not come, or says no, is checked by reading."""
        key = f"{self._folder}index.json"
        try:
            return self._objects.swap(key, index.encoded(), expected=self._etag)
        except StorageFault as fault:
            if fault.undone:
                raise
            return self._found_as(index, key, fault)
        except BundleRefused as lost:
            return self._found_as(index, key, lost)

    def _found_as(self, index: Index, key: str, why: BundleError) -> str:
        try:
            found = self._objects.get(key, max_bytes=INDEX_MAX_BYTES)
        except BundleUnavailable as fault:
            raise BundleUnavailable("storage_outcome_unknown", f"{why}; then {fault}") from fault
        if isinstance(found, Found) and found.etag != self._etag:
            there = parse_index(found.body, self._objects.place(key))
            if there == index:
                return found.etag
            if index.history[0] in there.history:
                return _SUPERSEDED
            raise BundleRefused("precondition_failed", "another service published here meanwhile") from why
        # A write that was cut off may still arrive; the condition on it keeps it from undoing anything.
        raise BundleUnavailable("storage_outcome_unknown", str(why)) from why

    def _read(self, publication: Publication) -> Shelved:
        """A publication as it lies in the bucket, checked by its digest."""
        key = self._folder + publication.archive_name
        found = self._objects.get(key, max_bytes=ArchiveLimits().archive_max_bytes)
        body = found.body if isinstance(found, Found) else None
        archive = check_archive(publication, body, self._objects.place(key))
        envelope = self._objects.get(self._folder + publication.envelope_name, max_bytes=ENVELOPE_MAX_BYTES)
        return Shelved(publication, archive, envelope.body if isinstance(envelope, Found) else None)

    def _remove(self, old: Publication) -> None:
        """Remove what no index names any more. What cannot be removed only takes room, and is said."""
        for name in (old.archive_name, old.envelope_name):
            try:
                self._objects.delete(self._folder + name)
            except StorageFault as fault:
                self._settings.say("left_over", {"object": self._folder + name, "error": str(fault)})
                return


def _accept_any(shelved: Shelved) -> None:
    """What was in force when the service starts is checked by its digest, as on a disk."""
