"""Co-signatures: how few, whose, and over what is not enough."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bundles.canonical import sha256_hex
from bundles.dsse import (
    ENVELOPE_MAX_BYTES,
    SIGNATURES_MAX_COUNT,
    check_cosignatures,
    cosign,
    pre_authentication,
    read_envelope,
)
from bundles.errors import BundleMisuse, BundleRefused
from bundles.keys import public_pem
from bundles.trusted_set import TrustedKey
from tests.bundles.parts import good_bundle, signing_key, trust, verified

DIGEST = "sha256:" + "a" * 64


def trusted(*names: str) -> tuple[TrustedKey, ...]:
    """The test's keys under their own names."""
    return tuple(TrustedKey(name, "ES256", "write", public_pem(signing_key(name))) for name in names)


TEAM = trusted("anna", "bert", "cleo")


def signed_by(*names: str, name: str = "main", digest: str = DIGEST) -> bytes:
    """An envelope with these signatures."""
    envelope: bytes | None = None
    for signer in names:
        envelope = cosign(name, digest, key=signing_key(signer), keyid=signer, existing=envelope)
    return envelope or b""


def checked(raw: bytes | None, *, threshold: int = 2, keys: tuple[TrustedKey, ...] = TEAM) -> tuple[str, ...]:
    return check_cosignatures(raw, keys, "main", DIGEST, threshold=threshold)


def altered(**changes: Any) -> bytes:
    """A good envelope with members replaced (``None`` removes one)."""
    document = {**json.loads(signed_by("anna", "bert")), **changes}
    return json.dumps({name: value for name, value in document.items() if value is not None}).encode()


def test_pre_authentication_is_the_specifications_when_given_its_vector() -> None:
    # Source: DSSE 1.0.2, protocol.md, test vectors.
    given = pre_authentication(b"hello world", "http://example.com/HelloWorld")
    assert given == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_cosignatures_count_when_distinct_trusted_keys_signed() -> None:
    assert checked(signed_by("anna", "bert")) == ("anna", "bert")
    assert checked(signed_by("bert", "cleo", "anna"), threshold=3) == ("bert", "cleo", "anna")


def test_cosignatures_count_when_strangers_signed_too() -> None:
    assert checked(signed_by("mallory", "anna", "bert")) == ("anna", "bert")


def test_cosignatures_count_when_made_with_other_kinds_of_keys() -> None:
    wide, curve = (
        rsa.generate_private_key(public_exponent=65537, key_size=3072),
        ec.generate_private_key(ec.SECP384R1()),
    )
    keys = (
        TrustedKey("rsa", "PS256", "write", public_pem(wide)),
        TrustedKey("p384", "ES384", "write", public_pem(curve)),
    )
    envelope = cosign("main", DIGEST, key=wide, keyid="rsa")
    assert checked(cosign("main", DIGEST, key=curve, keyid="p384", existing=envelope), keys=keys) == ("rsa", "p384")


def _twice_under_two_names() -> bytes:
    envelope = cosign("main", DIGEST, key=signing_key("anna"), keyid="anna")
    return cosign("main", DIGEST, key=signing_key("anna"), keyid="anna-again", existing=envelope)


def _repeated() -> bytes:
    document = json.loads(signed_by("anna"))
    return json.dumps({**document, "signatures": document["signatures"] * 2}).encode()


def _renamed() -> bytes:
    document = json.loads(signed_by("anna", "mallory"))
    document["signatures"][1]["keyid"] = "bert"
    return json.dumps(document).encode()


