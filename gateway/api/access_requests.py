"""Access requests over HTTP: asking people for what policy holds, how it went, and taking it back.

Guarantees: a request opens one approval, through the service that holds calls, for exactly what was denied to this caller;
it is asked of policy once more before people are, and its end grants nothing but another evaluation. Everybody else's
requests are as absent as those that do not exist. Leaves votes to `gateway.api.approvals`.

**Source**: OpenID AuthZEN Access Request and Approval Profile 1.0, draft 1, of June 2026.
"""

from __future__ import annotations

import hashlib
from typing import Final

import orjson

from bundles.canonical import JsonValue, canonical_json
from gateway.api.access_request_mapping import (
    Denial,
    Submission,
    UnboundRequest,
    chain_of,
    endpoint,
    never_voting,
    open_denial,
    parse_submission,
    question_fields,
    task_document,
)
from gateway.api.authzen_mapping import MalformedQuestion, is_about_caller
from gateway.api.evaluating import Evaluation, Judged, evaluation_draft, json_document, judge
from gateway.api.exchange import ApiExchange, answer
from gateway.api.management import authorize
from gateway.approvals.model import Approval, ApprovalRefused, HeldCall, Reason
from gateway.approvals.reduce import is_requester
from gateway.edge.answer import Answer
from gateway.edge.headers import HeaderPairs, prefer
from gateway.edge.problem import refusal
from gateway.errors import Refusal
from gateway.flow.describe import chain_json, subject_record
from gateway.running import Running
from gateway.store.port import ClaimKey, KeyClaim, idempotency_scope
from gateway.store.sealing import Purpose
from pdp.documents import ApprovalObligation, Effect

KEY_PURPOSE: Final[Purpose] = "access-request-hmac"
ID_MAX_CHARACTERS: Final = 64
KEY_MAX_CHARACTERS: Final = 255
KEY_KEPT_SECONDS: Final = 86_400
_PROBLEM: Final = "problem"
_URN: Final = "urn:openid:authzen:access-request:error:"
_TOKENS: Final = "/access-requests/denials"
_KEYS: Final = "/access-requests/keys"
"""Scopes of claims that no instance's calls can have: an instance's name holds no slash."""


async def handle(running: Running, exchange: ApiExchange) -> Answer:
    """Answer a request below ``/access/v1/requests``. Raises `Refusal`."""
    method, parts = exchange.head.method, exchange.parts[2:]
    if parts and len(parts[0]) <= ID_MAX_CHARACTERS:
        exchange.trace.approval_id = parts[0]
    try:
        if not parts:
            _only(method, "POST")
            return await _create(running, exchange)
        if len(parts) == 1 and method != "DELETE":
            _only(method, "GET", "DELETE")
            return await _show(running, exchange, parts[0])
        if len(parts) == 1 or parts[1:] == ("cancel",):
            _only(method, "POST", "DELETE")
            return await _cancel(running, exchange, parts[0])
    except ApprovalRefused as refused:
        raise refusal(refused.code, refused.detail) from refused
    raise refusal("not_found")


def in_profile_words(body: bytes) -> bytes:
    """A problem document with the profile's own type, where the profile has one for it."""
    problem = orjson.loads(body)
    named = problem.pop(_PROBLEM, None)
    return orjson.dumps({**problem, "type": f"{_URN}{named}"} if named is not None else problem)


