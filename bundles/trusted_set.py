"""The client's side of a signed bundle: bytes in, a trusted bundle or a refusal out.

Guarantees: a :class:`TrustedBundle` exists only for bytes whose signature, claims, file list and content passed every
check of :func:`verify_bundle`. Leaves to its callers: the clock, the highest sequence seen, and loading the policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from bundles.archive import ArchiveLimits, read_archive
from bundles.canonical import JsonValue, StrictJsonError, parse_strict, sha256_hex
from bundles.claims import SIGNATURES_FILE, BundleClaims, check_files, read_claims
from bundles.content import BundleContent, Probe, read_content
from bundles.dsse import check_cosignatures
from bundles.errors import BundleMisuse, BundleRefused
from bundles.jws import parse_jws, verify_jws

SIGNATURES_MAX_BYTES: Final = 4 << 20
CLOCK_LEEWAY_SECONDS: Final = 60
DEFAULT_PLUGIN: Final = "_default"  # What `opa build` writes; any other name asks for a verifier nobody here has.

__all__ = [
    "Probe", "TrustPolicy", "TrustedBundle", "TrustedKey", "VerifyBundle",
    "read_sequence", "read_unverified", "verify_bundle",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """One public key the configuration trusts, with the only algorithm and scope it may be used with."""

    keyid: str
    algorithm: str
    scope: str
    public_pem: bytes


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """Which bundle is expected, from whom; comes from configuration, never from a bundle."""

    name: str
    audience: str
    keys: tuple[TrustedKey, ...]
    threshold: int = 1
    epoch: int = 0
    limits: ArchiveLimits = field(default_factory=ArchiveLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedBundle(BundleContent):
    """The content of a bundle that passed every check; ``data`` holds no probes, ``digest`` is of the whole archive."""

    name: str
    sequence: int
    epoch: int
    digest: str
    expires_at: int | None
    keyids: tuple[str, ...]


class VerifyBundle(Protocol):
    """:func:`verify_bundle`, or what does the same elsewhere; blocks."""

    def __call__(
        self, raw: bytes, trust: TrustPolicy, *, now: int, highest_sequence: int, cosignatures: bytes | None = None
    ) -> TrustedBundle: ...


def verify_bundle(
    raw: bytes, trust: TrustPolicy, *, now: int, highest_sequence: int, cosignatures: bytes | None = None
) -> TrustedBundle:
    """Check ``raw`` against ``trust`` at ``now`` (Unix seconds) and return what it holds.

    ``cosignatures`` is the DSSE envelope that lies beside the archive, needed where ``trust.threshold`` is above 1.

    Every step raises :class:`BundleRefused` with its own code; nothing is returned before the last step passed.

    **Security**: signature before claims, claims before content, so nothing unsigned steers a decision here.
    """
    if not trust.keys:
        raise BundleMisuse("bundle_trust_empty", f"no key is trusted for {trust.name!r}")
    files = read_archive(raw, trust.limits)
    token = _one_signature(files.pop(SIGNATURES_FILE, None))
    key, payload = _verify_signature(token, trust)
    claims = read_claims(payload)
    _check_claims(claims, trust, key, now=now, highest_sequence=highest_sequence)
    parsed = check_files(files, claims.files)
    digest = sha256_hex(raw)
    keyids: tuple[str, ...] = (key.keyid,)
    if trust.threshold > 1:
        keyids = check_cosignatures(cosignatures, trust.keys, trust.name, f"sha256:{digest}", threshold=trust.threshold)
    content = read_content(files, parsed)
    return TrustedBundle(
        name=claims.name,
        revision=content.revision or digest,
        sequence=claims.sequence,
        epoch=claims.epoch,
        digest=f"sha256:{digest}",
        expires_at=claims.expires_at,
        keyids=keyids,
        manifest=content.manifest,
        data=content.data,
        rego=content.rego,
        wasm=content.wasm,
        probes=content.probes,
        profile=content.profile,
        entrypoints=content.entrypoints,
        cacheable=content.cacheable,
    )


def read_sequence(raw: bytes, trust: TrustPolicy) -> int:
    """The sequence a trusted key signed into ``raw``, whatever its clock claims; 0 for another bundle's name."""
    files = read_archive(raw, trust.limits)
    _, payload = _verify_signature(_one_signature(files.get(SIGNATURES_FILE)), trust)
    claims = read_claims(payload)
    return claims.sequence if claims.name == trust.name else 0