BAD = {
    "no envelope came": (lambda: None, "bundle_threshold"),
    "one of two keys signed": (lambda: signed_by("anna"), "bundle_threshold"),
    "a stranger is the second": (lambda: signed_by("anna", "mallory"), "bundle_threshold"),
    "one signature stands twice": (_repeated, "bundle_threshold"),
    "a stranger signed under a trusted name": (_renamed, "cosignatures_invalid"),
    "it is about another archive": (
        lambda: signed_by("anna", "bert", digest="sha256:" + "b" * 64),
        "cosignatures_invalid",
    ),
    "it is about another bundle": (lambda: signed_by("anna", "bert", name="side"), "cosignatures_invalid"),
    "its payload was replaced": (
        lambda: altered(payload=base64.b64encode(b"{}").decode()),
        "cosignatures_invalid",
    ),
    "its payload has another type": (lambda: altered(payloadType="application/json"), "cosignatures_invalid"),
    "its payload is no base64": (lambda: altered(payload="{}"), "cosignatures_invalid"),
    "its payload is a number": (lambda: altered(payload=1), "cosignatures_invalid"),
    "it has no signatures": (lambda: altered(signatures=[]), "cosignatures_invalid"),
    "its signatures are no list": (lambda: altered(signatures={}), "cosignatures_invalid"),
    "a signature has no key id": (lambda: altered(signatures=[{"sig": "AA=="}]), "cosignatures_invalid"),
    "a key id is a number": (lambda: altered(signatures=[{"keyid": 1, "sig": "AA=="}]), "cosignatures_invalid"),
    "a signature is no base64": (lambda: altered(signatures=[{"keyid": "anna", "sig": "*"}]), "cosignatures_invalid"),
    "a signature is garbage": (lambda: altered(signatures=[{"keyid": "anna", "sig": "AA=="}]), "cosignatures_invalid"),
    "it has a member more": (lambda: altered(extra=1), "cosignatures_invalid"),
    "it lacks its type": (lambda: altered(payloadType=None), "cosignatures_invalid"),
    "it is no JSON": (lambda: b"{", "cosignatures_invalid"),
    "it is empty": (lambda: b"", "cosignatures_invalid"),
    "it is too long": (lambda: b" " * (ENVELOPE_MAX_BYTES + 1), "cosignatures_invalid"),
    "it lists too many signatures": (
        lambda: altered(signatures=[{"keyid": str(n), "sig": "AA=="} for n in range(SIGNATURES_MAX_COUNT + 1)]),
        "cosignatures_invalid",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_cosignatures_are_refused_when(fault: str) -> None:
    make, code = BAD[fault]
    with pytest.raises(BundleRefused) as refused:
        checked(make())
    assert refused.value.code == code


def test_cosignatures_count_a_key_once_when_it_is_trusted_under_two_names() -> None:
    pem = public_pem(signing_key("anna"))
    keys = (TrustedKey("anna", "ES256", "write", pem), TrustedKey("anna-again", "ES256", "write", pem))
    with pytest.raises(BundleRefused) as refused:
        checked(_twice_under_two_names(), keys=keys)
    assert refused.value.code == "bundle_threshold"


def test_cosign_is_misuse_when_the_key_signed_before() -> None:
    with pytest.raises(BundleMisuse):
        cosign("main", DIGEST, key=signing_key("anna"), keyid="anna", existing=signed_by("anna"))


def test_cosign_is_misuse_when_the_envelope_is_full() -> None:
    full = altered(signatures=[{"keyid": str(n), "sig": "AA=="} for n in range(SIGNATURES_MAX_COUNT)])
    with pytest.raises(BundleMisuse):
        cosign("main", DIGEST, key=signing_key("anna"), keyid="anna", existing=full)


def test_cosign_is_refused_when_the_envelope_is_about_another_archive() -> None:
    with pytest.raises(BundleRefused):
        cosign("main", "sha256:" + "b" * 64, key=signing_key("bert"), keyid="bert", existing=signed_by("anna"))


def test_signature_verifies_with_the_plain_primitive_when_taken_out_of_the_envelope() -> None:
    envelope = read_envelope(signed_by("anna"))
    public = serialization.load_pem_public_key(TEAM[0].public_pem)
    _, signature = envelope.unverified_signatures[0]
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(signature, pre_authentication(envelope.unverified_payload), ec.ECDSA(hashes.SHA256()))


def test_bundle_is_trusted_when_the_threshold_is_met() -> None:
    raw = good_bundle()
    envelope = signed_by("anna", "bert", digest=f"sha256:{sha256_hex(raw)}")
    keys = (*trust().keys, *TEAM)
    assert verified(raw, threshold=2, keys=keys, cosignatures=envelope).keyids == ("anna", "bert")


@pytest.mark.parametrize("envelope", [None, signed_by("anna", "bert")], ids=["none", "another bundle's"])
def test_bundle_is_refused_when_the_threshold_is_two_and_the_envelope_is(envelope: bytes | None) -> None:
    with pytest.raises(BundleRefused):
        verified(good_bundle(), threshold=2, keys=(*trust().keys, *TEAM), cosignatures=envelope)
