"""A JSON Web Key Set as verification keys.

Guarantees: only public keys of the kinds that the gate verifies with, each bound to the algorithms that its type and
its own members allow. Leaves fetching to `jwks` and the choice of algorithms per issuer to `identity`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import AllowedPublicKeys, ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from bundles.canonical import JsonValue, StrictJsonError, parse_strict
from gateway.errors import GateMisuse

KEYS_MAX_COUNT: Final = 100
DOCUMENT_MAX_BYTES: Final = 1 << 18
RSA_MIN_BITS: Final = 2_048
RSA_MAX_BITS: Final = 8_192

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "k"})


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One public key and the algorithms it may be used with."""

    kid: str | None
    algorithms: frozenset[str]
    key: AllowedPublicKeys


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one issuer."""

    keys: tuple[VerificationKey, ...] = ()

    def find(self, kid: str | None, algorithm: str) -> AllowedPublicKeys | None:
        """The key for an algorithm; without `kid` only if there is exactly one that fits."""
        fitting = [
            entry.key for entry in self.keys if algorithm in entry.algorithms and (kid is None or entry.kid == kid)
        ]
        return fitting[0] if len(fitting) == 1 else None


def parse_key_set(raw: bytes) -> KeySet:
    """Read a JWKS document.

    Keys of kinds that are not used here are left out. Raises `GateMisuse` for a document that is none, holds private
    parts, or gives one `kid` to two keys.

    Source: RFC 7517 §4 and §5, RFC 8037 §2.
    """
    try:
        document = parse_strict(raw, max_bytes=DOCUMENT_MAX_BYTES, max_depth=8)
    except StrictJsonError as error:
        raise GateMisuse(f"the key set is no strict JSON: {error.code}") from error
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > KEYS_MAX_COUNT:
        raise GateMisuse(f"a key set has the member keys, a list of at most {KEYS_MAX_COUNT}")
    keys = []
    kids: set[str] = set()
    for entry in entries:
        if not isinstance(entry, dict):
            raise GateMisuse("a key of the key set is no object")
        key = _parse_key(entry)
        if key is None:
            continue
        if key.kid is not None and key.kid in kids:
            raise GateMisuse("two keys of the key set have the same kid")
        if key.kid is not None:
            kids.add(key.kid)
        keys.append(key)
    return KeySet(tuple(keys))


def _parse_key(entry: Mapping[str, JsonValue]) -> VerificationKey | None:
    if entry.get("kty") == "oct" or _PRIVATE_MEMBERS.intersection(entry):
        raise GateMisuse("the key set holds a secret or private key")
    operations = entry.get("key_ops")
    if entry.get("use", "sig") != "sig" or (isinstance(operations, list) and "verify" not in operations):
        return None
    key = _public_key(entry)
    algorithms = _algorithms(key)
    stated = entry.get("alg")
    if stated is not None:
        algorithms = algorithms.intersection({stated} if isinstance(stated, str) else ())
    if key is None or not algorithms:
        return None
    kid = entry.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise GateMisuse("the kid of a key is no text")
    return VerificationKey(kid, algorithms, key)


def _public_key(entry: Mapping[str, JsonValue]) -> AllowedPublicKeys | None:
    document = dict(entry)
    try:
        match entry.get("kty"):
            case "RSA":
                return _public(RSAAlgorithm.from_jwk(document))
            case "EC":
                return _public(ECAlgorithm.from_jwk(document))
            case "OKP":
                return _public(OKPAlgorithm.from_jwk(document))
    except (InvalidKeyError, UnsupportedAlgorithm, ValueError, TypeError, KeyError) as error:
        raise GateMisuse("a key of the key set cannot be read") from error
    return None


def _public(key: object) -> AllowedPublicKeys | None:
    return key if isinstance(key, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey) else None


def _algorithms(key: object) -> frozenset[str]:
    """Security: a key verifies with the algorithms of its own type only, so no token can make it an HMAC secret."""
    if isinstance(key, RSAPublicKey):
        return _RSA if RSA_MIN_BITS <= key.key_size <= RSA_MAX_BITS else frozenset()
    if isinstance(key, EllipticCurvePublicKey):
        return frozenset({_CURVES[key.curve.name]}) if key.curve.name in _CURVES else frozenset()
    return frozenset({"EdDSA"}) if isinstance(key, Ed25519PublicKey) else frozenset()
