"""Freshness statements: that a bundle is still the one in force, signed by an online key and short-lived.

Guarantees: a :class:`FreshnessStatement` from :func:`verify_statement` was signed by a key configured for this alone, names
exactly the bundle it came with, and was made neither in the future nor too long before its end. Leaves to ``bundles.lease``:
what a statement is worth, and until when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bundles.canonical import SAFE_INTEGER_MAX, JsonValue
from bundles.errors import BundleMisuse, BundleRefused
from bundles.jws import PrivateKey, default_algorithm, parse_jws, sign_jws, verify_jws
from bundles.trusted_set import TrustedKey

FRESHNESS_HEADER: Final = "Tidegate-Freshness"
FRESHNESS_SCOPE: Final = "freshness"
"""What the trusted keys of statements are for; a bundle signed with this scope is refused by every other key."""

TTL_MIN_SECONDS: Final = 300
TTL_DEFAULT_SECONDS: Final = 600
TTL_MAX_SECONDS: Final = 900
CLOCK_LEEWAY_SECONDS: Final = 30
STATEMENT_MAX_BYTES: Final = 4096
_MEMBERS: Final = frozenset({"name", "digest", "seq", "iat", "exp"})


@dataclass(frozen=True, slots=True)
class BundleIdentity:
    """Which bundle a statement must be about."""

    name: str
    digest: str
    sequence: int


@dataclass(frozen=True, slots=True)
class FreshnessStatement:
    """A verified statement; instants are Unix seconds, ``token`` is what was signed, to be kept."""

    bundle: BundleIdentity
    issued_at: int
    expires_at: int
    keyid: str
    token: str


@dataclass(frozen=True, slots=True)
class OnlineKey:
    """The key of statements and of deltas: on the service's machine, and worth nothing for a bundle's content."""

    key: PrivateKey = field(repr=False)
    keyid: str
    ttl_seconds: int


def sign_statement(bundle: BundleIdentity, *, key: PrivateKey, keyid: str, now: int, ttl_seconds: int) -> str:
    """The token that says ``bundle`` is current at ``now`` and until ``ttl_seconds`` later."""
    if not 1 <= ttl_seconds <= TTL_MAX_SECONDS:
        raise BundleMisuse("freshness_ttl", f"a statement holds from 1 to {TTL_MAX_SECONDS} seconds")
    payload: dict[str, JsonValue] = {
        "name": bundle.name,
        "digest": bundle.digest,
        "seq": bundle.sequence,
        "iat": now,
        "exp": now + ttl_seconds,
    }
    return sign_jws(payload, key=key, algorithm=default_algorithm(key), keyid=keyid)


def verify_statement(
    token: str, keys: Sequence[TrustedKey], bundle: BundleIdentity, *, now: float
) -> FreshnessStatement:
    """Check ``token`` as a statement about ``bundle`` at ``now`` (Unix seconds).

    Raises :class:`BundleRefused`: ``freshness_invalid`` (form or signature), ``freshness_key_unknown``,
    ``freshness_other_bundle``, ``freshness_other_digest``, ``freshness_sequence``, ``freshness_future``,
    ``freshness_expired``.
    """
    statement = read_statement(token, keys)
    found = statement.bundle
    if found.name != bundle.name:
        raise BundleRefused("freshness_other_bundle", f"the statement is about {found.name!r}, not {bundle.name!r}")
    if found.sequence != bundle.sequence:
        raise BundleRefused(
            "freshness_sequence", f"stated sequence {found.sequence}, the bundle's is {bundle.sequence}"
        )
    if found.digest != bundle.digest:
        raise BundleRefused("freshness_other_digest", "the statement is about another archive of this bundle")
    if statement.issued_at > now + CLOCK_LEEWAY_SECONDS:
        raise BundleRefused("freshness_future", f"made {statement.issued_at - now:.0f} seconds in the future")
    if now >= statement.expires_at:
        raise BundleRefused("freshness_expired", f"ended {now - statement.expires_at:.0f} seconds ago")
    return statement


def read_statement(token: str, keys: Sequence[TrustedKey]) -> FreshnessStatement:
    """Check signature and form only; for a statement that was accepted before and kept.

    **Security**: the key is the one the token names among the configured ones; its algorithm comes from the configuration.
    """
    if len(token) > STATEMENT_MAX_BYTES:
        raise BundleRefused("freshness_invalid", f"longer than {STATEMENT_MAX_BYTES} bytes")
    try:
        jws = parse_jws(token, payload_max_bytes=STATEMENT_MAX_BYTES)
    except BundleRefused as refused:
        raise BundleRefused("freshness_invalid", refused.detail) from refused
    unverified_keyid = jws.unverified_header.get("kid")
    key = next((key for key in keys if key.keyid == unverified_keyid), None)
    if key is None:
        raise BundleRefused("freshness_key_unknown", f"no freshness key is called {unverified_keyid!r}")
    try:
        verify_jws(jws, key)
    except BundleRefused as refused:
        raise BundleRefused("freshness_invalid", refused.detail) from refused
    return _statement(jws.unverified_payload, key.keyid, token)


def _statement(payload: dict[str, JsonValue], keyid: str, token: str) -> FreshnessStatement:
    if set(payload) != _MEMBERS:
        raise BundleRefused("freshness_invalid", f"a statement has {', '.join(sorted(_MEMBERS))} and nothing else")
    name, digest = payload["name"], payload["digest"]
    if not isinstance(name, str) or not isinstance(digest, str) or not digest.startswith("sha256:"):
        raise BundleRefused("freshness_invalid", "name and digest are strings, the digest begins with sha256:")
    issued, expires = _whole(payload, "iat"), _whole(payload, "exp")
    if not 1 <= expires - issued <= TTL_MAX_SECONDS:
        raise BundleRefused("freshness_invalid", f"a statement holds from 1 to {TTL_MAX_SECONDS} seconds")
    return FreshnessStatement(BundleIdentity(name, digest, _whole(payload, "seq")), issued, expires, keyid, token)


def _whole(payload: dict[str, JsonValue], member: str) -> int:
    value = payload[member]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= SAFE_INTEGER_MAX:
        raise BundleRefused("freshness_invalid", f"{member} is a whole number above zero")
    return value
