"""Recorded questions that a bundle carries, and the answers it must still give wherever it is loaded.

Guarantees that a bundle whose engine decides one of them differently is refused with the probe's name. Asking is left
to whoever prepares the bundle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from pdp.decision_document import comparable
from pdp.errors import PolicyRefused

if TYPE_CHECKING:
    from bundles.trusted_set import Probe

PROBES_MAX_COUNT = 10_000


def check_count(probes: tuple[Probe, ...]) -> None:
    """Raise ``PolicyRefused`` for more probes than a load may be made to run."""
    if len(probes) > PROBES_MAX_COUNT:
        raise PolicyRefused(f"{len(probes)} probes, {PROBES_MAX_COUNT} are allowed", code="policy_probe_mismatch")


def check_answer(probe: Probe, answer: bytes) -> None:
    """Raise ``PolicyRefused`` unless ``answer`` is the probe's decision, in whatever order its sets came out."""
    try:
        given = orjson.loads(answer)
    except orjson.JSONDecodeError as refused:
        raise PolicyRefused(f"{probe.name}: the answer is not JSON", code="policy_probe_mismatch") from refused
    if comparable(given) != comparable(probe.decision):
        effect = given.get("effect") if isinstance(given, dict) else None
        raise PolicyRefused(
            f"{probe.name}: decided {effect!r}, recorded {probe.decision.get('effect')!r}", code="policy_probe_mismatch"
        )
