"""Manifests and subjects for the connector tests: small ones by hand, and the shipped ones as they stand."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bundles.canonical import parse_strict
from bundles.manifest import ConnectorManifest, load_manifest
from bundles.source import read_source
from gateway.edge.identity import Subject
from gateway.errors import Refusal

STARTER = Path(__file__).resolve().parents[3] / "rego" / "starter"
NOW = 1_800_000_000.0


def action(name: str, method: str, path: str, **more: Any) -> dict[str, Any]:
    """One action of a manifest document; `schema` and the other parts of `arguments` may be given directly."""
    arguments = {
        key: more.pop(key) for key in ("schema", "body", "parameters", "additional", "body_max_bytes") if key in more
    }
    match = {"method": method, "path": path}
    match |= {key: more.pop(f"match_{key}") for key in ("query", "body") if f"match_{key}" in more}
    return {"name": name, "match": match, "mode": "write", "arguments": arguments, **more}


def document(*actions: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A manifest document with `actions`."""
    base: dict[str, Any] = {
        "connector": "svc",
        "version": "1.0.0",
        "base_path": "/api",
        "caller_token": ["bearer"],
        "credential_places": ["bearer"],
        "auth": {"kind": "bearer"},
        "actions": list(actions),
    }
    return base | more


def manifest(*actions: dict[str, Any], **more: Any) -> ConnectorManifest:
    """A loaded manifest with `actions`."""
    return load_manifest(document(*actions, **more))


@cache
def shipped(connector: str) -> ConnectorManifest:
    """A manifest of the starter bundle."""
    return load_manifest(parse_strict(read_source(STARTER).data_files[f"connectors/{connector}/data.json"]))


def subject(**changes: Any) -> Subject:
    """A development subject of tenant acme."""
    values: dict[str, Any] = {
        "id": "dev",
        "type": "agent",
        "issuer": "urn:test",
        "tenant": "acme",
        "workspace": "ops",
        "environment": "test",
        "roles": ("developer",),
        "acr": None,
        "amr": (),
        "auth_time": None,
        "on_behalf_of": None,
        "actors": (),
        "people": False,
        "expires_at": int(NOW) + 3_600,
    }
    return Subject(**(values | changes))


def refused(call: Callable[[], object]) -> Refusal:
    """The refusal that `call` raises."""
    with pytest.raises(Refusal) as caught:
        call()
    return caught.value
