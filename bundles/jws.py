"""Compact JWS over bundles: exactly OPA's format, with fewer algorithms than OPA allows.

Guarantees: ``verify_jws`` accepts only the algorithm the key is configured for, never the one a token asks for, and
only keys strong enough; ``sign_jws`` writes what OPA's verifier reads. Leaves to its callers: what the payload says.
**Source**: RFC 7515, RFC 7518; OPA ``v1/bundle/verify.go``.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from bundles.canonical import JsonValue, StrictJsonError, canonical_json, parse_strict
from bundles.errors import BundleMisuse, BundleRefused

RSA_MIN_BITS: Final = 3072
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_HASHES: Final[dict[str, type[hashes.SHA256] | type[hashes.SHA384] | type[hashes.SHA512]]] = {
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}
_CURVES: Final = {"ES256": ("secp256r1", 32), "ES384": ("secp384r1", 48), "ES512": ("secp521r1", 66)}
_ALGORITHM = re.compile(r"(RS|PS|ES)(256|384|512)")
_PART = re.compile(rb"[A-Za-z0-9_-]+")


class VerifyingKey(Protocol):
    """What is needed of a trusted key here."""

    @property
    def keyid(self) -> str: ...
    @property
    def algorithm(self) -> str: ...
    @property
    def public_pem(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class UnverifiedJws:
    """A well-formed token whose signature nobody has checked yet."""

    unverified_header: dict[str, JsonValue]
    unverified_payload: dict[str, JsonValue]
    signed: bytes
    signature: bytes


def parse_jws(token: str, *, payload_max_bytes: int) -> UnverifiedJws:
    """Take a compact token apart without believing it; raises ``bundle_signature_invalid``."""
    parts = token.encode("utf-8", "surrogatepass").split(b".")
    if len(parts) != 3:
        raise BundleRefused("bundle_signature_invalid", "not a compact JWS")
    header = _object(_decode(parts[0]), 4096)
    if not set(header) <= {"alg", "typ", "kid"}:
        # RFC 7515 section 4.1.11: a critical or unknown extension that is not understood must not be passed over.
        raise BundleRefused("bundle_signature_invalid", "the JWS header has fields this version does not know")
    payload = _object(_decode(parts[1]), payload_max_bytes)
    return UnverifiedJws(header, payload, parts[0] + b"." + parts[1], _decode(parts[2]))


def verify_jws(jws: UnverifiedJws, key: VerifyingKey) -> None:
    """Raise ``bundle_signature_invalid`` unless ``key`` signed ``jws`` with the key's configured algorithm.

    **Security**: the token's ``alg`` is only compared, so it can choose nothing.
    """
    if jws.unverified_header.get("alg") != key.algorithm:
        raise BundleRefused("bundle_signature_invalid", f"the token's algorithm is not {key.algorithm}")
    public = load_public_key(key.public_pem, key.algorithm)
    family, digest = key.algorithm[:2], _HASHES[key.algorithm[2:]]()
    try:
        if isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(_der(jws.signature, _CURVES[key.algorithm][1]), jws.signed, ec.ECDSA(digest))
        else:
            public.verify(jws.signature, jws.signed, _padding(family, digest), digest)
    except InvalidSignature as refused:
        raise BundleRefused("bundle_signature_invalid", f"key {key.keyid!r} did not sign this") from refused


def sign_jws(payload: dict[str, JsonValue], *, key: PrivateKey, algorithm: str, keyid: str) -> str:
    """A compact JWS over ``payload`` (as canonical JSON) whose header names ``keyid``."""
    header = canonical_json({"alg": algorithm, "kid": keyid, "typ": "JWT"})
    signed = _encode(header) + b"." + _encode(canonical_json(payload))
    check_key(key.public_key(), algorithm)
    digest = _HASHES[algorithm[2:]]()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        width = _CURVES[algorithm][1]
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(digest)))
        signature = r.to_bytes(width, "big") + s.to_bytes(width, "big")
    else:
        signature = key.sign(signed, _padding(algorithm[:2], digest), digest)
    return (signed + b"." + _encode(signature)).decode("ascii")


def load_public_key(pem: bytes, algorithm: str) -> PublicKey:
    """Read a public key that is fit for ``algorithm``; raises :class:`BundleMisuse` ``bundle_key_unfit``."""
    try:
        public = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as refused:
        raise BundleMisuse("bundle_key_unfit", "not a PEM public key") from refused
    if not isinstance(public, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise BundleMisuse("bundle_key_unfit", "only EC and RSA keys sign bundles, because OPA reads no others")
    check_key(public, algorithm)
    return public


def check_key(public: PublicKey, algorithm: str) -> None:
    """Raise ``bundle_key_unfit`` unless the key's type, curve and size fit the algorithm.

    **Security**: HS256 and kin are refused outright; a shared secret lets every verifier sign.
    """
    if not _ALGORITHM.fullmatch(algorithm):
        raise BundleMisuse("bundle_key_unfit", f"{algorithm!r} is not one of RS, PS, ES with 256, 384, 512")
    if isinstance(public, ec.EllipticCurvePublicKey):
        if algorithm not in _CURVES or public.curve.name != _CURVES[algorithm][0]:
            raise BundleMisuse("bundle_key_unfit", f"a key on {public.curve.name} does not make {algorithm}")
    elif algorithm in _CURVES or public.key_size < RSA_MIN_BITS:
        raise BundleMisuse("bundle_key_unfit", f"{algorithm} needs its own kind of key; RSA from {RSA_MIN_BITS} bits")


def default_algorithm(key: PrivateKey | PublicKey) -> str:
    """The algorithm a key is used with when nothing else is said."""
    if isinstance(key, (rsa.RSAPrivateKey, rsa.RSAPublicKey)):
        return "PS256"
    for algorithm, (curve, _) in _CURVES.items():
        if key.curve.name == curve:
            return algorithm
    raise BundleMisuse("bundle_key_unfit", f"no algorithm for a key on {key.curve.name}")


def _padding(family: str, digest: hashes.HashAlgorithm) -> padding.AsymmetricPadding:
    if family == "RS":
        return padding.PKCS1v15()
    return padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)


def _der(signature: bytes, width: int) -> bytes:
    if len(signature) != 2 * width:
        raise BundleRefused("bundle_signature_invalid", "the signature has the wrong length")
    return encode_dss_signature(int.from_bytes(signature[:width], "big"), int.from_bytes(signature[width:], "big"))


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decode(part: bytes) -> bytes:
    """Unpadded base64url whose unused bits are zero, so that one token has one spelling."""
    try:
        if not _PART.fullmatch(part):
            raise BundleRefused("bundle_signature_invalid", "not base64url")
        data = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except binascii.Error as refused:
        raise BundleRefused("bundle_signature_invalid", "not base64url") from refused
    if _encode(data) != part:
        raise BundleRefused("bundle_signature_invalid", "not the one spelling of its bytes")
    return data


def _object(raw: bytes, max_bytes: int) -> dict[str, JsonValue]:
    try:
        value = parse_strict(raw, max_bytes=max_bytes, max_depth=16)
    except StrictJsonError as refused:
        raise BundleRefused("bundle_signature_invalid", f"a JWS part: {refused}") from refused
    if not isinstance(value, dict):
        raise BundleRefused("bundle_signature_invalid", "a JWS part is not an object")
    return value
