"""A bundle's source files, arranged into what the build works with.

Guarantees: every file of the directory has a known place (policies, cases, connectors with schemas, data), and manifests
are complete JSON with their schemas inside and full action names. Leaves to ``source``: reading the disk; to
``build``: whether any of it is right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bundles.canonical import JsonValue, canonical_json, sha256_hex
from bundles.claims import parse_structured
from bundles.content import Probe, read_probe
from bundles.errors import BundleRefused
from bundles.manifest import load_manifest
from bundles.yaml_text import parse_yaml

_TEST: Final = "_test.rego"
_SCHEMA_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.json")
_CASE = re.compile(r"policies/([^/]+)/cases/([^/]+)\.json")
_SCHEMA_FILE = re.compile(r"connectors/[^/]+/schemas/[^/]+\.json")


@dataclass(frozen=True, slots=True)
class BundleSource:
    """A source directory with our library: Rego, its tests, data files as they go into the bundle, cases."""

    rego: Mapping[str, bytes]
    tests: Mapping[str, bytes]
    data_files: Mapping[str, bytes]
    cases: tuple[Probe, ...]


def arrange_source(files: Mapping[str, bytes], library: Mapping[str, bytes]) -> BundleSource:
    """Give every file of a source directory its place; ``library`` is ours, as ``lib/...``.

    Raises ``source_invalid`` and the codes of manifests, YAML and JSON.
    """
    policies: dict[str, bytes] = {}
    tests: dict[str, bytes] = {}
    data_files: dict[str, bytes] = {}
    cases: list[Probe] = []
    for name, content in files.items():
        base = name.rpartition("/")[2]
        case = _CASE.fullmatch(name)
        if name.startswith("policies/") and name.endswith(".rego"):
            (tests if name.endswith(_TEST) else policies)[name] = content
        elif case is not None:
            probe = read_probe(name, content)
            cases.append(Probe(f"case-{case.group(1)}-{case.group(2)}", probe.input, probe.decision))
        elif base in ("data.json", "data.yaml") and not name.startswith(("policies/", "lib/", "probes/")):
            target = f"{name.rpartition('.')[0]}.json"
            if target in data_files:
                raise BundleRefused("source_invalid", f"{target} stands beside its YAML twin")
            data_files[target] = _read_data(name, content, files)
        elif not (_SCHEMA_FILE.fullmatch(name) or base.endswith(".md")):
            raise BundleRefused("source_invalid", f"{name} has no place in a bundle's source")
    sources = {name: content for name, content in library.items() if name.endswith(".rego")}
    for name, content in sources.items():
        (tests if name.endswith(_TEST) else policies)[name] = content
    return BundleSource(policies, tests, data_files, tuple(cases))


def sources_digest(sources: Mapping[str, bytes]) -> str:
    """One SHA-256 over the names and contents of Rego files, which tells whether a compiled module is theirs."""
    listed: dict[str, JsonValue] = {name: sha256_hex(content) for name, content in sources.items()}
    return sha256_hex(canonical_json(listed))


def _read_data(name: str, content: bytes, files: Mapping[str, bytes]) -> bytes:
    try:
        value = parse_yaml(content) if name.endswith(".yaml") else parse_structured(name, content)
    except BundleRefused as refused:
        raise BundleRefused(refused.code, f"{name}: {refused.detail}") from refused
    if not name.startswith("connectors/"):
        return canonical_json(value)
    folder = name.rpartition("/")[0]
    if not isinstance(value, dict) or f"connectors/{value.get('connector')}" != folder:
        raise BundleRefused("manifest_invalid", f"{name}: the manifest does not name the connector of its folder")
    value = _complete_manifest(folder, value, files)
    load_manifest(value)
    return canonical_json(value)


def _complete_manifest(folder: str, manifest: dict[str, JsonValue], files: Mapping[str, bytes]) -> dict[str, JsonValue]:
    actions = manifest.get("actions")
    if not isinstance(actions, list):
        return manifest
    return {**manifest, "actions": [_complete_action(folder, manifest, action, files) for action in actions]}


def _complete_action(
    folder: str, manifest: Mapping[str, JsonValue], action: JsonValue, files: Mapping[str, bytes]
) -> JsonValue:
    """The action with its full name and its schema in place of the schema's file name."""
    if not isinstance(action, dict):
        return action
    complete: dict[str, Any] = dict(action)
    prefix = f"{manifest.get('connector')}."
    if isinstance(complete.get("name"), str) and not complete["name"].startswith(prefix):
        complete["name"] = prefix + complete["name"]
    arguments = complete.get("arguments")
    if isinstance(arguments, dict) and isinstance(arguments.get("schema"), str):
        named = arguments["schema"]
        path = f"{folder}/schemas/{named}"
        if not _SCHEMA_NAME.fullmatch(named) or path not in files:
            raise BundleRefused(
                "manifest_invalid", f"{complete.get('name')}: no schema {json.dumps(named)} in {folder}"
            )
        complete["arguments"] = {**arguments, "schema": parse_structured(path, files[path])}
    return complete
