"""Connectors as a gate would put them in force: the same compilers, asked before a bundle is signed.

Guarantees: what passes here is not refused for its connectors by a gate of this version. Leaves to `bundles`: everything that the
manifest's own form says; to a configuration: credentials, addresses and which connectors have an instance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from bundles.archive import ArchiveLimits, read_archive
from bundles.build import source_data
from bundles.canonical import JsonValue
from bundles.claims import SIGNATURES_FILE
from bundles.content import read_content
from bundles.errors import BundleRefused
from bundles.manifest import ConnectorManifest, load_manifests
from gateway.connectors.arguments import SchemaSet
from gateway.connectors.classify import ActionTable
from gateway.connectors.outbound import header_policy
from gateway.connectors.rewrite import Rewriter, RewriteTarget

_TARGET = RewriteTarget("instance", "https://upstream.invalid", "https://gate.invalid/c/instance")
"""Where a configuration's addresses would stand."""


def check_connectors(data: Mapping[str, JsonValue]) -> None:
    """Compile each connector of a bundle's data. Raises `BundleRefused` with every connector's first fault."""
    faults: list[str] = []
    for name, manifest in sorted(load_manifests(data).items()):
        for compiler in _COMPILERS:
            try:
                compiler(manifest)
            except BundleRefused as refused:
                faults.append(f"connectors/{name}: {refused.detail}")
                break
    if faults:
        raise BundleRefused("manifest_invalid", "\n".join(faults))


def check_source(source: Path) -> None:
    """The same for a source directory. Raises `BundleError`."""
    check_connectors(source_data(source))


def check_archive(raw: bytes) -> None:
    """The same for an archive whose signature is not looked at. Raises `BundleError`."""
    files = read_archive(raw, ArchiveLimits())
    files.pop(SIGNATURES_FILE, None)
    check_connectors(read_content(files).data)


def _rewriter(manifest: ConnectorManifest) -> None:
    Rewriter(manifest, (_TARGET,))


_COMPILERS: tuple[Callable[[ConnectorManifest], object], ...] = (ActionTable, SchemaSet, header_policy, _rewriter)
