"""The client's side of a signed bundle: bytes in, a trusted bundle or a refusal out.

Guarantees: a :class:`TrustedBundle` exists only for bytes whose signature, claims, file list and content passed every
check of :func:`verify_bundle`. Leaves to its callers: the clock, the highest sequence seen, and loading the policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bundles.archive import ArchiveLimits
from bundles.canonical import JsonValue


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


@dataclass(frozen=True, slots=True)
class Probe:
    """A recorded input document with the decision the policy must give for it."""

    name: str
    input: dict[str, JsonValue]
    decision: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class TrustedBundle:
    """A bundle that passed every check; ``data`` holds no probes, ``digest`` is of the whole archive."""

    name: str
    revision: str
    sequence: int
    epoch: int
    digest: str
    expires_at: int | None
    keyids: tuple[str, ...]
    manifest: dict[str, JsonValue]
    data: dict[str, JsonValue]
    rego: dict[str, bytes]
    wasm: bytes | None
    probes: tuple[Probe, ...]
    profile: str | None
    entrypoints: tuple[str, ...]
    cacheable: bool


def verify_bundle(raw: bytes, trust: TrustPolicy, *, now: int, highest_sequence: int) -> TrustedBundle:
    """Check ``raw`` against ``trust`` at ``now`` (Unix seconds) and return what it holds."""
    raise NotImplementedError
