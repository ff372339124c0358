"""What the polling side asks a bundle service, what it takes for an answer, and when it asks again.

Guarantees: an answer is one only with the status, type and statement of the protocol; delays are spread so that many gates do not
ask at once, and grow while the service fails. Leaves the network to :class:`Fetch`, the checks of bundles to ``bundles.client``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from bundles.archive import ArchiveLimits
from bundles.errors import BundleRefused, BundleUnavailable
from bundles.freshness import FRESHNESS_HEADER, TTL_DEFAULT_SECONDS, BundleIdentity, FreshnessStatement
from bundles.service_protocol import (
    BUNDLE_TYPE,
    BUNDLE_TYPES,
    COSIGNATURES_HEADER,
    DELTA_MANIPULATION,
    DELTA_STATUS,
    decode_cosignatures,
    etag_of,
)
from bundles.trusted_set import TrustedBundle, TrustedKey, TrustPolicy

BACK_OFF_FIRST_SECONDS: Final = 0.25
SHARE_OF_LEASE: Final = 4
"""Asked this often within a lease, so that one lost answer ends nothing."""
PAUSE_SECONDS: Final = 0.1
HELD_AT_LEAST_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How one bundle is asked for; every limit with its unit."""

    lease_seconds: int = TTL_DEFAULT_SECONDS
    poll_seconds: float = 60.0
    long_poll: bool = True
    deltas: bool = True
    archive_max_bytes: int = ArchiveLimits().archive_max_bytes
    head_seconds: float = 10.0
    body_seconds: float = 60.0

    @property
    def interval_seconds(self) -> float:
        """The longest time between two questions."""
        return min(self.poll_seconds, self.lease_seconds / SHARE_OF_LEASE)

    @property
    def wait_seconds(self) -> int:
        """How long the service may hold a question; 0 for not at all."""
        return int(self.interval_seconds) if self.long_poll else 0


@dataclass(frozen=True, slots=True)
class ClientTrust:
    """Whose bundles and whose statements are believed; from configuration."""

    bundle: TrustPolicy
    freshness_keys: tuple[TrustedKey, ...]


@dataclass(frozen=True, slots=True)
class Transfer:
    """How a bundle came: whole, or as a delta; the bytes of that answer's body."""

    kind: Literal["whole", "delta"]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """What operators are shown; instants are Unix seconds."""

    remaining_seconds: float
    issued_at: int | None
    expires_at: int | None
    asked_at: float | None
    answered_at: float | None
    failures: int
    error_code: str | None
    error_detail: str | None
    error_at: float | None
    transfer: Transfer | None = None
    deltas_refused: int = 0
    delta_refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One request and the limits of its answer."""

    headers: tuple[tuple[str, str], ...]
    head_seconds: float
    body_seconds: float
    body_max_bytes: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer as it came; header names are lower case, a body only with status 200 and 226."""

    status: int
    unverified_headers: Mapping[str, str]
    unverified_body: bytes = field(default=b"", repr=False)


class Fetch(Protocol):
    """Asks one bundle's address. Bounds time and size as the question says."""

    async def __call__(self, question: Question) -> Fetched:
        """Raises :class:`BundleUnavailable`, or :class:`BundleRefused` ``bundle_too_large``."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A bundle that passed every check, with the statement that came with it, not in force yet."""

    bundle: TrustedBundle
    statement: FreshnessStatement
    archive: bytes = field(repr=False)
    cosignatures: bytes | None = field(repr=False)
    transfer: Transfer


def question_of(
    settings: ClientSettings, held: BundleIdentity | None, *, may_wait: bool, delta: bool = False
) -> Question:
    """Ask for what is newer than ``held``, with ``delta`` for the way from there.

    The service may hold the question only while the lease leaves time for that.
    """
    wait = settings.wait_seconds if held is not None and may_wait else 0
    headers = [("Accept", f"{BUNDLE_TYPE}, application/gzip;q=0.9"), ("User-Agent", "tidegate")]
    headers.append(("Prefer", f"modes=snapshot;wait={wait}" if wait else "modes=snapshot"))
    if held is not None:
        headers.append(("If-None-Match", etag_of(held.digest)))
        if delta:
            headers.append(("A-IM", DELTA_MANIPULATION))
    return Question(tuple(headers), settings.head_seconds + wait, settings.body_seconds, settings.archive_max_bytes)


def check_fetched(fetched: Fetched, *, asked_for_change: bool, asked_for_delta: bool = False) -> None:
    """Raise unless this is an answer of a bundle service to the question that was asked.

    ``bundle_service_status`` for another status, ``bundle_service_answer`` for a 304 nobody asked for or a page instead
    of a bundle, ``freshness_missing`` for either without a statement.
    """
    if fetched.status == 304 and not asked_for_change:
        raise BundleUnavailable("bundle_service_answer", "304 to a question without If-None-Match")
    if fetched.status not in (200, 304) and not (asked_for_delta and fetched.status == DELTA_STATUS):
        raise BundleUnavailable("bundle_service_status", f"the service answered {fetched.status}")
    kind = content_type(fetched)
    if fetched.status == 200 and kind not in BUNDLE_TYPES:
        raise BundleUnavailable("bundle_service_answer", f"a bundle was asked for, {kind or 'something untyped'} came")
    if not fetched.unverified_headers.get(FRESHNESS_HEADER.lower()):
        raise BundleRefused("freshness_missing", f"{fetched.status} came without {FRESHNESS_HEADER}")


def content_type(fetched: Fetched) -> str:
    """The type that the answer says it has, without parameters, in lower case."""
    return fetched.unverified_headers.get("content-type", "").partition(";")[0].strip().lower()


def statement_in(fetched: Fetched) -> str:
    """The unverified statement; ``check_fetched`` saw to it that there is one."""
    return fetched.unverified_headers[FRESHNESS_HEADER.lower()]


def cosignatures_in(fetched: Fetched) -> bytes | None:
    """The unverified envelope, if one came; raises ``cosignatures_invalid``."""
    return decode_cosignatures(fetched.unverified_headers.get(COSIGNATURES_HEADER.lower()))


def delay_seconds(settings: ClientSettings, *, failures: int, took_seconds: float, chance: float) -> float:
    """How long to wait before the next question; ``chance`` is a random number from 0 to 1.

    After an answer that the service held, at once; after a quick one, within the interval; after failures, doubling from
    a quarter of a second up to the interval, each spread over its second half.
    """
    if failures == 0 and settings.wait_seconds and took_seconds >= HELD_AT_LEAST_SECONDS:
        return PAUSE_SECONDS * chance
    longest = settings.interval_seconds
    if failures:
        longest = min(longest, BACK_OFF_FIRST_SECONDS * 2.0 ** min(failures - 1, 30))
    return longest * (0.5 + chance / 2)
