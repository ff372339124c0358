"""What failures below mean to a call, and how little of them its caller is told."""

from __future__ import annotations

import pytest

from gateway.approvals.model import ApprovalRefused
from gateway.egress.errors import UpstreamError, UpstreamFailed, UpstreamNotSent, UpstreamTimeout
from gateway.flow.events import DispatchFailed
from gateway.flow.failures import UNDECIDED, approval_refusal, dispatch_failed, policy_failed
from gateway.operations.metrics import Metrics
from pdp.errors import EngineFailed, InputRefused, PdpError, PolicyRefused, PolicyStale, PolicyUnavailable

ENDS: dict[str, tuple[UpstreamError, DispatchFailed]] = {
    "nothing was sent": (UpstreamNotSent("refused"), DispatchFailed("not_sent", "upstream_failed", "refused")),
    "the answer was cut": (UpstreamFailed("cut"), DispatchFailed("failed", "upstream_failed", "cut")),
    "the answer was slow": (
        UpstreamTimeout("slow", sent=True),
        DispatchFailed("timeout", "upstream_timeout", "slow"),
    ),
    "no connection came in time": (
        UpstreamTimeout("busy", sent=False),
        DispatchFailed("not_sent", "upstream_timeout", "busy"),
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_dispatch_failed_says_whether_anything_was_sent_when(case: str) -> None:
    failed, event = ENDS[case]
    assert dispatch_failed(failed) == event


def test_approval_refusal_denies_with_a_reason_when_the_chain_is_not_supported() -> None:
    refused = approval_refusal(ApprovalRefused("not_supported", "two steps"))
    assert (refused.code, refused.status) == ("denied", 403)
    assert refused.extra["reasons"] == [{"code": "not_supported", "rule": "", "message": "two steps"}]


@pytest.mark.parametrize("code", ["stale_state", "throttled", "not_found"])
def test_approval_refusal_keeps_the_code_when_it_is_one_of_callers(code: str) -> None:
    refused = approval_refusal(ApprovalRefused(code, "words"))
    assert (refused.code, refused.detail) == (code, "words")


TOLD: dict[str, tuple[PdpError, str, str]] = {
    "the engine failed": (EngineFailed("trap at 0x40"), "engine_failed", ""),
    "no bundle is loaded": (PolicyUnavailable("no bundle"), "policy_unavailable", ""),
    "the bundle is stale": (PolicyStale("the lease has ended"), "policy_stale", ""),
    "the question may not be put": (InputRefused("a key is no text"), "malformed_request", "a key is no text"),
    "the engine cannot be asked": (PolicyUnavailable("late", code="opa_too_slow"), "policy_unavailable", ""),
    "something else is wrong with policy": (PolicyRefused("inside"), "engine_failed", ""),
}


@pytest.mark.parametrize("case", TOLD)
def test_policy_failed_tells_callers_only_of_their_question_when(case: str) -> None:
    failed, code, detail = TOLD[case]
    metrics = Metrics()
    refused = policy_failed(failed, metrics)
    assert (refused.code, refused.detail) == (code, detail)
    assert (refused.code in UNDECIDED) is (code != "malformed_request")
    errors = 1 if isinstance(failed, EngineFailed) else 0
    assert f"tidegate_engine_errors_total {errors}.0" in metrics.exposition().decode()