def read_unverified(raw_signatures: bytes) -> dict[str, JsonValue]:
    """What a signatures file says by whom and for what it was made; nobody has checked it. Absent claims are null.

    Raises :class:`BundleRefused` for one that cannot be read.
    """
    jws = parse_jws(_one_signature(raw_signatures), payload_max_bytes=SIGNATURES_MAX_BYTES)
    said = jws.unverified_payload
    return {
        "keyid": jws.unverified_header.get("kid", said.get("keyid")),
        "algorithm": jws.unverified_header.get("alg"),
        "name": said.get("tidegate_name"),
        "sequence": said.get("tidegate_seq"),
        "epoch": said.get("tidegate_epoch"),
        "audience": said.get("aud"),
        "scope": said.get("scope"),
        "issued_at": said.get("iat"),
        "expires_at": said.get("exp"),
    }


def _one_signature(raw_signatures: bytes | None) -> str:
    if raw_signatures is None:
        raise BundleRefused("bundle_unsigned", f"no {SIGNATURES_FILE} at the root")
    try:
        document = parse_strict(raw_signatures, max_bytes=SIGNATURES_MAX_BYTES, max_depth=4)
    except StrictJsonError as refused:
        raise BundleRefused("bundle_signature_invalid", f"{SIGNATURES_FILE}: {refused}") from refused
    if (
        not isinstance(document, dict)
        or not set(document) <= {"signatures", "plugin"}
        or document.get("plugin", DEFAULT_PLUGIN) != DEFAULT_PLUGIN
    ):
        raise BundleRefused("bundle_signature_invalid", f"{SIGNATURES_FILE} is not {{signatures: [...]}}")
    tokens = document.get("signatures")
    if not isinstance(tokens, list) or not tokens:
        raise BundleRefused("bundle_unsigned", "no signature is listed")
    if len(tokens) != 1 or not isinstance(tokens[0], str):
        raise BundleRefused("bundle_signature_invalid", "exactly one signature is expected")
    return tokens[0]


def _verify_signature(token: str, trust: TrustPolicy) -> tuple[TrustedKey, dict[str, JsonValue]]:
    """The key that signed, and what it signed."""
    jws = parse_jws(token, payload_max_bytes=SIGNATURES_MAX_BYTES)
    named: set[str] = set()
    for unverified_name in (jws.unverified_header.get("kid", ""), jws.unverified_payload.get("keyid", "")):
        if not isinstance(unverified_name, str):
            raise BundleRefused("bundle_signature_invalid", "a key id is a string")
        named |= {unverified_name} - {""}
    if len(named) > 1:
        raise BundleRefused("bundle_signature_invalid", "header and payload name different keys")
    candidates = [key for key in trust.keys if not named or key.keyid in named]
    if not candidates:
        raise BundleRefused("bundle_key_unknown", f"no trusted key is called {min(named)!r}")
    for key in candidates[:-1]:
        try:
            verify_jws(jws, key)
        except BundleRefused:
            continue  # No key id was given: the next trusted key may be the one.
        return key, jws.unverified_payload
    verify_jws(jws, candidates[-1])
    return candidates[-1], jws.unverified_payload


def _check_claims(
    claims: BundleClaims, trust: TrustPolicy, key: TrustedKey, *, now: int, highest_sequence: int
) -> None:
    if claims.scope != key.scope:
        raise BundleRefused("bundle_scope_mismatch", f"key {key.keyid!r} signs {key.scope!r}, not {claims.scope!r}")
    if claims.name != trust.name:
        raise BundleRefused("bundle_name_mismatch", f"{trust.name!r} was expected, this is {claims.name!r}")
    if trust.audience not in claims.audience:
        raise BundleRefused("bundle_audience_mismatch", f"not meant for {trust.audience!r}")
    if claims.expires_at is not None and now >= claims.expires_at:
        raise BundleRefused("bundle_expired", f"expired at {claims.expires_at}")
    for instant in (claims.not_before, claims.issued_at):
        if instant is not None and instant > now + CLOCK_LEEWAY_SECONDS:
            raise BundleRefused("bundle_not_yet_valid", f"valid from {instant}")
    if claims.epoch != trust.epoch:
        raise BundleRefused("bundle_epoch_mismatch", f"epoch {trust.epoch} was expected, this is {claims.epoch}")
    if claims.sequence < highest_sequence:
        raise BundleRefused("bundle_rollback", f"sequence {claims.sequence} is below {highest_sequence}, already seen")
