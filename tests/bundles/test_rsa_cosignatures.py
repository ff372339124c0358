"""Co-signatures of RSA keys: each padding with its own algorithm only, as other makers of DSSE envelopes write them."""

from __future__ import annotations

import base64
import json
from functools import lru_cache

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from bundles.dsse import PAYLOAD_TYPE, check_cosignatures, cosign, payload_of, pre_authentication
from bundles.errors import BundleMisuse, BundleRefused
from bundles.keys import public_pem
from bundles.trusted_set import TrustedKey

DIGEST = "sha256:" + "a" * 64
PKCS1 = padding.PKCS1v15()
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)


@lru_cache(maxsize=1)
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 3072)


def _envelope(made: padding.AsymmetricPadding) -> bytes:
    payload = payload_of("main", DIGEST)
    signature = _key().sign(pre_authentication(payload), made, hashes.SHA256())
    document = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": "rita", "sig": base64.b64encode(signature).decode()}],
    }
    return json.dumps(document).encode()


def _checked(raw: bytes, algorithm: str) -> tuple[str, ...]:
    key = TrustedKey("rita", algorithm, "write", public_pem(_key()))
    return check_cosignatures(raw, (key,), "main", DIGEST, threshold=1)


@pytest.mark.parametrize(("algorithm", "made"), [("RS256", PKCS1), ("PS256", PSS)], ids=["PKCS 1", "PSS"])
def test_cosignature_counts_when_it_is_padded_as_its_key_is_trusted_for(
    algorithm: str, made: padding.AsymmetricPadding
) -> None:
    assert _checked(_envelope(made), algorithm) == ("rita",)


def test_cosignature_counts_when_we_made_it() -> None:
    assert _checked(cosign("main", DIGEST, key=_key(), keyid="rita"), "PS256") == ("rita",)


WRONG = {
    "padded as the other algorithm does": ("RS256", PSS),
    "padded as this algorithm does not": ("PS256", PKCS1),
    "without salt": ("PS256", padding.PSS(padding.MGF1(hashes.SHA256()), 0)),
}


@pytest.mark.parametrize("fault", WRONG)
def test_cosignature_is_refused_when_it_is(fault: str) -> None:
    algorithm, made = WRONG[fault]
    with pytest.raises(BundleRefused, match="did not sign") as refused:
        _checked(_envelope(made), algorithm)
    assert refused.value.code == "cosignatures_invalid"


def test_cosignature_is_misuse_when_its_key_is_trusted_for_another_kind() -> None:
    with pytest.raises(BundleMisuse):
        _checked(_envelope(PSS), "ES256")
