"""What a decision leaves behind: the values that records, metrics and the flow of a call are made from.

Guarantees nothing beyond their shape. Leaves making them to ``pdp.prepared``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pdp.value import Value

if TYPE_CHECKING:
    from bundles.trusted_set import TrustedBundle
    from pdp.documents import Decision


REFUSED_BY: Final = "tidegate.decision_document"
"""The rule that a denial names when the policy's answer does not count."""
NO_ANSWER: Final = "tidegate.engine"
"""The rule that a denial names when the engine gave no answer."""


class Decided(Value, frozen=True):
    """A decision and what is needed to record it. ``seconds`` is the time it took, encoding and parsing included."""

    decision: Decision
    bundle_revision: str
    bundle_digest: str
    bundle_sequence: int
    engine: str
    decision_id: str
    input_digest: str
    seconds: float
    cached: bool | None = None
    """Whether the engine's answer to an equal question was given again (`pdp.decision_cache`); None where none is kept."""


@dataclass(frozen=True, slots=True)
class ActiveBundle:
    """What is enforced right now."""

    bundle: TrustedBundle
    engine: str
