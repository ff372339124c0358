"""The gate's side of ``freshness: signed``: a client made from the configuration, followed by one task.

Guarantees: the gate starts with the bundle last in force or with a fetched one, never with neither; whatever goes wrong
afterwards is logged, counted and shown, and leaves the old bundle with its old lease. Leaves putting bundles in force to
``gateway.app``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bundles.client import BundleClient, ClientParts, Install
from bundles.client_protocol import ClientSettings, ClientStatus, ClientTrust, Offer
from bundles.client_state import ClientFiles, LeaseGuard
from bundles.errors import BundleError, BundleUnavailable
from bundles.trusted_set import TrustedBundle
from gateway.bundle_config import Bundle
from gateway.bundle_settings import bundle_folder, client_trust, service_token
from gateway.bundle_source import BundleAddress
from gateway.config import GatewayConfig
from gateway.egress.addresses import AddressClass, address_classes
from gateway.egress.dialer import UpstreamPools
from gateway.errors import GateUnavailable
from pdp.bundle_verifier import BundleVerifier

START_WAIT_SECONDS = 15.0
RELOAD_WAIT_SECONDS = 10.0

Say = Callable[[BundleError], None]


class BundleServiceUnavailable(GateUnavailable):
    """No bundle could be had; ``code`` says why."""

    def __init__(self, cause: BundleError) -> None:
        super().__init__(f"no bundle could be had: {cause}")
        self.code = cause.code


@dataclass(frozen=True, slots=True)
class FollowedSource:
    """Everything of the configuration that following depends on; equal values need no new follower."""

    url: str
    token: str | None
    allowed: frozenset[AddressClass]
    trust: ClientTrust
    settings: ClientSettings


def followed_source(config: GatewayConfig, bundle: Bundle) -> FollowedSource:
    """What the configuration says about the bundle service. Blocks on the disk; raises `ConfigError`, `GateError`."""
    return FollowedSource(
        bundle.source,
        service_token(config, bundle),
        frozenset({AddressClass.PUBLIC}) | address_classes(bundle.allow_addresses),
        client_trust(config, bundle),
        ClientSettings(bundle.lease_seconds, float(bundle.poll_seconds), bundle.long_poll, bundle.deltas),
    )


class BundleFollower:
    """Follows one bundle at a service."""

    def __init__(
        self,
        configured: tuple[GatewayConfig, Bundle],
        source: FollowedSource,
        pools: UpstreamPools,
        guard: LeaseGuard,
        highest: Callable[[], Awaitable[int]],
        checks: BundleVerifier,
    ) -> None:
        self.source = source
        self._guard = guard
        pool = pools.pool("_gate", f"_bundles/{configured[1].name}", "", source.allowed)
        fetch = BundleAddress(pool, source.url, source.token)
        parts = ClientParts(
            fetch, ClientFiles(bundle_folder(*configured)), guard, highest, verify=checks.verify, rebuild=checks.rebuild
        )
        self._client = BundleClient(source.trust, source.settings, parts)
        self._offer: Offer | None = None
        self.restored = False
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> TrustedBundle:
        """The bundle to start with: the one last in force, or the first that is fetched.

        Raises `BundleServiceUnavailable` when there is neither.
        """
        bundle = await self._client.restore()
        self.restored = bundle is not None
        return bundle if bundle is not None else await self.fetched(START_WAIT_SECONDS)

    async def fetched(self, within_seconds: float) -> TrustedBundle:
        """A bundle from the service, whatever is on disk. Raises `BundleServiceUnavailable`."""
        try:
            self._offer = await self._client.first(within_seconds)
        except BundleUnavailable as failed:
            raise BundleServiceUnavailable(failed) from failed
        return self._offer.bundle

    async def in_force(self) -> None:
        """The bundle of `begin` or `fetched` was put in force: its lease begins, if it came with one."""
        offer, self._offer = self._offer, None
        if offer is not None:
            await self._client.commit(offer)

    def follow(self, install: Install, say: Say) -> None:
        """Ask from now on, in a task of its own; nothing more when that was begun before."""
        if self._task is not None:
            return
        self._task = asyncio.get_running_loop().create_task(self._client.run(install, say), name="bundle-follow")

    def status(self) -> ClientStatus:
        """How it stands."""
        return self._client.status()

    async def close(self) -> None:
        """Ask no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
