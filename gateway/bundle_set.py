"""The bundles of one gate: one with the policies, others with data only, each from a file or followed at a service.

Guarantees: the set changes as a whole or not at all; it decides only while every lease in it holds; a member whose source and
trust did not change keeps its bundle and its lease over a reload. Leaves loading policies to ``gateway.app``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from bundles.client_state import LeaseGuard, SystemClocks
from bundles.errors import BundleError
from bundles.trusted_set import TrustedBundle, VerifyBundle
from gateway.bundle_config import Bundle
from gateway.bundle_follower import (
    RELOAD_WAIT_SECONDS,
    START_WAIT_SECONDS,
    BundleFollower,
    FollowedSource,
    Say,
    followed_source,
)
from gateway.bundle_settings import trusted_bundle
from gateway.config import GatewayConfig
from gateway.egress.dialer import UpstreamPools
from gateway.operations.enforcement import BundleState
from pdp.bundle_verifier import BundleVerifier

SHARE_OF_LEASE: Final = 4
"""A new bundle may cost two checks: its delta, and what that leads to."""
EVERY_TENANT: Final = "*"

Highest = Callable[[Bundle], Awaitable[int]]
Install = Callable[[str, TrustedBundle], Awaitable[None]]
"""Puts the set in force with this bundle in place of the member of that name; raises `BundleError`."""


@dataclass(frozen=True, slots=True)
class Member:
    """One bundle of the set, and who follows it on which lease, if anybody does."""

    configured: Bundle
    bundle: TrustedBundle
    follower: BundleFollower | None = None
    guard: LeaseGuard | None = None


class BundleSet:
    """The members by name, and what decisions depend on."""

    def __init__(self, pools: UpstreamPools, highest: Highest, verifier: BundleVerifier) -> None:
        """The set closes ``verifier`` with itself."""
        self._pools = pools
        self._highest = highest
        self._verifier = verifier
        self._members: dict[str, Member] = {}
        self._guards: tuple[LeaseGuard, ...] = ()
        self._tenants: frozenset[str] = frozenset()
        self._clocks: SystemClocks | None = None

    def holds(self) -> bool:
        """Whether every lease of the set holds now."""
        for guard in self._guards:
            if not guard.holds():
                return False
        return True

    def decides_for(self, tenant: str) -> bool:
        """Whether the bundle with the policies is configured for this tenant."""
        return tenant in self._tenants or EVERY_TENANT in self._tenants

    @property
    def verify(self) -> VerifyBundle:
        """How bundles are checked here without holding up the event loop; to be called in threads."""
        return self._verifier.verify

    @property
    def is_leased(self) -> bool:
        """Whether any member is followed."""
        return bool(self._guards)

    def bundles(self) -> dict[str, TrustedBundle]:
        """The bundles by configured name."""
        return {name: member.bundle for name, member in self._members.items()}

    def states(self) -> tuple[BundleState, ...]:
        """How each member stands, the one with policies first."""
        ordered = sorted(self._members.values(), key=lambda member: member.configured.data_only)
        return tuple(
            BundleState(
                member.bundle, member.configured, member.follower.status() if member.follower is not None else None
            )
            for member in ordered
        )

    async def begin(self, config: GatewayConfig) -> None:
        """Take each bundle from its file, from what was last in force, or from its service.

        Raises `ConfigError`, `BundleError`, `BundleServiceUnavailable`; whatever was begun for it has ended then.
        """
        try:
            self._take(await self._begun(config))
        except BaseException:
            self._verifier.close()
            raise

    async def _begun(self, config: GatewayConfig) -> dict[str, Member]:
        members = {}
        for configured in config.document.bundles:
            if configured.freshness == "local":
                members[configured.name] = await self._from_file(config, configured)
                continue
            guard, source = await self._guard(), await asyncio.to_thread(followed_source, config, configured)
            follower = self._follower(config, configured, source, guard)
            members[configured.name] = Member(configured, await follower.begin(), follower, guard)
        return members

    async def refetched(self) -> bool:
        """Fetch what had only been restored; false when nothing had been."""
        restored = {name: member for name, member in self._members.items() if _restored(member)}
        for name, member in restored.items():
            if member.follower is not None:
                fetched = await member.follower.fetched(START_WAIT_SECONDS)
                self._members[name] = replace(member, bundle=fetched)
        return bool(restored)

    async def prepared(self, config: GatewayConfig) -> dict[str, Member]:
        """The members that another configuration asks for, this set untouched; raises what `begin` raises.

        **Security**: a bundle is never carried over to keys that did not sign it.
        """
        members = {}
        for configured in config.document.bundles:
            if configured.freshness == "local":
                members[configured.name] = await self._from_file(config, configured)
                continue
            known = self._members.get(configured.name)
            source = await asyncio.to_thread(followed_source, config, configured)
            if known is not None and known.follower is not None and known.follower.source == source:
                members[configured.name] = replace(known, configured=configured)
                continue
            guard = known.guard if known is not None and known.guard is not None else await self._guard()
            follower = self._follower(config, configured, source, guard)
            fetched = await follower.fetched(RELOAD_WAIT_SECONDS)
            members[configured.name] = Member(configured, fetched, follower, guard)
        return members

    async def adopt(self, members: Mapping[str, Member], install: Install, say: Say) -> None:
        """These members are in force: leave those that went, follow those that came."""
        kept = {id(member.follower) for member in members.values()}
        for member in self._members.values():
            if member.follower is not None and id(member.follower) not in kept:
                await member.follower.close()
        self._take(dict(members))
        for member in self._members.values():
            if member.follower is not None:
                try:
                    await member.follower.in_force()
                except BundleError as fault:  # it decides already; its lease begins with the next answer of its service
                    say(fault)
        self.follow(install, say)

    def replaced(self, name: str, bundle: TrustedBundle) -> None:
        """The member of that name has this bundle now."""
        self._members[name] = replace(self._members[name], bundle=bundle)

    async def in_force(self) -> None:
        """The bundles are in force: leases that came with them begin."""
        for member in self._members.values():
            if member.follower is not None:
                await member.follower.in_force()

    def follow(self, install: Install, say: Say) -> None:
        """Ask the services from now on. Calls are served, so large bundles are checked in slices."""
        self._verifier.pace(self._spare_seconds)
        for name, member in self._members.items():
            if member.follower is not None:
                member.follower.follow(partial(install, name), say)

    def _spare_seconds(self) -> float:
        """How long a check may dawdle: while one goes on no lease grows, and none may end for politeness."""
        return min((guard.remaining_seconds() / SHARE_OF_LEASE for guard in self._guards), default=float("inf"))

    async def close(self) -> None:
        """Ask no more, and check nothing more."""
        self._verifier.close()
        for member in self._members.values():
            if member.follower is not None:
                await member.follower.close()

    async def _from_file(self, config: GatewayConfig, configured: Bundle) -> Member:
        highest = await self._highest(configured)
        return Member(configured, await asyncio.to_thread(trusted_bundle, config, configured, highest, self.verify))

    def _follower(
        self, config: GatewayConfig, configured: Bundle, source: FollowedSource, guard: LeaseGuard
    ) -> BundleFollower:
        highest = partial(self._highest, configured)
        return BundleFollower((config, configured), source, self._pools, guard, highest, self._verifier)

    async def _guard(self) -> LeaseGuard:
        if self._clocks is None:
            self._clocks = await asyncio.to_thread(SystemClocks)
        return LeaseGuard(self._clocks.read)

    def _take(self, members: dict[str, Member]) -> None:
        self._members = members
        self._guards = tuple(member.guard for member in members.values() if member.guard is not None)
        full = [member.configured for member in members.values() if not member.configured.data_only]
        self._tenants = frozenset(tenant for configured in full for tenant in configured.tenants)


def _restored(member: Member) -> bool:
    return member.follower is not None and member.follower.restored
