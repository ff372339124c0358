"""Problem documents and the table of codes."""

from __future__ import annotations

import json

import pytest

from gateway.edge.problem import CODES, RETRY_AFTER_SECONDS, problem_body, problem_headers, refusal
from gateway.errors import GateMisuse, Refusal

PUBLISHED = {
    400: {"malformed_request", "header_mismatch", "idempotency_key_missing"},
    401: {"identity_missing", "identity_invalid", "step_up_required"},
    402: {"budget_exhausted"},
    403: {
        *("denied", "vote_refused", "unclassified", "approval_required", "approval_denied", "approval_expired"),
        *("killed", "quarantined", "window_closed", "egress_forbidden"),
    },
    404: {"not_found"},
    405: {"method_not_allowed"},
    408: {"too_slow"},
    409: {"still_running", "stale_state"},
    413: {"body_too_large"},
    414: {"uri_too_long"},
    422: {"arguments_invalid", "idempotency_mismatch"},
    429: {"throttled"},
    431: {"headers_too_large"},
    502: {"upstream_failed"},
    503: {"policy_stale", "policy_unavailable", "engine_failed", "ledger_unavailable", "agent_unavailable"},
    504: {"upstream_timeout", "outcome_unknown"},
}


def test_codes_are_the_published_table() -> None:
    by_status: dict[int, set[str]] = {}
    for code, kind in CODES.items():
        by_status.setdefault(kind.status, set()).add(code)
    assert by_status == PUBLISHED


@pytest.mark.parametrize("code", sorted(CODES))
def test_problem_body_carries_the_code_when_refused(code: str) -> None:
    document = json.loads(problem_body(refusal(code, "why"), "call-1"))
    assert document["code"] == code
    assert document["type"] == "urn:tidegate:problem:" + code.replace("_", "-")
    assert document["status"] == CODES[code].status
    assert document["title"] == CODES[code].title
    assert (document["detail"], document["call"]) == ("why", "call-1")


def test_problem_body_adds_members_when_they_are_not_reserved() -> None:
    refused = refusal("denied", reasons=[{"code": "prod_write"}], decision=None)
    document = json.loads(problem_body(refused))
    assert document["reasons"] == [{"code": "prod_write"}]
    assert not {"decision", "detail", "call"}.intersection(document)


def test_problem_body_keeps_its_own_members_when_extra_repeats_them() -> None:
    document = json.loads(problem_body(Refusal("denied", 403, "Title", extra={"code": "other", "title": "x"})))
    assert (document["code"], document["title"]) == ("denied", "Title")


def test_refusal_takes_another_status_when_the_forward_proxy_answers() -> None:
    assert refusal("identity_missing", status=407).status == 407


@pytest.mark.parametrize(
    ("code", "extra"),
    [pytest.param("no_such_code", {}, id="unknown code"), pytest.param("denied", {"status": "x"}, id="status is text")],
)
def test_refusal_is_misuse_when_it_is_not_in_the_table(code: str, extra: dict[str, object]) -> None:
    with pytest.raises(GateMisuse):
        refusal(code, **extra)


@pytest.mark.parametrize(
    ("code", "challenge"),
    [
        pytest.param("identity_missing", 'Bearer realm="tidegate"', id="none presented"),
        pytest.param("identity_invalid", 'Bearer realm="tidegate", error="invalid_token"', id="not accepted"),
        pytest.param("denied", None, id="not about identity"),
        pytest.param("step_up_required", None, id="the flow writes its own challenge"),
    ],
)
def test_problem_headers_challenge_when_identity_is_at_fault(code: str, challenge: str | None) -> None:
    headers = problem_headers(refusal(code))
    assert headers.get("WWW-Authenticate") == challenge
    assert headers["x-should-retry"] == "false"
    assert headers["Content-Type"] == "application/problem+json"


def test_refusal_says_its_code_when_printed() -> None:
    assert str(refusal("denied", "because")) == "denied: because"
    assert str(refusal("denied")) == "denied: " + CODES["denied"].title


@pytest.mark.parametrize("code", sorted(CODES))
def test_headers_say_when_to_ask_again_only_when_something_is_full(code: str) -> None:
    found = problem_headers(refusal(code)).get("Retry-After")
    assert found == (str(RETRY_AFTER_SECONDS) if code == "throttled" else None)
