"""What failures of the parts below mean to who asked: events and refusals with stable codes.

Guarantees: what a caller must not be told stays out of the refusal. Leaves logging to whoever is told.
"""

from __future__ import annotations

from typing import Final

from gateway.approvals.model import ApprovalRefused
from gateway.edge.problem import refusal
from gateway.egress.errors import UpstreamError, UpstreamTimeout
from gateway.errors import Refusal
from gateway.flow.events import DispatchFailed
from gateway.operations.metrics import Metrics
from pdp.errors import EngineFailed, InputRefused, PdpError, PolicyStale, PolicyUnavailable

UNDECIDED: Final = frozenset({"policy_stale", "policy_unavailable", "engine_failed"})
"""The codes of `policy_failed` by which no question at all is answered at the moment."""


def dispatch_failed(failed: UpstreamError) -> DispatchFailed:
    """How an exchange ended that the caller's own body did not end."""
    kind = "timeout" if isinstance(failed, UpstreamTimeout) else "failed"
    return DispatchFailed(kind if failed.sent else "not_sent", failed.code, failed.detail)  # type: ignore[arg-type]


def approval_refusal(refused: ApprovalRefused) -> Refusal:
    """Why an approval was not opened, used or waited for."""
    if refused.code == "not_supported":
        reason = {"code": "not_supported", "rule": "", "message": refused.detail}
        return refusal("denied", refused.detail, reasons=[reason])
    return refusal(refused.code, refused.detail)


def policy_failed(failed: PdpError, metrics: Metrics) -> Refusal:
    """Why policy gave no decision, counted where the engine is at fault; only a question that may not be put is explained."""
    if isinstance(failed, InputRefused):
        return refusal("malformed_request", failed.detail)
    if isinstance(failed, PolicyStale):
        return refusal("policy_stale")
    if isinstance(failed, PolicyUnavailable):
        return refusal("policy_unavailable")
    if isinstance(failed, EngineFailed):
        metrics.engine_errors.inc()
    return refusal("engine_failed")
