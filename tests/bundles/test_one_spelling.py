"""Tokens that decode to the signed bytes and are spelled otherwise: one token has one text."""

from __future__ import annotations

import base64
import string

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from bundles.canonical import JsonValue, canonical_json
from bundles.errors import BundleRefused
from bundles.jws import parse_jws, sign_jws, verify_jws
from bundles.keys import public_pem
from bundles.trusted_set import TrustedKey
from tests.bundles.parts import signing_key

ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
PAYLOAD: dict[str, JsonValue] = {"files": [], "name": "tickets"}
MAX_BYTES = 4096


def _key() -> ec.EllipticCurvePrivateKey:
    key = signing_key()
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _token() -> str:
    return sign_jws(PAYLOAD, key=_key(), algorithm="ES256", keyid="bundle")


def _verify(token: str) -> None:
    key = TrustedKey("bundle", "ES256", "write", public_pem(_key()))
    verify_jws(parse_jws(token, payload_max_bytes=MAX_BYTES), key)


def _respelled(part: str) -> str:
    """The same bytes with an unused bit of the last letter set."""
    twin = part[:-1] + ALPHABET[ALPHABET.index(part[-1]) | 1]
    padding = "=" * (-len(part) % 4)
    assert twin != part and base64.urlsafe_b64decode(twin + padding) == base64.urlsafe_b64decode(part + padding)
    return twin


def _signed_over(signed: str) -> str:
    """A token whose signature is right for exactly this spelling of header and payload."""
    r, s = decode_dss_signature(_key().sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return f"{signed}.{base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}"


def _part(document: JsonValue) -> str:
    return base64.urlsafe_b64encode(canonical_json(document)).rstrip(b"=").decode()


HEADER = _part({"alg": "ES256", "kid": "bundle1"})
BODY = _part({"files": [], "name": "ticket"})


def test_token_is_taken_when_spelled_as_it_was_signed() -> None:
    _verify(_token())
    _verify(_signed_over(f"{HEADER}.{BODY}"))


OTHERWISE = {
    "a bit more in its signature": lambda: _token().rpartition(".")[0] + "." + _respelled(_token().rpartition(".")[2]),
    "a bit more in its header": lambda: _signed_over(f"{_respelled(HEADER)}.{BODY}"),
    "a bit more in its payload": lambda: _signed_over(f"{HEADER}.{_respelled(BODY)}"),
    "padding": lambda: _signed_over(f"{HEADER}=.{BODY}"),
    "the other alphabet": lambda: _signed_over(f"{HEADER}.{BODY}/"),
    "a line end": lambda: _token() + "\n",
    "an empty header": lambda: _signed_over(f".{BODY}"),
    "a header of one letter": lambda: _signed_over(f"A.{BODY}"),
}


@pytest.mark.parametrize("fault", OTHERWISE)
def test_token_is_refused_when_it_has(fault: str) -> None:
    with pytest.raises(BundleRefused, match=r"base64url|one spelling") as refused:
        _verify(OTHERWISE[fault]())
    assert refused.value.code == "bundle_signature_invalid"
