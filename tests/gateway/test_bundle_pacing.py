"""How long a bundle may be checked in slices: as every lease allows, and only once calls are served."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bundles.client_state import LeaseGuard
from bundles.errors import BundleError
from bundles.freshness import BundleIdentity, FreshnessStatement
from bundles.lease import ClockReading, Lease
from bundles.trusted_set import TrustedBundle
from gateway.bundle_config import Bundle
from gateway.bundle_set import SHARE_OF_LEASE, BundleSet, Member
from gateway.egress.dialer import UpstreamPools
from pdp.bundle_verifier import BundleVerifier
from tests.pdp import large

NOW = ClockReading(1_000_000.0, 500.0, "boot-1")
CONFIGURED = Bundle.model_validate(
    {
        "name": "main",
        "tenants": ["*"],
        "source": "file:bundle.tar.gz",
        "trusted_keys": [{"keyid": "k", "algorithm": "ES256", "key": "file:k.pem"}],
    }
)


class Told(BundleVerifier):
    """A verifier that shows how it was told to pace."""

    spare: Callable[[], float] | None = None

    def pace(self, spare: Callable[[], float]) -> None:
        self.spare = spare


def leased(remaining_seconds: float) -> LeaseGuard:
    """A lease with so much left; 0 is none."""
    guard = LeaseGuard(lambda: NOW, wall=lambda: NOW.wall_seconds, boot=lambda: NOW.boot_seconds)
    if remaining_seconds:
        begins = int(NOW.wall_seconds)
        about = BundleIdentity("main", "sha256:" + "0" * 64, 1)
        statement = FreshnessStatement(about, begins, begins + 86_400, "k", "token")
        guard.replace(Lease().armed(statement, NOW, longest_seconds=remaining_seconds))
    return guard


async def put(name: str, bundle: TrustedBundle) -> None:
    """Nothing is put in force here."""


def say(fault: BundleError) -> None:
    """Nobody listens."""


async def highest(configured: Bundle) -> int:
    return 0


async def spare_of(*guards: LeaseGuard | None) -> float:
    """What a set with these leases may spare once it follows."""
    verifier = Told()
    members = BundleSet(UpstreamPools(), highest, verifier)
    assert verifier.spare is None
    bundle = large.verified_here(large.question())
    named = {f"b{number}": Member(CONFIGURED, bundle, None, guard) for number, guard in enumerate(guards)}
    await members.adopt(named, put, say)
    await members.close()
    assert verifier.spare is not None
    return verifier.spare()


@pytest.mark.parametrize(
    ("remaining", "seconds"),
    [((), float("inf")), ((400.0,), 100.0), ((400.0, 60.0), 15.0), ((400.0, 0.0), 0.0)],
    ids=["no bundle is leased", "one is", "two are", "one lease is over"],
)
async def test_check_may_take_a_share_of_the_shortest_lease_when(remaining: tuple[float, ...], seconds: float) -> None:
    assert SHARE_OF_LEASE == 4
    assert await spare_of(None, *map(leased, remaining)) == pytest.approx(seconds)
