"""Tokens and key sets as an issuer makes them, beside those that the command line makes."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.e2e.harness import GateProcess, StartFailed

LIFETIME_SECONDS = 600


def issuer_key(directory: Path) -> Ed25519PrivateKey:
    """The private key of a starter directory's development issuer."""
    key = serialization.load_pem_private_key((directory / "keys" / "issuer.pem").read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise StartFailed("the development issuer's key is no Ed25519 key")
    return key


def issuer_kid(gate: GateProcess) -> str:
    """The name under which the development issuer publishes its key."""
    return str(jwt.get_unverified_header(gate.token("triage-bot", "triage"))["kid"])


def good_claims(gate: GateProcess) -> dict[str, Any]:
    """Claims that the gate accepts of the triage bot, from now on."""
    claims: dict[str, Any] = jwt.decode(gate.token("triage-bot", "triage"), options={"verify_signature": False})
    now = int(time.time())
    return {**claims, "iat": now, "nbf": now, "exp": now + LIFETIME_SECONDS}


def issued(gate: GateProcess, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
    """A token of the development issuer, properly signed, with other claims; ``None`` leaves one out."""
    claims = {name: value for name, value in {**good_claims(gate), **changes}.items() if value is not None}
    headers = {"kid": issuer_kid(gate), **(header or {})}
    return jwt.encode(claims, issuer_key(gate.directory), "EdDSA", headers=headers)


def published(keys: Mapping[str, Ed25519PrivateKey]) -> str:
    """The key set (RFC 8037) of some keys by name."""
    entries = []
    for kid, key in keys.items():
        raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        entries.append({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "alg": "EdDSA", "use": "sig"})
    return json.dumps({"keys": entries})
