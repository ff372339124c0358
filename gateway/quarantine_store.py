"""The quarantine of one gate on its disk, beside the store: written in one step, read at each start and reload.

Guarantees: an entry survives a power cut once `add` has returned; a file that is there and cannot be read stops whoever
asks. Every method blocks. Leaves deciding what is quarantined to `gateway.cross_checking`, releasing to people.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bundles.errors import BundleUnavailable
from bundles.sequence import write_durably
from gateway.config import GatewayConfig
from gateway.quarantine import FILE_MAX_BYTES, Entry, QuarantineUnreadable, decode_entries, encode_entries

FILE_NAME: Final = "quarantine.json"


class QuarantineStore:
    """Entries by bundle digest."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, config: GatewayConfig) -> QuarantineStore:
        """The quarantine of the gate with this configuration."""
        return cls(config.store_path.parent / FILE_NAME)

    def entries(self) -> dict[str, Entry]:
        """All of them. Raises `QuarantineUnreadable`."""
        try:
            with self.path.open("rb") as file:
                raw = file.read(FILE_MAX_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as failed:
            raise QuarantineUnreadable(f"{self.path}: {failed.strerror}") from failed
        return decode_entries(raw)

    def holds(self, bundle_digest: str) -> bool:
        """Whether that bundle may not decide. Raises `QuarantineUnreadable`."""
        return bundle_digest in self.entries()

    def add(self, bundle_digest: str, entry: Entry) -> None:
        """Keep why a bundle may not decide; the first reason stays. Raises `QuarantineUnreadable`."""
        self._write({bundle_digest: entry} | self.entries())

    def release(self, bundle_digest: str) -> None:
        """Forget a bundle. Raises `QuarantineUnreadable`."""
        self._write({digest: entry for digest, entry in self.entries().items() if digest != bundle_digest})

    def _write(self, entries: dict[str, Entry]) -> None:
        try:
            write_durably(self.path, encode_entries(entries), mode=0o600)
        except BundleUnavailable as failed:
            raise QuarantineUnreadable(failed.detail) from failed
