"""The highest sequence seen of each bundle, kept on disk so that a restart forgets nothing.

Guarantees: ``raise_to`` returns only after the new value would survive a power cut; a value never goes down. One
process writes a file at a time (the gateway's leader, or the build command).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from bundles.canonical import SAFE_INTEGER_MAX, JsonValue, StrictJsonError, canonical_json, parse_strict
from bundles.errors import BundleMisuse, BundleUnavailable


class SequenceFile:
    """``{bundle name: highest sequence}`` in one small JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def highest(self, name: str) -> int:
        """The highest sequence seen of ``name``; 0 when none was.

        **Security**: a file that cannot be read is an error, not a fresh start, or deleting nothing but its
        readability would allow a rollback.
        """
        return self._read().get(name, 0)

    def raise_to(self, name: str, sequence: int) -> None:
        """Remember ``sequence`` for ``name`` unless a higher one is remembered already."""
        if not 1 <= sequence <= SAFE_INTEGER_MAX:
            raise BundleMisuse("bundle_sequence_invalid", f"{sequence} is no sequence")
        known = self._read()
        if known.get(name, 0) >= sequence:
            return
        known[name] = sequence
        document: dict[str, JsonValue] = dict(known)
        write_durably(self._path, canonical_json(document) + b"\n")

    def _read(self) -> dict[str, int]:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as refused:
            raise BundleUnavailable("sequence_unavailable", f"{self._path}: {refused.strerror}") from refused
        try:
            document = parse_strict(raw)
        except StrictJsonError as refused:
            raise BundleUnavailable("sequence_unavailable", f"{self._path}: {refused}") from refused
        if not isinstance(document, dict):
            raise BundleUnavailable("sequence_unavailable", f"{self._path} is not an object")
        known: dict[str, int] = {}
        for name, value in document.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise BundleUnavailable("sequence_unavailable", f"{self._path}: {name!r} has no sequence")
            known[name] = value
        return known


def write_durably(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` with ``content`` in one step that survives a power cut."""
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as out:
            os.fchmod(out.fileno(), mode)
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as refused:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        raise BundleUnavailable("write_failed", f"{path}: {refused.strerror}") from refused


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
