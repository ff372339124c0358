"""DSSE envelopes: co-signatures over an archive's SHA-256, so that one stolen key publishes nothing, and sealed payloads.

Guarantees: :func:`check_cosignatures` counts distinct public keys, each trusted, each over exactly this bundle's name and
digest; :func:`cosign` adds one signature to an envelope without touching the others; :func:`open_sealed` returns only what a
trusted key signed as this kind of payload. Leaves to its callers: how many co-signatures are needed, where their envelope lies
(``<bundle>.dsse.json``, or the service's ``Tidegate-Cosignatures`` header), what a payload says.
**Source**: DSSE 1.0.2 (envelope and pre-authentication encoding).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding

from bundles.canonical import JsonValue, StrictJsonError, canonical_json, parse_strict
from bundles.errors import BundleMisuse, BundleRefused
from bundles.jws import PrivateKey, VerifyingKey, check_key, default_algorithm, load_public_key

PAYLOAD_TYPE: Final = "application/vnd.tidegate.bundle-digest+json"
ENVELOPE_SUFFIX: Final = ".dsse.json"
ENVELOPE_MAX_BYTES: Final = 12_288
SIGNATURES_MAX_COUNT: Final = 16
_CODE: Final = "cosignatures_invalid"
_HASHES: Final[dict[str, type[hashes.SHA256] | type[hashes.SHA384] | type[hashes.SHA512]]] = {
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}


@dataclass(frozen=True, slots=True)
class EnvelopeKind:
    """What an envelope is for: its payload's type, its limit, and the codes of what is wrong with it."""

    payload_type: str
    max_bytes: int
    code: str
    unsigned_code: str
    key_unknown_code: str


COSIGNATURES: Final = EnvelopeKind(PAYLOAD_TYPE, ENVELOPE_MAX_BYTES, _CODE, _CODE, _CODE)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A well-formed envelope whose signatures nobody has checked yet."""

    unverified_payload: bytes
    unverified_signatures: tuple[tuple[str, bytes], ...]


def payload_of(name: str, digest: str) -> bytes:
    """What every co-signer signs: the bundle's name and ``sha256:…`` of its archive."""
    return canonical_json({"digest": digest, "name": name})


def cosign(name: str, digest: str, *, key: PrivateKey, keyid: str, existing: bytes | None = None) -> bytes:
    """The envelope with this key's signature, beside those of ``existing`` over the same bundle.

    Raises ``cosignatures_invalid`` when ``existing`` is about something else, :class:`BundleMisuse` for a key id twice.
    """
    payload = payload_of(name, digest)
    signatures = list(_about(read_envelope(existing), payload).unverified_signatures) if existing is not None else []
    if keyid in (known for known, _ in signatures):
        raise BundleMisuse("cosignature_exists", f"{keyid!r} has signed this bundle already")
    if len(signatures) >= SIGNATURES_MAX_COUNT:
        raise BundleMisuse("cosignatures_full", f"an envelope holds {SIGNATURES_MAX_COUNT} signatures")
    signatures.append((keyid, _sign(pre_authentication(payload), key)))
    return _written(payload, PAYLOAD_TYPE, signatures)


def seal(payload: bytes, kind: EnvelopeKind, *, key: PrivateKey, keyid: str) -> bytes:
    """An envelope of this kind over ``payload``, with one signature."""
    return _written(payload, kind.payload_type, [(keyid, _sign(pre_authentication(payload, kind.payload_type), key))])


def open_sealed(raw: bytes, kind: EnvelopeKind, keys: Sequence[VerifyingKey]) -> tuple[bytes, str]:
    """The payload of an envelope with exactly one signature, and the trusted key that made it.

    Raises the kind's codes.

    **Security**: the type is signed too, so that an envelope of one kind is never taken for another.
    """
    envelope = read_envelope(raw, kind)
    if len(envelope.unverified_signatures) != 1:
        raise BundleRefused(kind.code, "exactly one signature is expected")
    unverified_keyid, signature = envelope.unverified_signatures[0]
    key = next((key for key in keys if key.keyid == unverified_keyid), None)
    if key is None:
        raise BundleRefused(kind.key_unknown_code, f"no trusted key is called {unverified_keyid!r}")
    payload = envelope.unverified_payload
    _verified(pre_authentication(payload, kind.payload_type), signature, key, kind.code)
    return payload, key.keyid


