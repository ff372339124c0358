"""Putting a rulebook in force, at the start and later, or leaving it out because it is quarantined.

Guarantees: what is in force passed its own probes; what cannot be put in force leaves the old one; a quarantined one never
replaces anything. Leaves reading bundles to `gateway.bundle_set`.
"""

from __future__ import annotations

from dataclasses import dataclass

from bundles.trusted_set import TrustedBundle
from gateway.bundle_set import BundleSet
from gateway.bundle_settings import merged_bundle
from gateway.config import GatewayConfig
from gateway.quarantining import Quarantine
from pdp.engine import PolicyEngine
from pdp.errors import PdpError
from pdp.opa_server import OpaServerEngine
from pdp.prepared import PolicyPlane, ReadyPolicy


@dataclass(frozen=True, slots=True)
class PolicyLoader:
    """Where rulebooks come into force in one gate."""

    policy: PolicyPlane
    engine: PolicyEngine | OpaServerEngine
    quarantine: Quarantine

    async def load(self, merged: TrustedBundle, full: TrustedBundle) -> None:
        """Put `merged` in force, unless it is quarantined and nothing is. Raises what `prepare` raises."""
        ready = await self.prepare(merged, full)
        if ready is not None:
            await self.put_in_force(ready)

    async def prepare(self, merged: TrustedBundle, full: TrustedBundle) -> ReadyPolicy | None:
        """Make `merged` ready, for `put_in_force` or `discard`; None if it is quarantined and nothing is in force.

        The probes of the full bundle were recorded without the data of others, so they are run on it alone first. Raises
        `PdpError`, and `BundleRefused` for a quarantined one that would replace another; what is in force stays.
        """
        if await self.quarantine.keeps_out(merged):
            return None
        if merged.digest != full.digest:
            trial = PolicyPlane(self.engine)
            await trial.load(full)
            await trial.close()
        return await self.policy.prepare(merged)

    async def put_in_force(self, ready: ReadyPolicy) -> None:
        """Decide with what was prepared from this moment on."""
        await self.policy.put_in_force(ready)
        await self.quarantine.let_in(ready.active.bundle)

    async def first(self, config: GatewayConfig, bundles: BundleSet) -> TrustedBundle:
        """Put the first rulebook in force: where bundles kept on disk no longer can be, those that the services have
        instead."""
        full = config.document.full_bundle.name
        merged = merged_bundle(config, bundles.bundles())
        try:
            await self.load(merged, bundles.bundles()[full])
        except PdpError:
            if not await bundles.refetched():
                raise
            merged = merged_bundle(config, bundles.bundles())
            await self.load(merged, bundles.bundles()[full])
        return merged

    @property
    def engine_name(self) -> str | None:
        """The engine that answers, if a bundle is in force."""
        active = self.policy.current()
        return active.engine if active is not None else None
