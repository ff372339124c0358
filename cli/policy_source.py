"""What the policy commands work on: a bundle file, a configuration, questions from files or typed as options.

Guarantees: files are read up to their limits and strictly; a bundle that nobody verified is never shown as verified; nothing
here is enforced. Leaves deciding to ``pdp``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer

from bundles.archive import ArchiveLimits, read_archive
from bundles.canonical import JsonValue, StrictJsonError, parse_strict, sha256_hex
from bundles.claims import SIGNATURES_FILE
from bundles.content import BundleContent, read_content
from bundles.errors import BundleRefused, BundleUnavailable
from cli.findings import unreadable
from cli.output import EXIT_UNAVAILABLE, EXIT_USAGE, fail
from cli.token import read_config
from gateway.bundle_config import Bundle
from gateway.bundle_settings import merged_bundle, trusted_bundle
from gateway.config import GatewayConfig
from gateway.errors import GateMisuse
from gateway.store.keyfile import read_key_file
from gateway.store.offline_inputs_driver import OfflineInputs
from gateway.store.port import StoreUnavailable
from gateway.store.sealing import TenantKeys
from pdp.errors import InputRefused
from pdp.input_document import INPUT_DEPTH_MAX, INPUT_MAX_BYTES
from pdp.simulate import check_question

LINES_MAX_COUNT: Final = 100_000
BUNDLE_OPTION = typer.Option(None, "--bundle", help="A bundle file to ask in place of the one in force.")
CONFIG_OPTION = typer.Option(None, "--config", help="The configuration: its keys verify, its store holds the calls.")
INPUT_OPTION = typer.Option(None, "--input", help="An input document (.json), or one a line (.jsonl).")
DEFAULT_CONFIG: Final = Path("tidegate.yaml")


@dataclass(frozen=True, slots=True)
class OfflineBundle:
    """A bundle read from a file. ``verified`` says whether keys of a configuration signed it; ``fault`` why not."""

    content: BundleContent
    digest: str
    sequence: int
    verified: bool
    fault: str | None = None

    def document(self) -> dict[str, JsonValue]:
        """As JSON shows it."""
        told: dict[str, JsonValue] = {"revision": self.content.revision, "digest": self.digest}
        return {**told, "sequence": self.sequence, "verified": self.verified, "unverified_because": self.fault}


def read_bundle(path: Path, config: GatewayConfig | None) -> OfflineBundle:
    """The bundle at ``path``, verified where ``config`` trusts keys; raises ``BundleError``.

    Bundles with data only, which the configuration puts beside it, are put beside a verified one here too.
    """
    limits = ArchiveLimits()
    try:
        with path.open("rb") as file:
            raw = file.read(limits.archive_max_bytes + 1)
    except OSError as missing:
        raise BundleUnavailable("bundle_missing", f"{path}: {missing.strerror}") from missing
    fault = "no_configuration"
    if config is not None:
        try:
            return _verified(path, config)
        except BundleRefused as refused:
            fault = refused.code
    files = read_archive(raw, limits)
    files.pop(SIGNATURES_FILE, None)
    return OfflineBundle(read_content(files), f"sha256:{sha256_hex(raw)}", 0, False, fault)


def configured_bundle(config: GatewayConfig) -> OfflineBundle:
    """The configured bundle, or the one last fetched; raises ``BundleError`` and ``ConfigError``."""
    return _merged(config, config.document.full_bundle)


def _verified(path: Path, config: GatewayConfig) -> OfflineBundle:
    return _merged(config, config.document.full_bundle.model_copy(update={"source": f"file:{path.resolve()}"}))


def _merged(config: GatewayConfig, full: Bundle) -> OfflineBundle:
    """A verified bundle with the configured data bundles beside it."""
    trusted = trusted_bundle(config, full, 0)
    beside = {part.name: trusted_bundle(config, part, 0) for part in config.document.bundles if part.data_only}
    merged = merged_bundle(config, {**beside, full.name: trusted})
    return OfflineBundle(merged, merged.digest, merged.sequence, True)


def configured(path: Path | None, *, as_json: bool) -> GatewayConfig | None:
    """The configuration at ``path``; without one that in this directory, if it stands there."""
    if path is None and not DEFAULT_CONFIG.is_file():
        return None
    return read_config(path if path is not None else DEFAULT_CONFIG, as_json=as_json)


def needed_config(path: Path | None, *, as_json: bool) -> GatewayConfig:
    """The configuration that the store is found by; ends the command without one."""
    config = configured(path, as_json=as_json)
    if config is None:
        fail("config_missing", "recorded calls are read by --config FILE", status=EXIT_USAGE, as_json=as_json)
    return config


def open_inputs(config: GatewayConfig, *, as_json: bool) -> OfflineInputs:
    """The kept inputs of a configuration's store; ends the command when they cannot be read."""
    try:
        keys = TenantKeys(read_key_file(config.file(config.document.ledger.hmac)))
        return OfflineInputs(config.store_path, keys, int(time.time() * 1000))
    except StoreUnavailable as failed:
        fail(failed.code, failed.detail, status=EXIT_UNAVAILABLE, as_json=as_json)
    except PermissionError as failed:
        found = unreadable(config.store_path, failed)
        fail("store_unreadable", f"{found.what}; {found.mend}", status=EXIT_UNAVAILABLE, as_json=as_json)
    except GateMisuse as failed:
        fail("key_missing", str(failed), status=EXIT_UNAVAILABLE, as_json=as_json)


def read_questions(path: Path) -> Iterator[dict[str, Any]]:
    """Every question of a file, checked; raises ``InputRefused`` with the line's number where there are several."""
    if path.suffix != ".jsonl":
        yield _question(_bounded(path), "")
        return
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(INPUT_MAX_BYTES + 2), b""), 1):
            if number > LINES_MAX_COUNT:
                raise InputRefused(f"more than {LINES_MAX_COUNT} lines")
            if line.strip():
                yield _question(line, f"line {number}: ")


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(INPUT_MAX_BYTES + 1)


def _question(raw: bytes, where: str) -> dict[str, Any]:
    try:
        return check_question(parse_strict(raw, max_bytes=INPUT_MAX_BYTES, max_depth=INPUT_DEPTH_MAX))
    except StrictJsonError as refused:
        raise InputRefused(f"{where}no strict JSON: {refused}") from refused
    except InputRefused as refused:
        raise InputRefused(f"{where}{refused.detail}") from refused
