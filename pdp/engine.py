"""The port behind which policy engines stand.

Guarantees nothing by itself: it says what an engine owes. An engine takes the input document's bytes and gives the
bytes of exactly one decision document, or raises; there is no third outcome that could be mistaken for permission.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bundles.trusted_set import TrustedBundle

ENTRYPOINT = "tidegate/decision"
"""The rule that every bundle answers by: ``data.tidegate.decision``."""


class PreparedPolicy(Protocol):
    """One bundle, ready to be asked. Belongs to one thread at a time."""

    @property
    def name(self) -> str:
        """The engine's name as records and metrics show it."""

    @property
    def ready(self) -> bool:
        """Whether the next question is answered without being made anew first."""

    def decide(self, input_bytes: bytes) -> bytes:
        """Answer one encoded input document with the bytes of its one decision document.

        Raises ``EngineFailed`` for everything else: undefined, several results, trap, abort, deadline, memory.
        """

    def renew(self) -> None:
        """Make whatever a failure discarded anew; raises ``EngineFailed`` when that is impossible. May take long."""

    def close(self) -> None:
        """Free everything held; asking afterwards raises ``EngineFailed``."""


class PolicyEngine(Protocol):
    """Makes prepared policies out of verified bundles."""

    @property
    def name(self) -> str:
        """The engine's name as records and metrics show it."""

    def prepare(self, bundle: TrustedBundle) -> PreparedPolicy:
        """Load a bundle. Raises ``PolicyRefused`` when the engine refuses it. May take long: call it in a thread."""
