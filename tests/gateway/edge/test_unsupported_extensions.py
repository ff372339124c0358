"""Tokens and key sets that are well signed and carry what this gate must not pass over."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.edge.identity import IdentityVerifier
from gateway.edge.keyset import parse_key_set
from gateway.errors import GateMisuse, Refusal
from tests.gateway.edge.issuers import (
    ED25519,
    ISSUER,
    NOW,
    P256,
    RSA,
    StaticKeys,
    claims,
    encode_part,
    jwks,
    policy,
    public_jwk,
)


def _token(**extensions: object) -> str:
    """A token whose signature is right, over a header with `extensions`."""
    signed = f"{encode_part({'alg': 'EdDSA', 'kid': 'ed', **extensions})}.{encode_part(claims())}"
    return f"{signed}.{encode_part(ED25519.sign(signed.encode()))}"


def _verify(raw: str) -> str:
    return IdentityVerifier({ISSUER: policy()}, StaticKeys()).verify(raw, NOW).id


def test_verify_gives_the_subject_when_the_header_has_no_extension() -> None:
    assert _verify(_token(typ="JWT")) == "ada"


EXTENSIONS: dict[str, dict[str, object]] = {
    "compression": {"zip": "DEF"},
    "a payload said to be encoded": {"b64": True},
    "a critical extension that libraries know": {"crit": ["b64"], "b64": True},
    "an empty list of critical extensions": {"crit": []},
}


@pytest.mark.parametrize("extensions", EXTENSIONS.values(), ids=EXTENSIONS.keys())
def test_verify_refuses_though_signed_when_the_header_has(extensions: dict[str, object]) -> None:
    with pytest.raises(Refusal, match="extension") as caught:
        _verify(_token(**extensions))
    assert caught.value.code == "identity_invalid"


PRIVATE: dict[str, dict[str, Any]] = {
    "a whole EC key": ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True),
    "a whole Edwards key": OKPAlgorithm.to_jwk(ED25519, as_dict=True),
    "a whole RSA key": RSAAlgorithm.to_jwk(RSA, as_dict=True),
    "one factor of an RSA key": public_jwk(RSA, "rsa", p="AQAB"),
    "a secret beside a public key": public_jwk(P256, "p256", k="c2VjcmV0"),
}


@pytest.mark.parametrize("document", PRIVATE.values(), ids=PRIVATE.keys())
def test_parse_key_set_is_misuse_when_a_key_of_a_kind_that_is_used_holds(document: dict[str, Any]) -> None:
    with pytest.raises(GateMisuse, match="private"):
        parse_key_set(jwks(document))