def _only(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise refusal("method_not_allowed", f"only {' and '.join(allowed)} is allowed here")


async def _create(running: Running, exchange: ApiExchange) -> Answer:
    await authorize(running, exchange, "access_request.create")
    document = await json_document(exchange)
    try:
        submission = parse_submission(document, exchange.head.get("tidegate-reason") or "")
        if not is_about_caller(submission.question, exchange.subject):
            await _authorize_subject(running, exchange)
        claims = _Claims(exchange, document)
        approval = await claims.by_key(running)
        if approval is None:
            denial = open_denial(submission, exchange.subject, running.tenant_keys.key(exchange.log[0], KEY_PURPOSE))
            approval = await _opened(running, exchange, submission, denial, claims)
    except UnboundRequest as unbound:
        raise refusal("malformed_request", unbound.detail, problem="invalid_denial_binding") from unbound
    except MalformedQuestion as fault:
        raise refusal("denied" if fault.status == 403 else "malformed_request", fault.detail) from fault
    exchange.trace.approval_id = approval.id
    task = _task(running, approval)
    location = f"{endpoint(running.assembly.config.external_url)}/{approval.id}"
    headers: HeaderPairs = (("Location", location), ("Tidegate-Approval", approval.id))
    return _answered(exchange, task, headers, status=201 if "result" in task else 202)


async def _authorize_subject(running: Running, exchange: ApiExchange) -> None:
    """A request for somebody else takes the authority to ask about them; what is counted stays the request."""
    trace = exchange.trace
    asked = trace.action, trace.mode, trace.decided
    await authorize(running, exchange, "access.subject")
    trace.action, trace.mode, trace.decided = asked


class _Claims:
    """What a submission claims for its request: its denial, once, and its `Idempotency-Key`, once."""

    def __init__(self, exchange: ApiExchange, document: JsonValue) -> None:
        self._log, self._subject = exchange.log, exchange.subject
        self._digest = hashlib.sha256(canonical_json(document)).hexdigest()
        key = exchange.head.get("idempotency-key")
        if key is not None and not 0 < len(key) <= KEY_MAX_CHARACTERS:
            raise refusal("malformed_request", f"idempotency-key has 1 to {KEY_MAX_CHARACTERS} characters")
        self._key = self._scope(_KEYS, key) if key is not None else None

    def _scope(self, place: str, name: str) -> str:
        return idempotency_scope(self._log, self._subject.standing, place, name)

    async def by_key(self, running: Running) -> Approval | None:
        """The request that this key opened. Raises the profile's `duplicate_request` for another body."""
        if self._key is None:
            return None
        found = await running.services.store.claim(self._log, self._key)
        if found is not None and found.request_digest != self._digest:
            raise _duplicate()
        return await self._of(running, found)

    async def by_denial(self, running: Running, denial: Denial) -> Approval | None:
        """The request that this denial opened, or attached to."""
        scope = self._scope(_TOKENS, denial.evaluation)
        return await self._of(running, await running.services.store.claim(self._log, scope))

    async def _of(self, running: Running, claim: KeyClaim | None) -> Approval | None:
        return await running.services.approvals.get(self._log, claim.call) if claim is not None else None

    def made(self, denial: Denial, approval_id: str, key_until: int) -> tuple[ClaimKey, ...]:
        """The claims for the approval of this id; that of the key lasts until `key_until` (wall ms)."""
        scope = self._scope(_TOKENS, denial.evaluation)
        claims = (ClaimKey(self._log, scope, denial.evaluation, approval_id, denial.expires),)
        if self._key is None:
            return claims
        return (*claims, ClaimKey(self._log, self._key, self._digest, approval_id, key_until))


def _duplicate() -> Refusal:
    detail = "the Idempotency-Key was used with another body"
    return refusal("idempotency_mismatch", detail, status=409, problem="duplicate_request")


async def _opened(
    running: Running, exchange: ApiExchange, submission: Submission, denial: Denial, claims: _Claims
) -> Approval:
    """The request of a denial: the one it has, or a new one if policy still wants people to be asked."""
    now = int(running.services.clock() * 1000)
    if now >= denial.expires:
        raise refusal("stale_state", "the denial is too old: ask again", status=410, problem="expired_denial")
    earlier = await claims.by_denial(running, denial)
    if earlier is not None:
        return earlier
    at = Evaluation(running, exchange.subject, exchange.call_id)
    judged = await judge(at, submission.denied(denial.members))
    await running.services.writer.append(evaluation_draft(at, judged))
    obligation = _requestable(running, judged, denial)
    held = _held(running, exchange, judged, obligation, (submission.reason, denial.evaluation))
    until = now + (obligation.decide_within_seconds + KEY_KEPT_SECONDS) * 1000
    try:
        approval = await running.services.approvals.open_or_attach_once(
            held, lambda approval_id: claims.made(denial, approval_id, until)
        )
    except ApprovalRefused as refused:
        raise _duplicate() if refused.code == "idempotency_mismatch" else refused from refused
    if approval.held.call == exchange.call_id:
        running.services.metrics.approvals_created.inc()
    return approval


def _requestable(running: Running, judged: Judged, denial: Denial) -> ApprovalObligation:
    """What people are asked for. Raises unless policy, under the bundle that denied, holds the question for people."""
    decided = judged.decided
    if judged.killed:
        raise refusal("killed", "a kill switch stops this action")
    if decided.bundle_digest != denial.bundle:
        raise refusal("stale_state", "the policy has changed since the denial: ask again")
    obligation = decided.decision.approval
    if decided.decision.effect is not Effect.REQUIRE_HITL or obligation is None:
        raise refusal(
            "malformed_request", "policy does not hold this for people now: ask again", problem=_NOT_REQUESTABLE
        )
    if chain_of(obligation, running.chains()) is None:
        raise refusal("malformed_request", "nobody can be asked for this", problem=_NOT_REQUESTABLE)
    return obligation


_NOT_REQUESTABLE: Final = "not_requestable"


def _held(
    running: Running, exchange: ApiExchange, judged: Judged, obligation: ApprovalObligation, stated: tuple[str, str]
) -> HeldCall:
    """What is frozen; `stated` are the caller's reason and the evaluation that denied."""
    subject, decided = exchange.subject, judged.decided
    reason, denied = stated
    name = obligation.chains[0]
    return HeldCall(
        fields=question_fields(judged.question, subject, judged.known),
        call=exchange.call_id,
        subject_json=orjson.dumps(subject_record(subject)).decode(),
        actors=never_voting(judged.question, subject),
        reasons=tuple(Reason(each.code, each.rule, each.message) for each in decided.decision.reasons),
        chain_name=name,
        chain_json=chain_json(running.chains()[name]),
        decide_within_seconds=obligation.decide_within_seconds,
        use_within_seconds=obligation.use_within_seconds,
        on_approval=obligation.on_approval,
        bundle_digest=decided.bundle_digest,
        bundle_revision=decided.bundle_revision,
        decision_id=denied,
        stated_reason=reason,
        kind="access_request",
    )


async def _show(running: Running, exchange: ApiExchange, request_id: str) -> Answer:
    await authorize(running, exchange, "access_request.show", resource_id=request_id)
    await _own(running, exchange, request_id)
    wanted = prefer(exchange.head.headers).wait_seconds
    seconds = min(wanted or 0, running.assembly.limits.hold_max_seconds)
    approval = await running.services.approvals.wait(exchange.log, request_id, seconds)
    headers: HeaderPairs = (("Preference-Applied", f"wait={seconds}"),) if wanted is not None else ()
    return _answered(exchange, _task(running, approval), headers)


async def _cancel(running: Running, exchange: ApiExchange, request_id: str) -> Answer:
    await authorize(running, exchange, "access_request.cancel", resource_id=request_id)
    await _own(running, exchange, request_id)
    try:
        cancelled = await running.services.approvals.cancel(exchange.log, request_id, exchange.subject)
    except ApprovalRefused as refused:
        if refused.code != "stale_state":
            raise
        raise refusal(refused.code, refused.detail, problem="invalid_task_state") from refused
    return _answered(exchange, _task(running, cancelled), ())


async def _own(running: Running, exchange: ApiExchange, request_id: str) -> None:
    """Raise `not_found` unless the request is this caller's own.

    **Security**: security rule 10: what is somebody else's, another tenant's or a held call's is as absent as nothing.
    """
    try:
        found = await running.services.approvals.get(exchange.log, request_id)
    except ApprovalRefused:
        found = None
    if found is None or found.held.kind != "access_request" or not is_requester(found, exchange.subject):
        raise refusal("not_found", "there is no such access request", problem="unknown_task")


def _task(running: Running, approval: Approval) -> dict[str, JsonValue]:
    return task_document(approval, running.assembly.config.external_url, int(running.services.clock() * 1000))


def _answered(exchange: ApiExchange, task: dict[str, JsonValue], headers: HeaderPairs, *, status: int = 200) -> Answer:
    return answer(task, status=status, headers=(("Tidegate-Call", exchange.call_id), *headers))
