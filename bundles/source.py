"""Read a bundle's source directory, and our library, from disk.

Guarantees: nothing outside the directory is read (links are refused), no more than the limits allow, hidden files are left
out. Leaves to ``source_layout``: what the files are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import rego
from bundles.errors import BundleRefused, BundleUnavailable
from bundles.source_layout import BundleSource, arrange_source, sources_digest

SOURCE_FILE_MAX_BYTES: Final = 32 << 20
SOURCE_FILES_MAX_COUNT: Final = 4096

__all__ = ["BundleSource", "read_data_source", "read_library", "read_source", "sources_digest"]


def read_source(folder: Path, *, files_max_count: int = SOURCE_FILES_MAX_COUNT) -> BundleSource:
    """Read a source directory; raises ``source_invalid``, ``source_missing`` and the codes of manifests and JSON."""
    return arrange_source(_read_tree(folder, files_max_count), _read_library_files())


def read_data_source(folder: Path) -> dict[str, bytes]:
    """The data files of a directory that holds no rules; raises ``source_invalid`` for anything else in it."""
    arranged = arrange_source(_read_tree(folder), {})
    if arranged.rego or arranged.tests or arranged.cases or not arranged.data_files:
        raise BundleRefused("source_invalid", f"{folder} is to hold data.json or data.yaml files, and no rules")
    return dict(arranged.data_files)


def read_library() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Our library's files and its tests, as ``lib/...``."""
    arranged = arrange_source({}, _read_library_files())
    return dict(arranged.rego), dict(arranged.tests)


def _read_library_files() -> dict[str, bytes]:
    return {f"lib/{name}": content for name, content in _read_tree(rego.root() / "lib").items()}


def _read_tree(folder: Path, files_max_count: int = SOURCE_FILES_MAX_COUNT) -> dict[str, bytes]:
    """Every file below ``folder``; hidden files are left out, links refused."""
    if not folder.is_dir():
        raise BundleUnavailable("source_missing", f"{folder} is not a directory")
    files: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if any(part.startswith((".", "__pycache__")) for part in relative.parts):
            continue
        if path.is_symlink():
            raise BundleRefused("source_invalid", f"{relative} is a link")
        if not path.is_file():
            continue
        if path.stat().st_size > SOURCE_FILE_MAX_BYTES or len(files) >= files_max_count:
            raise BundleRefused("bundle_too_large", f"{relative}: too large, or too many files")
        files[relative.as_posix()] = path.read_bytes()
    return files
