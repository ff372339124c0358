"""Tokens whose signature is right and whose header is not, and signatures made by other hands."""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from bundles.canonical import canonical_json
from bundles.errors import BundleMisuse, BundleRefused
from bundles.jws import check_key, load_public_key, parse_jws, sign_jws, verify_jws
from bundles.keys import public_pem
from bundles.trusted_set import TrustedKey
from tests.bundles.parts import signing_key

PAYLOAD = {"files": []}
MAX_BYTES = 1 << 16


@lru_cache(maxsize=1)
def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 3072)


def _unpadded(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _signed(header: Any) -> str:
    """A token over any header, with a signature that the key really made."""
    key = signing_key()
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signed = _unpadded(canonical_json(header)) + b"." + _unpadded(canonical_json(PAYLOAD))
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
    return (signed + b"." + _unpadded(r.to_bytes(32, "big") + s.to_bytes(32, "big"))).decode()


def _verify(token: str, key: TrustedKey | None = None) -> None:
    trusted = key or TrustedKey("bundle", "ES256", "write", public_pem(signing_key()))
    verify_jws(parse_jws(token, payload_max_bytes=MAX_BYTES), trusted)


@pytest.mark.parametrize("header", [{"alg": "ES256"}, {"alg": "ES256", "kid": "bundle", "typ": "JWT"}])
def test_token_is_taken_when_its_header_is_known(header: dict[str, str]) -> None:
    _verify(_signed(header))


HEADERS = {
    "no algorithm": {"kid": "bundle"},
    "algorithm none": {"alg": "none"},
    "a shared secret's algorithm": {"alg": "HS256"},
    "another curve's algorithm": {"alg": "ES384"},
    "the algorithm in small letters": {"alg": "es256"},
    "a list of algorithms": {"alg": ["ES256"]},
    "a critical extension": {"alg": "ES256", "crit": ["b64"], "b64": False},
    "a key of its own": {"alg": "ES256", "jwk": {"kty": "EC"}},
    "the address of a key": {"alg": "ES256", "jku": "urn:key"},
    "a chain of certificates": {"alg": "ES256", "x5c": []},
    "compression": {"alg": "ES256", "zip": "DEF"},
    "a list": ["ES256"],
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_token_is_refused_though_signed_when_its_header_has(header: Any) -> None:
    with pytest.raises(BundleRefused) as refused:
        _verify(_signed(header))
    assert refused.value.code == "bundle_signature_invalid"


LENGTHS = {"cut": slice(0, 63), "one half only": slice(0, 32), "one letter": slice(0, 1)}


@pytest.mark.parametrize("part", LENGTHS.values(), ids=LENGTHS.keys())
def test_signature_is_refused_by_its_length_when_it_is(part: slice) -> None:
    head, _, signature = _signed({"alg": "ES256"}).rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")[part]
    with pytest.raises(BundleRefused, match="wrong length"):
        _verify(f"{head}.{_unpadded(raw).decode()}")


def test_signature_is_refused_by_its_length_when_both_halves_have_a_zero_before_them() -> None:
    head, _, signature = _signed({"alg": "ES256"}).rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    with pytest.raises(BundleRefused, match="wrong length"):
        _verify(f"{head}.{_unpadded(bytes(1) + raw[:32] + bytes(1) + raw[32:]).decode()}")


PADDINGS: dict[str, padding.AsymmetricPadding] = {
    "RS256": padding.PKCS1v15(),
    "PS256": padding.PSS(padding.MGF1(hashes.SHA256()), 32),
}


def _rsa_token(said: str, made: padding.AsymmetricPadding) -> str:
    signed = _unpadded(canonical_json({"alg": said})) + b"." + _unpadded(canonical_json(PAYLOAD))
    return (signed + b"." + _unpadded(_rsa_key().sign(signed, made, hashes.SHA256()))).decode()


@pytest.mark.parametrize("algorithm", sorted(PADDINGS))
def test_rsa_token_is_taken_when_made_by_other_hands(algorithm: str) -> None:
    key = TrustedKey("bundle", algorithm, "write", public_pem(_rsa_key()))
    _verify(_rsa_token(algorithm, PADDINGS[algorithm]), key)


WRONG_PADDINGS = {
    "RS256 padded as PS256": ("RS256", PADDINGS["PS256"]),
    "PS256 padded as RS256": ("PS256", PADDINGS["RS256"]),
    "PS256 without salt": ("PS256", padding.PSS(padding.MGF1(hashes.SHA256()), 0)),
    "PS256 with another mask": ("PS256", padding.PSS(padding.MGF1(hashes.SHA384()), 32)),
}


@pytest.mark.parametrize(("algorithm", "made"), WRONG_PADDINGS.values(), ids=WRONG_PADDINGS.keys())
def test_rsa_token_is_refused_when_it_is(algorithm: str, made: padding.AsymmetricPadding) -> None:
    key = TrustedKey("bundle", algorithm, "write", public_pem(_rsa_key()))
    with pytest.raises(BundleRefused, match="did not sign"):
        _verify(_rsa_token(algorithm, made), key)


ALGORITHMS = ["HS256", "EdDSA", "none", "", "ES257", "RS1", "es256", "ES256 ", "ES256\n", "XES256"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_key_is_unfit_for_every_algorithm_that_is_none_of_ours(algorithm: str) -> None:
    for private in (signing_key(), _rsa_key()):
        with pytest.raises(BundleMisuse, match="is not one of RS, PS, ES") as unfit:
            check_key(private.public_key(), algorithm)
        assert unfit.value.code == "bundle_key_unfit"
        with pytest.raises(BundleMisuse):
            sign_jws(dict(PAYLOAD), key=private, algorithm=algorithm, keyid="bundle")


OTHER_KEYS = {"Ed25519": ed25519.Ed25519PrivateKey, "Ed448": ed448.Ed448PrivateKey}


@pytest.mark.parametrize("kind", OTHER_KEYS.values(), ids=OTHER_KEYS.keys())
def test_key_is_unfit_when_opa_reads_no_such(kind: Any) -> None:
    pem = kind.generate().public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    with pytest.raises(BundleMisuse, match="only EC and RSA"):
        load_public_key(pem, "ES256")


def test_key_is_fit_from_3072_bits_and_unfit_below() -> None:
    check_key(_rsa_key().public_key(), "PS512")
    for algorithm in ("RS256", "PS256"):
        with pytest.raises(BundleMisuse, match="3072"):
            check_key(rsa.generate_private_key(65537, 3071).public_key(), algorithm)
    with pytest.raises(BundleMisuse, match="own kind of key"):
        check_key(_rsa_key().public_key(), "ES256")
    with pytest.raises(BundleMisuse, match="secp256r1 does not make RS256"):
        check_key(signing_key().public_key(), "RS256")
