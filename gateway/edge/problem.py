"""Refusals as RFC 9457 problem documents, and the table of every code the gate can answer with.

Guarantees: a code has one status and one title; the document's members are JSON that `orjson` can write. Leaves to the
caller: which code to use, and that `detail` and `extra` hold nothing secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import orjson

from gateway.errors import GateMisuse, Refusal

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
"""When to ask again at what is full: calls end within seconds, held calls and tickets when somebody sees to them."""

_RESERVED = frozenset({"type", "title", "status", "code", "detail", "call"})


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """What is the same for every refusal with one code."""

    status: int
    title: str


CODES: Mapping[str, ProblemKind] = MappingProxyType(
    {
        "malformed_request": ProblemKind(400, "The request is not one the gate accepts"),
        "header_mismatch": ProblemKind(400, "A header contradicts the request"),
        "idempotency_key_missing": ProblemKind(400, "This action needs an Idempotency-Key"),
        "identity_missing": ProblemKind(401, "No Tidegate token was presented"),
        "identity_invalid": ProblemKind(401, "The Tidegate token is not accepted"),
        "step_up_required": ProblemKind(401, "A stronger sign-in is required"),
        "budget_exhausted": ProblemKind(402, "The budget for this is used up"),
        "denied": ProblemKind(403, "Policy denies this call"),
        "vote_refused": ProblemKind(403, "This person may not cast this vote"),
        "unclassified": ProblemKind(403, "The request is no action of this instance"),
        "approval_required": ProblemKind(403, "A person must approve this call"),
        "approval_denied": ProblemKind(403, "A person denied this call"),
        "approval_expired": ProblemKind(403, "The approval of this call has expired"),
        "killed": ProblemKind(403, "A kill switch stops this call"),
        "quarantined": ProblemKind(403, "The caller or the target is quarantined"),
        "window_closed": ProblemKind(403, "This is not allowed at this time"),
        "egress_forbidden": ProblemKind(403, "The target address is not allowed"),
        "not_found": ProblemKind(404, "There is no such object"),
        "method_not_allowed": ProblemKind(405, "The method is not allowed here"),
        "too_slow": ProblemKind(408, "The request arrived too slowly"),
        "still_running": ProblemKind(409, "A call with this key is still running"),
        "stale_state": ProblemKind(409, "The object has changed since it was read"),
        "body_too_large": ProblemKind(413, "The body is too large"),
        "uri_too_long": ProblemKind(414, "The request target is too long"),
        "arguments_invalid": ProblemKind(422, "The arguments do not fit the action's schema"),
        "idempotency_mismatch": ProblemKind(422, "The Idempotency-Key was used with another request"),
        "throttled": ProblemKind(429, "Too many requests"),
        "headers_too_large": ProblemKind(431, "The request headers are too large"),
        "upstream_failed": ProblemKind(502, "The service did not answer properly"),
        "policy_stale": ProblemKind(503, "The policy is too old to decide with"),
        "policy_unavailable": ProblemKind(503, "No policy is loaded"),
        "engine_failed": ProblemKind(503, "The policy engine failed"),
        "ledger_unavailable": ProblemKind(503, "The ledger cannot take records"),
        "agent_unavailable": ProblemKind(503, "No agent can take this call"),
        "upstream_timeout": ProblemKind(504, "The service did not answer in time"),
        "outcome_unknown": ProblemKind(504, "Whether the service acted is not known"),
    }
)


def refusal(code: str, detail: str = "", **extra: object) -> Refusal:
    """A refusal with the status and title of `code`; `status=` in `extra` overrides (407 on the forward proxy).

    Raises `GateMisuse` for a code outside the table, so that no answer carries an undocumented word.
    """
    kind = CODES.get(code)
    if kind is None:
        raise GateMisuse(f"no such refusal code: {code}")
    status = extra.pop("status", kind.status)
    if not isinstance(status, int):
        raise GateMisuse("a status is an integer")
    return Refusal(code, status, kind.title, detail, extra)


def problem_body(refused: Refusal, call_id: str | None = None) -> bytes:
    """The problem document of a refusal as UTF-8 JSON.

    Members that RFC 9457 or this module set are never overridden by `extra`.

    Source: RFC 9457 §3.
    """
    document: dict[str, object] = {
        "type": "urn:tidegate:problem:" + refused.code.replace("_", "-"),
        "title": refused.title,
        "status": refused.status,
        "code": refused.code,
    }
    if refused.detail:
        document["detail"] = refused.detail
    if call_id is not None:
        document["call"] = call_id
    for name, value in refused.extra.items():
        if name not in _RESERVED and value is not None:
            document[name] = value
    return orjson.dumps(document)


def problem_headers(refused: Refusal) -> dict[str, str]:
    """Headers that go with a problem document: media type, no caching, no SDK retries, challenge for 401, time for 429.

    Source: RFC 9110 §10.2.3, RFC 6585 §4, RFC 6750 §3.
    """
    headers = {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store", "x-should-retry": "false"}
    if refused.status == 429:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if refused.status == 401 and refused.code.startswith("identity_"):
        error = ', error="invalid_token"' if refused.code == "identity_invalid" else ""
        headers["WWW-Authenticate"] = f'Bearer realm="tidegate"{error}'
    return headers