def check_cosignatures(
    raw: bytes | None, keys: Sequence[VerifyingKey], name: str, digest: str, *, threshold: int
) -> tuple[str, ...]:
    """The key ids of the distinct trusted keys that signed, at least ``threshold`` of them.

    Raises ``bundle_threshold`` for too few, ``cosignatures_invalid`` for a bad envelope or a trusted key's bad signature.

    **Security**: one key under two names counts once; a name nobody trusts counts nothing.
    """
    if raw is None:
        raise BundleRefused("bundle_threshold", f"{threshold} co-signatures are required, none came with the bundle")
    envelope = _about(read_envelope(raw), payload_of(name, digest))
    signed = pre_authentication(envelope.unverified_payload)
    counted: dict[bytes, str] = {}
    for unverified_keyid, signature in envelope.unverified_signatures:
        for key in keys:
            if key.keyid == unverified_keyid:
                counted.setdefault(_verified(signed, signature, key, _CODE), key.keyid)
    if len(counted) < threshold:
        raise BundleRefused("bundle_threshold", f"{threshold} distinct keys are required, {len(counted)} signed")
    return tuple(counted.values())


def read_envelope(raw: bytes, kind: EnvelopeKind = COSIGNATURES) -> Envelope:
    """Take an envelope apart without believing it; raises the kind's codes (``cosignatures_invalid``)."""
    try:
        document = parse_strict(raw, max_bytes=kind.max_bytes, max_depth=4)
    except StrictJsonError as refused:
        raise BundleRefused(kind.code, f"the envelope: {refused}") from refused
    if not isinstance(document, dict) or set(document) != {"payload", "payloadType", "signatures"}:
        raise BundleRefused(kind.code, "an envelope has payload, payloadType and signatures")
    if document["payloadType"] != kind.payload_type:
        raise BundleRefused(kind.code, f"the payload's type is not {kind.payload_type}")
    listed = document["signatures"]
    if not isinstance(listed, list) or len(listed) > SIGNATURES_MAX_COUNT:
        raise BundleRefused(kind.code, f"an envelope has from 1 to {SIGNATURES_MAX_COUNT} signatures")
    if not listed:
        raise BundleRefused(kind.unsigned_code, "nobody signed the envelope")
    return Envelope(_decoded(document["payload"], kind.code), tuple(_signature(entry, kind.code) for entry in listed))


def pre_authentication(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """DSSE's PAE: the bytes that are signed, from which type and payload can be read back in one way only."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _about(envelope: Envelope, payload: bytes) -> Envelope:
    if envelope.unverified_payload != payload:
        raise BundleRefused(_CODE, "the envelope is about another bundle")
    return envelope


def _written(payload: bytes, payload_type: str, signatures: Sequence[tuple[str, bytes]]) -> bytes:
    listed: list[JsonValue] = [{"keyid": known, "sig": base64.b64encode(raw).decode()} for known, raw in signatures]
    document: dict[str, JsonValue] = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": listed,
    }
    return canonical_json(document) + b"\n"


def _signature(entry: JsonValue, code: str) -> tuple[str, bytes]:
    if not isinstance(entry, dict) or set(entry) != {"keyid", "sig"}:
        raise BundleRefused(code, "a signature has keyid and sig")
    keyid = entry["keyid"]
    if not isinstance(keyid, str) or not keyid:
        raise BundleRefused(code, "a key id is a string")
    return keyid, _decoded(entry["sig"], code)


def _decoded(value: JsonValue, code: str) -> bytes:
    if not isinstance(value, str):
        raise BundleRefused(code, "payload and sig are base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as refused:
        raise BundleRefused(code, "payload and sig are base64") from refused


def _sign(signed: bytes, key: PrivateKey) -> bytes:
    algorithm = default_algorithm(key)
    check_key(key.public_key(), algorithm)
    digest = _HASHES[algorithm[2:]]()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(signed, ec.ECDSA(digest))
    return key.sign(signed, _pss(digest), digest)


def _verified(signed: bytes, signature: bytes, key: VerifyingKey, code: str) -> bytes:
    """The public key's DER form, after it verified the signature."""
    public = load_public_key(key.public_pem, key.algorithm)
    digest = _HASHES[key.algorithm[2:]]()
    try:
        if isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, signed, ec.ECDSA(digest))
        elif key.algorithm.startswith("RS"):
            public.verify(signature, signed, padding.PKCS1v15(), digest)
        else:
            public.verify(signature, signed, _pss(digest), digest)
    except InvalidSignature as refused:
        raise BundleRefused(code, f"key {key.keyid!r} did not sign this") from refused
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _pss(digest: hashes.HashAlgorithm) -> padding.PSS:
    return padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)
