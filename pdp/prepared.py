"""The policy in force: prepare beside, warm, swap in one assignment, ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bundles.trusted_set import TrustedBundle
    from pdp.documents import Decision, PolicyInput
    from pdp.engine import PolicyEngine


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision and what is needed to record it. ``seconds`` is the time it took, encoding and parsing included."""

    decision: Decision
    bundle_revision: str
    bundle_digest: str
    bundle_sequence: int
    engine: str
    decision_id: str
    input_digest: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ActiveBundle:
    """What is enforced right now."""

    bundle: TrustedBundle
    engine: str


class PolicyPlane:
    """Holds the one policy in force and answers questions with it."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine

    async def load(self, bundle: TrustedBundle) -> None:
        """Prepare ``bundle``, run its probes, put it in force; raises ``PolicyRefused`` and keeps the old one."""
        raise NotImplementedError(bundle)

    async def decide(self, policy_input: PolicyInput) -> Decided:
        """Answer one question; raises ``PdpError``."""
        raise NotImplementedError(policy_input)

    def current(self) -> ActiveBundle | None:
        """What is in force, if anything."""
        raise NotImplementedError

    async def close(self) -> None:
        """Free the policy in force."""
        raise NotImplementedError
