"""The signed envelope around a delta: from which archive to which, of what bundle, until when.

Guarantees: a :class:`SealedDelta` from :func:`open_delta` was signed by a freshness key for exactly this bundle, base and epoch, leads
upwards and has not ended. Leaves to ``bundles.delta`` what the edits say, to the caller that their result has the stated digest.

**Security**: a delta has no authority. The online key signs it so that bytes of strangers never reach the reader of edits; whether
the result may be believed is decided by the digest of the freshness statement and by the bundle's own signature.
**Source**: DSSE 1.0.2; the payload is one line of JSON, a line feed, and the delta archive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bundles.canonical import SAFE_INTEGER_MAX, JsonValue, StrictJsonError, canonical_json, parse_strict
from bundles.delta import plan_summary, read_plan
from bundles.dsse import EnvelopeKind, open_sealed, read_envelope, seal
from bundles.errors import BundleRefused
from bundles.freshness import CLOCK_LEEWAY_SECONDS, TTL_MAX_SECONDS, BundleIdentity
from bundles.jws import PrivateKey
from bundles.trusted_set import TrustedKey

DELTA_PAYLOAD_TYPE: Final = "application/vnd.tidegate.bundle-delta"
DELTA_MAX_BYTES: Final = 8 << 20
"""The largest envelope that is made or read."""
HEAD_MAX_BYTES: Final = 2048
KIND: Final = EnvelopeKind(
    DELTA_PAYLOAD_TYPE, DELTA_MAX_BYTES, "delta_signature_invalid", "delta_unsigned", "delta_key_unknown"
)
_CODE: Final = "delta_envelope_invalid"
_MEMBERS: Final = frozenset({"v", "name", "base", "digest", "seq", "epoch", "iat", "exp"})


@dataclass(frozen=True, slots=True)
class DeltaHead:
    """What is signed beside the edits; digests are ``sha256:…`` of archives, instants Unix seconds."""

    target: BundleIdentity
    base: str
    epoch: int
    issued_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class SealedDelta:
    """A head and the delta archive that it is about."""

    head: DeltaHead
    archive: bytes = field(repr=False)


def seal_delta(sealed: SealedDelta, *, key: PrivateKey, keyid: str) -> bytes:
    """The envelope; the caller sees to it that it is not larger than ``DELTA_MAX_BYTES``."""
    head = sealed.head
    document: dict[str, JsonValue] = {
        "v": 1,
        "name": head.target.name,
        "base": head.base,
        "digest": head.target.digest,
        "seq": head.target.sequence,
        "epoch": head.epoch,
        "iat": head.issued_at,
        "exp": head.expires_at,
    }
    return seal(canonical_json(document) + b"\n" + sealed.archive, KIND, key=key, keyid=keyid)


def open_delta(raw: bytes, keys: Sequence[TrustedKey], base: BundleIdentity, *, epoch: int, now: float) -> SealedDelta:
    """Check ``raw`` as a delta from ``base``, which is in force, at ``now`` (Unix seconds).

    Raises :class:`BundleRefused`: ``delta_too_large``, ``delta_unsigned``, ``delta_key_unknown``, ``delta_signature_invalid``
    (envelope or signature), ``delta_envelope_invalid`` (what was signed), ``delta_other_bundle``, ``delta_other_base``,
    ``delta_epoch_mismatch``, ``delta_not_newer``, ``delta_future``, ``delta_expired``.
    """
    if len(raw) > DELTA_MAX_BYTES:
        raise BundleRefused("delta_too_large", f"a delta has at most {DELTA_MAX_BYTES} bytes")
    payload, _ = open_sealed(raw, KIND, keys)
    sealed = _payload(payload)
    head = sealed.head
    if head.target.name != base.name:
        raise BundleRefused("delta_other_bundle", f"the delta is of {head.target.name!r}, not of {base.name!r}")
    if head.base != base.digest:
        raise BundleRefused("delta_other_base", f"the delta begins at {head.base}, which is not in force here")
    if head.epoch != epoch:
        raise BundleRefused("delta_epoch_mismatch", f"epoch {epoch} was expected, this is {head.epoch}")
    if head.target.sequence <= base.sequence:
        raise BundleRefused("delta_not_newer", f"from sequence {base.sequence} to {head.target.sequence}")
    if head.issued_at > now + CLOCK_LEEWAY_SECONDS:
        raise BundleRefused("delta_future", f"made {head.issued_at - now:.0f} seconds in the future")
    if now >= head.expires_at:
        raise BundleRefused("delta_expired", f"ended {now - head.expires_at:.0f} seconds ago")
    return sealed


def inspect_delta(raw: bytes) -> dict[str, JsonValue]:
    """What an envelope says about itself; nothing of it was verified."""
    envelope = read_envelope(raw, KIND)
    sealed = _payload(envelope.unverified_payload)
    head = sealed.head
    return {
        "kind": "delta",
        "verified": False,
        "name": head.target.name,
        "base": head.base,
        "digest": head.target.digest,
        "sequence": head.target.sequence,
        "epoch": head.epoch,
        "issued_at": head.issued_at,
        "expires_at": head.expires_at,
        "keyids": [keyid for keyid, _ in envelope.unverified_signatures],
        **plan_summary(read_plan(sealed.archive)),
    }


def _payload(payload: bytes) -> SealedDelta:
    line, feed, archive = payload.partition(b"\n")
    if not feed:
        raise BundleRefused(_CODE, "a line about the delta and the delta are expected")
    try:
        document = parse_strict(line, max_bytes=HEAD_MAX_BYTES, max_depth=1)
    except StrictJsonError as refused:
        raise BundleRefused(_CODE, f"the line about the delta: {refused}") from refused
    if not isinstance(document, dict) or set(document) != _MEMBERS or document["v"] != 1:
        raise BundleRefused(_CODE, "not about a delta of this version")
    name, base, digest = document["name"], document["base"], document["digest"]
    if not isinstance(name, str) or not isinstance(base, str) or not isinstance(digest, str):
        raise BundleRefused(_CODE, "name, base and digest are strings")
    issued, expires = _whole(document, "iat"), _whole(document, "exp")
    if not 1 <= expires - issued <= TTL_MAX_SECONDS:
        raise BundleRefused(_CODE, f"a delta is offered for 1 to {TTL_MAX_SECONDS} seconds")
    target = BundleIdentity(name, digest, _whole(document, "seq"))
    return SealedDelta(DeltaHead(target, base, _whole(document, "epoch"), issued, expires), archive)


def _whole(document: dict[str, JsonValue], member: str) -> int:
    value = document[member]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= SAFE_INTEGER_MAX:
        raise BundleRefused(_CODE, f"{member} is a whole number")
    return value
