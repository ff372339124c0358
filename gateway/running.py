"""What is in force in one gate process: the parts that last, and the assembly that a reload replaces whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from bundles.canonical import JsonValue
from bundles.trusted_set import VerifyBundle, verify_bundle
from gateway.assembly import Assembly
from gateway.cross_checking import CrossChecker
from gateway.flow.services import Reach, Services
from gateway.operations.enforcement import BundleState
from gateway.shadowing import ShadowRunner
from gateway.store.sealing import TenantKeys


@dataclass(slots=True)
class Running:
    """The one mutable value of a gate: `assembly` is replaced in one assignment."""

    services: Services
    tenant_keys: TenantKeys
    assembly: Assembly
    started_unix: float
    closing: bool = False
    gate_hosts: frozenset[str] = frozenset()
    """What `Host` may say on the gate's listener."""
    bundles: Callable[[], tuple[BundleState, ...]] = tuple
    """How each bundle in force stands, the one with policies first."""
    verify: VerifyBundle = verify_bundle
    """How other bundles are checked beside them; to be called in threads."""

    replaying: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while recorded calls are decided again, which is done once at a time."""
    shadow: ShadowRunner | None = None
    """What decisions are compared with, from when the gate has started."""
    cross_check: CrossChecker | None = None
    """Who puts decisions to OPA as well, from when the gate has started."""

    def reach(self) -> Reach:
        """What the configuration in force lets calls reach."""
        return self.assembly.reach

    def chains(self) -> dict[str, JsonValue]:
        """The approval chains of the bundle in force."""
        active = self.services.policy.current()
        chains = active.bundle.data.get("chains") if active is not None else None
        return chains if isinstance(chains, dict) else {}
