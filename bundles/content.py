"""What a bundle's files mean: its manifest, merged data, Rego, Wasm and probes.

Guarantees: every file has a known place and kind; data is one object without conflicts, inside the declared roots and
overlapping no package; the manifest is closed-world. Leaves to the engine: whether the policy loads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bundles.canonical import JsonValue
from bundles.claims import DATA_FILE, MANIFEST_FILE, parse_structured
from bundles.errors import BundleRefused

WASM_FILE: Final = "policy.wasm"
PROBES_FOLDER: Final = "probes/"
METADATA_VERSION: Final = 1
RULE_ROOTS: Final = frozenset({"policies", "tidegate"})

_MANIFEST_KEYS: Final = frozenset({"revision", "roots", "rego_version", "metadata"})
_METADATA_KEYS: Final = frozenset({"version", "profile", "entrypoints", "cacheable"})
_ENTRYPOINT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:/[A-Za-z_][A-Za-z0-9_]*)*")
_PACKAGE = re.compile(
    r"package\s+([A-Za-z_][A-Za-z0-9_]*(?:\s*\.\s*[A-Za-z_][A-Za-z0-9_]*|\[\"[^\"\\]+\"\])*)\s*(?:#.*)?"
)


@dataclass(frozen=True, slots=True)
class Probe:
    """A recorded input document with the decision the policy must give for it."""

    name: str
    input: dict[str, JsonValue]
    decision: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class BundleContent:
    """The parsed content of a bundle, before or after signing.

    ``texts`` is data that only an engine reads, as that engine's own JSON text by top-level name; no name stands in both
    it and ``data``. Only a bundle that was checked in a process of its own has any.
    """

    revision: str
    manifest: dict[str, JsonValue]
    data: dict[str, JsonValue]
    rego: dict[str, bytes]
    wasm: bytes | None
    probes: tuple[Probe, ...]
    profile: str | None
    entrypoints: tuple[str, ...]
    cacheable: bool
    texts: Mapping[str, bytes] = field(default_factory=dict)


def read_content(files: Mapping[str, bytes], parsed: Mapping[str, JsonValue] | None = None) -> BundleContent:
    """Read a bundle's files; raises :class:`BundleRefused`. ``parsed`` are values of some, as `check_files` gives them.

    Codes: ``bundle_manifest_invalid``, ``bundle_json_invalid``, ``bundle_data_conflict``, ``bundle_file_unknown``.
    """
    rego: dict[str, bytes] = {}
    data: dict[str, JsonValue] = {}
    probes: list[Probe] = []
    known = parsed or {}
    for name in sorted(files):
        content, base = files[name], name.rpartition("/")[2]
        if name in (MANIFEST_FILE, WASM_FILE):
            continue
        if base == DATA_FILE:
            _merge_at(data, name, known[name] if name in known else parse_structured(name, content))
        elif name.endswith(".rego"):
            rego[name] = content
        elif name.startswith(PROBES_FOLDER) and name.endswith(".json"):
            probes.append(read_probe(name, content))
        else:
            raise BundleRefused("bundle_file_unknown", f"{name} has no place in a bundle")
    manifest = _read_manifest(files.get(MANIFEST_FILE))
    metadata = _read_metadata(manifest)
    _check_overlap(data, rego)
    _check_roots(manifest, data, rego)
    return BundleContent(
        revision=str(manifest.get("revision", "")),
        manifest=manifest,
        data=data,
        rego=rego,
        wasm=files.get(WASM_FILE),
        probes=tuple(probes),
        profile=metadata.profile,
        entrypoints=metadata.entrypoints,
        cacheable=metadata.cacheable,
    )


def read_probe(name: str, content: bytes) -> Probe:
    """One ``probes/*.json`` file: ``{"input": {...}, "decision": {...}}``."""
    document = parse_structured(name, content)
    if not isinstance(document, dict) or not {"input", "decision"} <= set(document) <= {"input", "decision", "note"}:
        raise BundleRefused("bundle_json_invalid", f"{name}: a probe has an input and a decision")
    given, decision = document["input"], document["decision"]
    if not isinstance(given, dict) or not isinstance(decision, dict):
        raise BundleRefused("bundle_json_invalid", f"{name}: input and decision are objects")
    return Probe(name.rpartition("/")[2].removesuffix(".json"), given, decision)


def package_of(name: str, source: bytes) -> tuple[str, ...]:
    """The package path of a Rego file, from its first statement."""
    for line in source.decode("utf-8", "replace").splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        found = _PACKAGE.fullmatch(text)
        if found is None:
            break
        return tuple(re.findall(r"(?<=\[\")[^\"]+|[A-Za-z_][A-Za-z0-9_]*", found.group(1)))
    raise BundleRefused("bundle_rego_invalid", f"{name} does not begin with its package on one line")


@dataclass(frozen=True, slots=True)
class _Metadata:
    profile: str | None
    entrypoints: tuple[str, ...]
    cacheable: bool


def _read_manifest(raw_manifest: bytes | None) -> dict[str, JsonValue]:
    if raw_manifest is None:
        raise BundleRefused("bundle_manifest_invalid", f"no {MANIFEST_FILE} at the root")
    manifest = parse_structured(MANIFEST_FILE, raw_manifest)
    if not isinstance(manifest, dict):
        raise BundleRefused("bundle_manifest_invalid", "the manifest is not an object")
    unknown = set(manifest) - _MANIFEST_KEYS
    if unknown:
        # OPA's own "wasm" key would make stock OPA run the module instead of the Rego that was read.
        raise BundleRefused("bundle_manifest_invalid", f"the manifest has {min(unknown)!r}")
    if not isinstance(manifest.get("revision", ""), str):
        raise BundleRefused("bundle_manifest_invalid", "revision is a string")
    if manifest.get("rego_version", 1) != 1 or isinstance(manifest.get("rego_version"), (bool, float)):
        raise BundleRefused("bundle_manifest_invalid", "rego_version is 1")
    roots_of(manifest)
    return manifest


def roots_of(manifest: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """The manifest's roots, checked: strings, none inside another."""
    roots = manifest.get("roots", [""])
    if not isinstance(roots, list) or not roots or not all(isinstance(root, str) for root in roots):
        raise BundleRefused("bundle_manifest_invalid", "roots is a list of strings")
    plain = sorted(str(root).strip("/") for root in roots)
    for left, right in zip(plain, plain[1:], strict=False):
        if left == right or not left or right.startswith(left + "/"):
            raise BundleRefused("bundle_manifest_invalid", f"roots {left!r} and {right!r} overlap")
    return tuple(plain)


def _read_metadata(manifest: Mapping[str, JsonValue]) -> _Metadata:
    metadata = manifest.get("metadata", {})
    ours = metadata.get("tidegate") if isinstance(metadata, dict) else metadata
    if ours is None:
        return _Metadata(None, (), False)
    if not isinstance(ours, dict) or not set(ours) <= _METADATA_KEYS or ours.get("version") != METADATA_VERSION:
        raise BundleRefused("bundle_manifest_invalid", f"metadata.tidegate is not of version {METADATA_VERSION}")
    profile, cacheable, entrypoints = ours.get("profile"), ours.get("cacheable", False), ours.get("entrypoints", [])
    if not (profile is None or isinstance(profile, str)) or not isinstance(cacheable, bool):
        raise BundleRefused("bundle_manifest_invalid", "profile is a string and cacheable a boolean")
    if not isinstance(entrypoints, list):
        raise BundleRefused("bundle_manifest_invalid", "entrypoints is a list")
    paths = tuple(str(path) for path in entrypoints)
    if not all(isinstance(path, str) and _ENTRYPOINT.fullmatch(path) for path in entrypoints):
        raise BundleRefused("bundle_manifest_invalid", "entrypoints are rule paths")
    return _Metadata(profile, paths, cacheable)


def _merge_at(data: dict[str, JsonValue], name: str, document: JsonValue) -> None:
    """Put a ``data.json`` where its folder says, as OPA does."""
    folder = name.split("/")[:-1]
    if not folder and not isinstance(document, dict):
        raise BundleRefused("bundle_json_invalid", f"{name}: the root document is an object")
    placed: Any = document
    for part in reversed(folder):
        placed = {part: placed}
    _merge(data, placed, name)


def _merge(into: dict[str, JsonValue], other: dict[str, JsonValue], name: str) -> None:
    for key, value in other.items():
        present = into.get(key)
        if isinstance(present, dict) and isinstance(value, dict):
            _merge(present, value, name)
        elif key in into:
            raise BundleRefused("bundle_data_conflict", f"{name}: {key!r} is already given by another file")
        else:
            into[key] = value


def _check_overlap(data: Mapping[str, JsonValue], rego: Mapping[str, bytes]) -> None:
    """**Security**: data under a package's path is merged with its rules by the Wasm engine and can replace them, and the
    library would take data below `policies` for the rules of a policy that nobody wrote or tested.
    """
    taken = RULE_ROOTS & data.keys()
    if taken:
        raise BundleRefused("bundle_data_conflict", f"data stands at {min(taken)!r}, where only Rego may stand")
    for name, source in rego.items():
        node: JsonValue = dict(data)
        path = package_of(name, source)
        for part in path:
            if not isinstance(node, dict) or part not in node:
                break
            node = node[part]
        else:
            raise BundleRefused("bundle_data_conflict", f"data stands where {name} declares package {'.'.join(path)}")
        if not isinstance(node, dict):
            raise BundleRefused("bundle_data_conflict", f"data stands above package {'.'.join(path)} of {name}")


def _check_roots(manifest: Mapping[str, JsonValue], data: Mapping[str, JsonValue], rego: Mapping[str, bytes]) -> None:
    roots = roots_of(manifest)
    if "" in roots:
        return
    for name, source in rego.items():
        path = "/".join(package_of(name, source))
        if not any(path == root or path.startswith(root + "/") for root in roots):
            raise BundleRefused("bundle_manifest_invalid", f"{name} is outside the roots")
    for key in data:
        if not any(root == key or root.startswith(key + "/") for root in roots):
            raise BundleRefused("bundle_manifest_invalid", f"data at {key!r} is outside the roots")
