"""Key sets."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from jwt.algorithms import OKPAlgorithm

from gateway.edge.identity import ALGORITHMS
from gateway.edge.keyset import KEYS_MAX_COUNT, KeySet, parse_key_set
from gateway.errors import GateMisuse
from tests.gateway.edge.issuers import ED25519, P256, RSA, full_set, jwks, public_jwk


def test_parse_key_set_binds_each_key_to_its_algorithms() -> None:
    bound = {key.kid: key.algorithms for key in full_set().keys}
    assert bound == {
        "ed": {"EdDSA"},
        "p256": {"ES256"},
        "p384": {"ES384"},
        "p521": {"ES512"},
        "rsa": {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"},
    }
    assert frozenset().union(*bound.values()) == ALGORITHMS


def test_find_gives_nothing_when_two_keys_fit_and_no_kid_says_which() -> None:
    two = parse_key_set(jwks(public_jwk(ED25519, "a"), public_jwk(ED25519, "b")))
    assert two.find(None, "EdDSA") is None
    assert two.find("a", "EdDSA") is not None


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(public_jwk(ED25519, "a", use="enc"), id="for encryption"),
        pytest.param(public_jwk(ED25519, "a", key_ops=["sign"]), id="not to verify with"),
        pytest.param(public_jwk(ED25519, "a", alg="ES256"), id="bound to an algorithm of another type"),
        pytest.param(public_jwk(ED25519, "a", alg=7), id="bound to no algorithm"),
        pytest.param(public_jwk(rsa.generate_private_key(65537, 1024), "a"), id="too small"),
        pytest.param(public_jwk(ec.generate_private_key(ec.SECP256K1()), "a"), id="on a curve of coins"),
        pytest.param(
            OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True),
            id="of another Edwards curve",
        ),
        pytest.param({"kty": "AKP", "kid": "a"}, id="of an unknown type"),
        pytest.param({"kid": "a"}, id="of no type"),
    ],
)
def test_parse_key_set_leaves_a_key_out_when_it_is(key: dict[str, object]) -> None:
    kept = parse_key_set(jwks(key, public_jwk(P256, "kept")))
    assert [entry.kid for entry in kept.keys] == ["kept"]


def test_parse_key_set_narrows_a_key_when_it_states_its_algorithm() -> None:
    assert parse_key_set(jwks(public_jwk(RSA, "a", alg="PS256"))).find("a", "RS256") is None
    assert parse_key_set(jwks(public_jwk(RSA, "a", alg="PS256", key_ops=["verify"]))).find("a", "PS256") is not None


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no keys"),
        pytest.param(b'{"keys": {}}', id="keys that are no list"),
        pytest.param(b'{"keys": [1]}', id="a key that is no object"),
        pytest.param(b'{"keys": [], "keys": []}', id="keys twice"),
        pytest.param(jwks({"kty": "oct", "k": "c2VjcmV0"}), id="a shared secret"),
        pytest.param(jwks({**public_jwk(P256, "a"), "d": "AA"}), id="a private part"),
        pytest.param(jwks(public_jwk(P256, "a"), public_jwk(ED25519, "a")), id="one kid twice"),
        pytest.param(jwks({**public_jwk(P256), "kid": 5}), id="a kid that is no text"),
        pytest.param(jwks({**public_jwk(P256, "a"), "x": "AA"}), id="a point that is none"),
        pytest.param(jwks({**public_jwk(RSA, "a"), "n": 5}), id="a modulus that is no text"),
        pytest.param(jwks(*({"kty": "x"} for _ in range(KEYS_MAX_COUNT + 1))), id="one key too many"),
        pytest.param(b'{"keys": [], "x": "' + b"a" * (1 << 18) + b'"}', id="too large"),
    ],
)
def test_parse_key_set_is_misuse_when_the_document_is(raw: bytes) -> None:
    with pytest.raises(GateMisuse):
        parse_key_set(raw)


def test_parse_key_set_accepts_when_there_are_as_many_keys_as_allowed() -> None:
    assert parse_key_set(jwks(*({"kty": "x"} for _ in range(KEYS_MAX_COUNT)))) == KeySet()


def test_parse_key_set_keeps_keys_when_they_have_no_kid() -> None:
    unnamed = parse_key_set(jwks(public_jwk(ED25519), public_jwk(P256)))
    assert [key.kid for key in unnamed.keys] == [None, None]
    assert unnamed.find(None, "ES256") is not None
    assert unnamed.find("a", "ES256") is None
