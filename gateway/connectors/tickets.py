"""Upload tickets: a secret in a URL that lets one subject make one call, once, soon.

Guarantees: a ticket has 256 random bits, is good once and for ten minutes, and only for the tenant, subject, instance,
action and path it was issued for; the book keeps digests, never tickets, and is bounded. Leaves to `rewrite` where
tickets are put, to the flow that the redeeming call is decided like any other.

A book lives in one process: with several workers a ticket is good on the worker that issued it only.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bundles.canonical import sha256_hex
from gateway.edge.identity import Subject
from gateway.edge.problem import refusal
from gateway.edge.url import canonical_path
from gateway.errors import Refusal

TICKET_BYTES: Final = 32
LIFETIME_SECONDS: Final = 600
OUTSTANDING_MAX: Final = 10_000
OUTSTANDING_PER_TENANT_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class TicketClaim:
    """What one ticket stands for. `subject` carries tenant and workspace; `actions` are those that take tickets at
    `path`, the upstream path (more than one where a service lets its clients choose the method); `issued_by_call` is the
    call whose answer carried the ticket."""

    subject: Subject
    instance: str
    actions: frozenset[str]
    path: str
    issued_by_call: str
    expires_at: float


class TicketBook:
    """All outstanding tickets of this process, oldest first."""

    def __init__(
        self,
        random_bytes: Callable[[int], bytes],
        *,
        lifetime_seconds: int = LIFETIME_SECONDS,
        outstanding_max: int = OUTSTANDING_MAX,
        outstanding_per_tenant_max: int = OUTSTANDING_PER_TENANT_MAX,
    ) -> None:
        """`random_bytes` must be a cryptographic source (`secrets.token_bytes`)."""
        self._random_bytes = random_bytes
        self._lifetime_seconds = lifetime_seconds
        self._outstanding_max = outstanding_max
        self._per_tenant_max = outstanding_per_tenant_max
        self._claims: dict[str, TicketClaim] = {}
        self._per_tenant: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._claims)

    def issue(
        self, subject: Subject, *, instance: str, actions: frozenset[str], path: str, call: str, now: float
    ) -> str:
        """A new ticket (43 URL-safe characters) for `subject` on `instance`, for one call to one of `actions` at `path`.

        It ends with the subject's own token if that is earlier. Raises `Refusal` ``throttled`` when too many are
        outstanding, ``upstream_failed`` when no action takes it: the URL would lead nowhere.
        """
        if not actions:
            raise refusal("upstream_failed", "no action takes the upload URL in the answer")
        self._drop_expired(now)
        held = self._per_tenant.get(subject.tenant, 0)
        if len(self._claims) >= self._outstanding_max or held >= self._per_tenant_max:
            raise refusal("throttled", "too many upload tickets are outstanding")
        ticket = base64.urlsafe_b64encode(self._random_bytes(TICKET_BYTES)).rstrip(b"=").decode("ascii")
        expires_at = min(now + self._lifetime_seconds, float(subject.expires_at))
        self._claims[_digest(ticket)] = TicketClaim(subject, instance, actions, path, call, expires_at)
        self._per_tenant[subject.tenant] = held + 1
        return ticket

    def redeem(self, unverified_ticket: str, *, instance: str, action: str, path: str, now: float) -> TicketClaim:
        """Use up a ticket; the claim says who calls.

        Raises `Refusal` ``identity_invalid``, with one wording for unknown, used, expired and misdirected tickets. A
        ticket shown at the wrong place is used up as well.

        **Security**: looking up a digest leaks no ticket through timing; a leaked URL is worth one call to one path.
        """
        claim = self._claims.pop(_digest(unverified_ticket), None)
        if claim is not None:
            self._release(claim)
        if (
            claim is None
            or now >= claim.expires_at
            or claim.instance != instance
            or action not in claim.actions
            or claim.path != path
        ):
            raise refusal("identity_invalid", "the upload ticket is not good for this call")
        return claim

    def _release(self, claim: TicketClaim) -> None:
        tenant = claim.subject.tenant
        left = self._per_tenant.get(tenant, 0) - 1
        if left > 0:
            self._per_tenant[tenant] = left
        else:
            self._per_tenant.pop(tenant, None)

    def _drop_expired(self, now: float) -> None:
        """Look at the oldest few only: issuing stays quick, and each issue looks at more than it adds."""
        for digest, claim in list(self._claims.items()) if len(self._claims) < 64 else _oldest(self._claims, 64):
            if now >= claim.expires_at:
                del self._claims[digest]
                self._release(claim)


def upload_segments(path: str) -> tuple[str, ...]:
    """The decoded segments of an upload URL's path. Raises `upstream_failed` where a request to it would be refused."""
    try:
        return canonical_path(path).segments
    except Refusal as refused:
        raise refusal("upstream_failed", "the upload URL in the answer has no single reading") from refused


def _oldest(claims: dict[str, TicketClaim], count: int) -> list[tuple[str, TicketClaim]]:
    return [item for item, _ in zip(claims.items(), range(count), strict=False)]


def _digest(ticket: str) -> str:
    return sha256_hex(ticket.encode("utf-8", "surrogatepass"))
