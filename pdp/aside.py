"""A bundle asked aside from the one in force: for simulation, comparison and replay.

Guarantees: what it answers is what the gate would have enforced, failures included: an engine that gives no answer, and an
answer that is no decision, are denials. Nothing is ever let out by it. Belongs to one thread at a time; loading takes up
to seconds. Leaves to whoever calls whether the bundle's signature was checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdp.decided import NO_ANSWER, REFUSED_BY
from pdp.documents import Decision, Effect, Reason, parse_decision
from pdp.errors import DecisionRefused, EngineFailed
from pdp.wasm.host import WasmEngine

if TYPE_CHECKING:
    from bundles.content import BundleContent


class AsidePolicy:
    """One bundle on an embedded engine of its own."""

    def __init__(self, content: BundleContent, engine: WasmEngine | None = None) -> None:
        """Raises ``PolicyRefused`` when the embedded engine cannot take the bundle."""
        self._policy = (engine if engine is not None else WasmEngine()).prepare(content)
        chains = content.data.get("chains")
        self._chains = chains if isinstance(chains, dict) else {}
        self._cacheable = content.cacheable

    @property
    def engine(self) -> str:
        """The engine's name."""
        return self._policy.name

    def decide(self, input_bytes: bytes) -> Decision:
        """What the gate would do with this question; never raises for what a policy answers."""
        try:
            answer = self._policy.decide(input_bytes)
        except EngineFailed as failed:
            return Decision(Effect.DENY, (Reason(failed.code, NO_ANSWER, failed.detail),))
        try:
            return parse_decision(answer, chains=self._chains, cacheable=self._cacheable)
        except DecisionRefused as refused:
            return Decision(Effect.DENY, (Reason(refused.reason_code, REFUSED_BY, refused.detail),))

    def close(self) -> None:
        """Free the engine's instance."""
        self._policy.close()
