"""What failures of the parts below mean to a call: events and refusals with stable codes.

Guarantees: what a caller must not be told stays out of the refusal. Leaves counting and logging to `gateway.flow.driver`.
"""

from __future__ import annotations

from gateway.approvals.model import ApprovalRefused
from gateway.edge.problem import refusal
from gateway.egress.errors import UpstreamError, UpstreamTimeout
from gateway.errors import Refusal
from gateway.flow.events import DispatchFailed
from pdp.errors import PdpError

_POLICY_CODES = frozenset({"engine_failed", "policy_unavailable", "policy_stale", "malformed_request"})


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


def policy_refusal(failed: PdpError) -> Refusal:
    """Why policy gave no decision; only a question that may not be put is explained."""
    code = failed.code if failed.code in _POLICY_CODES else "engine_failed"
    return refusal(code, failed.detail if code == "malformed_request" else "")
