"""Issuers for tests: keys of every kind, their JWKS, and tokens that are right until a test breaks one thing."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.api_jws import PyJWS

from gateway.edge.identity import IssuerPolicy
from gateway.edge.keyset import KeySet, parse_key_set

ISSUER = "https://issuer.example"
AUDIENCE = "tidegate"
NOW = 1_800_000_000

ED25519 = ed25519.Ed25519PrivateKey.generate()
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
RSA = rsa.generate_private_key(65537, 2048)
OTHER = ed25519.Ed25519PrivateKey.generate()

KEYS: dict[str, Any] = {
    "EdDSA": ED25519,
    "ES256": P256,
    "ES384": P384,
    "ES512": P521,
    "RS256": RSA,
    "RS384": RSA,
    "RS512": RSA,
    "PS256": RSA,
    "PS384": RSA,
    "PS512": RSA,
}


def public_jwk(key: Any, kid: str | None = None, **members: object) -> dict[str, object]:
    """The public part of a key as a JWK."""
    public = key.public_key()
    if isinstance(key, rsa.RSAPrivateKey):
        document = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        document = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        document = OKPAlgorithm.to_jwk(public, as_dict=True)
    document.pop("key_ops", None)
    return {**document, **({"kid": kid} if kid else {}), **members}


def jwks(*keys: dict[str, object]) -> bytes:
    """A key set document."""
    return json.dumps({"keys": list(keys)}).encode()


def full_set() -> KeySet:
    """One key of each kind, named for its kind."""
    return parse_key_set(
        jwks(
            public_jwk(ED25519, "ed"),
            public_jwk(P256, "p256"),
            public_jwk(P384, "p384"),
            public_jwk(P521, "p521"),
            public_jwk(RSA, "rsa"),
        )
    )


KIDS = {"EdDSA": "ed", "ES256": "p256", "ES384": "p384", "ES512": "p521"}


class StaticKeys:
    """A key source with one set for one issuer."""

    def __init__(self, keys: KeySet | None = None) -> None:
        self.keys = keys or full_set()
        self.current = 1
        self.asked = 0

    def key(self, issuer: str, kid: str | None, algorithm: str) -> Any:
        self.asked += 1
        return self.keys.find(kid, algorithm)

    def generation(self, issuer: str) -> int:
        return self.current


def policy(**changes: Any) -> IssuerPolicy:
    """An issuer that may speak for tenant acme, with the roles of the starter policy."""
    fields: dict[str, Any] = {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "algorithms": tuple(KEYS),
        "tenants": ("acme",),
        "people": True,
        "roles": ("triage", "operator"),
    }
    return IssuerPolicy(**{**fields, **changes})


def claims(**changes: Any) -> dict[str, Any]:
    """Claims of a good token; a change to `None` takes a claim away."""
    good: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "tenant": "acme",
        "workspace": "ops",
        "environment": "prod",
        "roles": ["triage"],
        "iat": NOW - 10,
        "exp": NOW + 600,
    }
    merged = {**good, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def token(algorithm: str = "EdDSA", *, key: Any = None, headers: dict[str, Any] | None = None, **changes: Any) -> str:
    """A signed token."""
    merged = {"kid": KIDS.get(algorithm, "rsa"), **(headers or {})}
    payload = json.dumps(claims(**changes)).encode()
    return PyJWS().encode(payload, key or KEYS[algorithm], algorithm, headers={"typ": "JWT", **merged})


def encode_part(document: object) -> str:
    """One part of a hand-made token."""
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
