"""``tidegate init DIR``: a starter directory that runs as it is.

Guarantees: nothing that exists is overwritten; every secret is new, random and readable by its owner only. Leaves the
policies to `rego/starter`, signing to `bundles.build`.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any, Final

import typer
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import rego
from bundles.build import SigningOptions, assemble_starter, shipped_parts
from bundles.errors import BundleError
from bundles.keys import generate_signing_key, public_pem, write_private
from cli.output import EXIT_UNAVAILABLE, JSON_OPTION, emit, fail
from cli.token import DEVELOPMENT_KEYID

INSTANCES: Final[tuple[tuple[str, int, str, str], ...]] = (
    ("servicenow", 9501, "", "basic"),
    ("slack", 9502, "", "token"),
    ("github", 9503, "", "token"),
    ("openai", 9504, "", "token"),
    ("anthropic", 9505, "", "token"),
    ("slack-upload", 9506, "", "none"),
    ("webhook", 9507, "", "token"),
)
_HEADER = """\
# Tidegate. Every key is checked; an unknown one is refused. Secrets stand as references only.
# `tidegate gateway check --config tidegate.yaml` prints this with every default.
"""


def starter_config() -> dict[str, Any]:
    """The configuration of a starter directory, everything on loopback."""
    instances: dict[str, Any] = {}
    for name, port, path, kind in INSTANCES:
        instance: dict[str, Any] = {
            "connector": name,
            "tenants": ["*"],
            "base_url": f"http://127.0.0.1:{port}{path}",
        }
        secret = f"file:keys/{name}.secret"
        if kind == "basic":
            instance["credential"] = {"username": "gate", "password": secret}
        elif kind == "token":
            instance["credential"] = {"token": secret}
        instance["allow_addresses"] = ["loopback"]
        instances[name] = instance
    return {
        "listen": {"gate": "127.0.0.1:8080", "metrics": "127.0.0.1:9090"},
        "store": "sqlite:///state/tidegate.db",
        "identity": {
            "issuers": [
                {
                    "issuer": "urn:tidegate:development",
                    "audience": "tidegate",
                    "jwks": "file:keys/issuer.jwks.json",
                    "development": True,
                    "people": True,
                    "tenants": ["*"],
                }
            ]
        },
        "bundles": [
            {
                "name": "main",
                "tenants": ["*"],
                "source": "file:bundle.tar.gz",
                "audience": "tidegate",
                "trusted_keys": [
                    {"keyid": "bundle", "algorithm": "ES256", "scope": "write", "key": "file:keys/bundle.pub.pem"}
                ],
                "threshold": 1,
                "freshness": "local",
            }
        ],
        "engine": "wasm",
        "management": {"emergency_roles": ["operator"]},
        "limits": {},
        "instances": instances,
    }


def write_starter(directory: Path) -> dict[str, Any]:
    """Write the whole directory; what was made. Raises FileExistsError, OSError, BundleError."""
    for name in ("tidegate.yaml", "keys", "bundle", "bundle.tar.gz", "state"):
        if os.path.lexists(directory / name):
            raise FileExistsError(f"{directory / name} exists and is left as it is")
    directory.mkdir(parents=True, exist_ok=True)
    keys, state = directory / "keys", directory / "state"
    keys.mkdir(mode=0o700)
    state.mkdir(mode=0o700)
    _write_issuer(keys)
    signing = generate_signing_key(keys / "bundle.pem")
    (keys / "bundle.pub.pem").write_bytes(public_pem(signing))
    write_private(keys / "hmac.key", secrets.token_hex(32).encode() + b"\n")
    for name, _, _, kind in INSTANCES:
        if kind != "none":
            write_private(keys / f"{name}.secret", secrets.token_urlsafe(24).encode() + b"\n")
    shutil.copytree(rego.root() / "starter", directory / "bundle")
    wasm, probes = shipped_parts()
    options = SigningOptions(issued_at=int(time.time()))
    built = assemble_starter(directory / "bundle", wasm, probes, signing, directory / "bundle.tar.gz", options)
    text = _HEADER + yaml.safe_dump(starter_config(), sort_keys=False, allow_unicode=True)
    handle = os.open(directory / "tidegate.yaml", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(text)
    return {"directory": str(directory), "bundle": {"revision": built.revision, "sequence": built.sequence}}


def _ed25519_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_issuer(keys: Path) -> None:
    """The development issuer: an Ed25519 key and its key set (RFC 8037)."""
    key = Ed25519PrivateKey.generate()
    write_private(keys / "issuer.pem", _ed25519_pem(key))
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    jwk = {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": base64.urlsafe_b64encode(raw).rstrip(b"=").decode(),
        "kid": DEVELOPMENT_KEYID,
        "alg": "EdDSA",
        "use": "sig",
    }
    (keys / "issuer.jwks.json").write_text(json.dumps({"keys": [jwk]}) + "\n")


def init(
    directory: Path = typer.Argument(..., help="Where to write; made when absent, never overwritten."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Write a starter directory: configuration, keys, the starter policies and their signed bundle."""
    try:
        made = write_starter(directory)
    except FileExistsError as error:
        fail("exists", str(error), as_json=as_json)
    except BundleError as error:
        fail(error.code, error.detail, as_json=as_json)
    except OSError as error:
        fail("write_failed", str(error), status=EXIT_UNAVAILABLE, as_json=as_json)
    lines = (
        f"written: {directory}",
        f"start the gate:  tidegate gateway run --config {directory}/tidegate.yaml",
        f"change a rule:   edit {directory}/bundle, then tidegate bundle build {directory}/bundle "
        f"--key {directory}/keys/bundle.pem --out {directory}/bundle.tar.gz",
    )
    emit(as_json, made, lambda console: console.out("\n".join(lines)))
