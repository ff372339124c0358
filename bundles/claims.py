"""The signed payload of a bundle: OPA's file list and our claims that ride along.

Guarantees: :class:`BundleClaims` has every claim of the right type and each file listed once; ``check_files`` holds the
archive's files against the list, both ways; ``list_files`` writes the list OPA's verifier accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bundles.canonical import JsonValue, StrictJsonError, parse_strict, sha256_hex, strict_and_canonical
from bundles.errors import BundleRefused

SIGNATURES_FILE: Final = ".signatures.json"
MANIFEST_FILE: Final = ".manifest"
DATA_FILE: Final = "data.json"
HASH_ALGORITHM: Final = "SHA-256"
DATA_MAX_DEPTH: Final = 128


@dataclass(frozen=True, slots=True)
class BundleClaims:
    """What a signer says about a bundle; instants are Unix seconds."""

    name: str
    scope: str
    audience: tuple[str, ...]
    sequence: int
    epoch: int
    files: Mapping[str, str]
    expires_at: int | None
    not_before: int | None
    issued_at: int | None


def read_claims(payload: Mapping[str, JsonValue]) -> BundleClaims:
    """Read a verified payload; raises ``bundle_claims_invalid`` for a missing or mistyped claim."""
    sequence, epoch = _instant(payload, "tidegate_seq"), _instant(payload, "tidegate_epoch")
    if sequence is None or sequence < 1 or epoch is None:
        raise BundleRefused("bundle_claims_invalid", "tidegate_seq (from 1) and tidegate_epoch are required")
    return BundleClaims(
        name=_text(payload, "tidegate_name"),
        scope=_text(payload, "scope"),
        audience=_audience(payload.get("aud")),
        sequence=sequence,
        epoch=epoch,
        files=_files(payload.get("files")),
        expires_at=_instant(payload, "exp"),
        not_before=_instant(payload, "nbf"),
        issued_at=_instant(payload, "iat"),
    )


def hash_file(name: str, content: bytes) -> str:
    """The hash OPA computes: of canonical JSON for structured files, of the bytes for all others."""
    return _hashed(name, content)[0]


def _hashed(name: str, content: bytes) -> tuple[str, JsonValue]:
    """The hash, and the value of a structured file."""
    if not _is_structured(name):
        return sha256_hex(content), None
    try:
        value, text = strict_and_canonical(content, max_bytes=max(1, len(content)), max_depth=DATA_MAX_DEPTH)
    except StrictJsonError as refused:
        raise _unreadable(name, refused) from refused
    return sha256_hex(text), value


def _is_structured(name: str) -> bool:
    return name.rpartition("/")[2] in (DATA_FILE, MANIFEST_FILE)


def parse_structured(name: str, content: bytes) -> JsonValue:
    """Strictly parse a JSON file of a bundle; raises ``bundle_json_invalid`` naming file and place."""
    try:
        return parse_strict(content, max_bytes=max(1, len(content)), max_depth=DATA_MAX_DEPTH)
    except StrictJsonError as refused:
        raise _unreadable(name, refused) from refused


def _unreadable(name: str, refused: StrictJsonError) -> BundleRefused:
    return BundleRefused("bundle_json_invalid", f"{name}: {refused}")


def list_files(files: Mapping[str, bytes]) -> list[JsonValue]:
    """The ``files`` claim for a bundle of these files."""
    return [
        {"name": name, "hash": hash_file(name, content), "algorithm": HASH_ALGORITHM}
        for name, content in sorted(files.items())
    ]


def check_files(files: Mapping[str, bytes], listed: Mapping[str, str]) -> dict[str, JsonValue]:
    """Raise unless the archive holds exactly the listed files with exactly the listed content; the values of the
    structured ones, which parsing them again would give."""
    for name in files:
        if name not in listed:
            raise BundleRefused("bundle_file_unlisted", f"{name} is not in the signed list")
    parsed: dict[str, JsonValue] = {}
    for name, expected in listed.items():
        if name not in files:
            raise BundleRefused("bundle_file_missing", f"{name} was signed but is not in the archive")
        found, value = _hashed(name, files[name])
        if found != expected:
            raise BundleRefused("bundle_file_changed", f"{name} is not what was signed")
        if _is_structured(name):
            parsed[name] = value
    return parsed


def _text(payload: Mapping[str, JsonValue], claim: str) -> str:
    value = payload.get(claim)
    if not isinstance(value, str) or not value:
        raise BundleRefused("bundle_claims_invalid", f"{claim} is required and is a string")
    return value


def _instant(payload: Mapping[str, JsonValue], claim: str) -> int | None:
    if claim not in payload:
        return None
    value = payload[claim]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BundleRefused("bundle_claims_invalid", f"{claim} is a whole number")
    return value


def _audience(value: JsonValue) -> tuple[str, ...]:
    """RFC 7519 section 4.1.3: one string or an array of strings."""
    values = value if isinstance(value, list) else [value]
    audiences = tuple(item for item in values if isinstance(item, str) and item)
    if not audiences or len(audiences) != len(values):
        raise BundleRefused("bundle_claims_invalid", "aud is required and names an audience")
    return audiences


def _files(value: JsonValue) -> dict[str, str]:
    if not isinstance(value, list):
        raise BundleRefused("bundle_claims_invalid", "files is a list")
    listed: dict[str, str] = {}
    for entry in value:
        if not isinstance(entry, dict) or set(entry) != {"name", "hash", "algorithm"}:
            raise BundleRefused("bundle_claims_invalid", "a listed file has name, hash and algorithm")
        name, digest = entry["name"], entry["hash"]
        if not isinstance(name, str) or not isinstance(digest, str) or entry["algorithm"] != HASH_ALGORITHM:
            raise BundleRefused("bundle_claims_invalid", f"files are hashed with {HASH_ALGORITHM}")
        name = name.removeprefix("/")
        if name in listed:
            raise BundleRefused("bundle_claims_invalid", f"{name} is listed twice")
        listed[name] = digest
    return listed
