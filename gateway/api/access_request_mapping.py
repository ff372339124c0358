"""Access requests: AuthZEN's words for asking people, the token that binds a request to its denial, and what it becomes.

Guarantees: a request is about exactly the question that was denied to exactly this caller under exactly this bundle;
what people approve holds the whole question, and fits no call that the gate could send. Leaves asking policy to
`gateway.api.evaluating`, keeping requests to `gateway.approvals`, HTTP to `gateway.api.access_requests`.

**Security**: the token is an HMAC under a key of the tenant. Nothing but the gate reads it, so a stranger's, a forged and
an altered one are one refusal, and neither the caller nor the question has to stand in it.
**Source**: OpenID AuthZEN Access Request and Approval Profile 1.0, draft 1, of June 2026.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bundles.canonical import JsonValue, StrictJsonError, canonical_json, parse_strict
from gateway.api.authzen_mapping import (
    CONNECTOR,
    OWN_CONTEXT,
    Entity,
    KnownAction,
    MalformedQuestion,
    Question,
    parse_question,
)
from gateway.api.operations import CONNECTOR as GATE
from gateway.approvals.digest import action_digest, chain_digest
from gateway.approvals.model import Approval, ApprovalRefused, ApprovalState, CallFields
from gateway.approvals.reduce import as_of, instantiate_chain, is_requester
from gateway.approvals.render import rfc3339
from gateway.edge.identity import Subject
from gateway.errors import GateError
from pdp.documents import ApprovalObligation

TOKEN_SECONDS: Final = 600
"""How long a denial may be answered by a request."""
TOKEN_MAX_CHARACTERS: Final = 4096
TOKEN_VERSION: Final = 1
REASON_MAX_CHARACTERS: Final = 2000
APPROVAL_ID_MAX_CHARACTERS: Final = 64
RETRY_AFTER_SECONDS: Final = 5
REASON: Final = "business_justification"
_NOT_OFFERED: Final = ("items", "callback", "requested_access")
_UNBOUND_CONTEXT: Final = OWN_CONTEXT - {"ticket"}


class UnboundRequest(GateError):
    """The request cannot be bound to a denial of this caller; which part does not fit is not told."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Denial:
    """What a binding token says: the evaluation that denied, the bundle it stood on, the members of its context that
    count, and until when (wall milliseconds) it may be answered."""

    evaluation: str
    bundle: str
    members: tuple[str, ...]
    expires: int


@dataclass(frozen=True, slots=True)
class Submission:
    """An access request as it was handed in; `question` is what it claims was denied, its whole context included."""

    question: Question
    token: str
    expires_at: str
    evaluation: str | None
    reason: str

    def denied(self, members: tuple[str, ...]) -> Question:
        """The question with only those members of its context. Raises `UnboundRequest` when one of them is missing."""
        stated, asked = self.question.context, self.question
        if not all(name in stated for name in members):
            raise UnboundRequest("this is not the question that was denied")
        context = {name: stated[name] for name in members}
        return Question(asked.subject, asked.action, asked.action_properties, asked.resource, context)


class Standing(StrEnum):
    """What an approval that a caller refers to is worth for the question at hand."""

    APPLIES = "applies"
    PENDING = "pending"
    DENIED = "approval_denied"
    EXPIRED = "approval_expired"
    OUT_OF_SCOPE = "out_of_scope"
    UNVERIFIABLE = "approval_unverifiable"


def bound_members(question: Question) -> tuple[str, ...]:
    """The members of a question's context that policy sees: they are bound, the gate's own are not."""
    return tuple(sorted(name for name in question.context if name not in _UNBOUND_CONTEXT))


def seal_denial(denial: Denial, caller: Subject, question: Question, key: bytes) -> str | None:
    """The binding token of a denial, or None for a question whose context has too many names for one."""
    claims: JsonValue = [TOKEN_VERSION, denial.evaluation, denial.bundle, list(denial.members), denial.expires]
    payload = canonical_json(claims)
    token = f"{_encoded(payload)}.{_encoded(_mac(payload, caller, question, key))}"
    return token if len(token) <= TOKEN_MAX_CHARACTERS else None


def open_denial(submission: Submission, caller: Subject, key: bytes) -> Denial:
    """The denial that a submission answers, which is of this caller and about this question.

    Raises `UnboundRequest`, the same for a token of another caller, another tenant, another question and none at all.
    """
    payload, _, mac = submission.token.partition(".")
    try:
        claims = _decoded(payload)
        denial = _denial(claims)
        question = submission.denied(denial.members)
        genuine = hmac.compare_digest(_decoded(mac), _mac(claims, caller, question, key))
    except (ValueError, TypeError, StrictJsonError) as error:
        raise UnboundRequest("this is not the question that was denied") from error
    stated = (submission.expires_at, submission.evaluation or denial.evaluation)
    if not genuine or stated != (rfc3339(denial.expires), denial.evaluation):
        raise UnboundRequest("this is not the question that was denied")
    return denial


def parse_submission(document: JsonValue, header_reason: str) -> Submission:
    """The body of a submission. Raises `MalformedQuestion`; `UnboundRequest` when there is nothing to bind it by.

    The reason is the member `business_justification` of the context, or what the header gives: the caller's own words.
    """
    if not isinstance(document, dict):
        raise MalformedQuestion("the body is no object")
    unsupported = [name for name in _NOT_OFFERED if document.get(name)]
    if unsupported:
        raise MalformedQuestion(f"{unsupported[0]} is not offered: a request is about one denied question as it stands")
    question = parse_question(document)
    denial = document.get("denial")
    if not isinstance(denial, dict):
        raise UnboundRequest("denial is no object")
    token, expires_at, evaluation = (denial.get(name) for name in ("binding_token", "expires_at", "evaluation_id"))
    if not isinstance(token, str) or not token or len(token) > TOKEN_MAX_CHARACTERS or not token.isascii():
        raise UnboundRequest("denial.binding_token is not one of the gate's")
    if not isinstance(expires_at, str) or not isinstance(evaluation, str | None):
        raise UnboundRequest("denial.expires_at and denial.evaluation_id are those of the denial")
    reason = question.context.get(REASON, header_reason)
    if not isinstance(reason, str) or len(reason) > REASON_MAX_CHARACTERS:
        raise MalformedQuestion(f"context.{REASON} is no text of at most {REASON_MAX_CHARACTERS} characters")
    return Submission(question, token, expires_at, evaluation, reason)


def chain_of(obligation: ApprovalObligation | None, chains: Mapping[str, JsonValue]) -> JsonValue:
    """The one chain that people would walk through to grant what was denied, or None where nobody can be asked."""
    if obligation is None or len(obligation.chains) != 1 or obligation.on_approval != "grant":
        return None
    name = obligation.chains[0]
    try:
        instantiate_chain(name, json.dumps(chains.get(name)))
    except ApprovalRefused:
        return None
    return chains[name]


def question_fields(question: Question, caller: Subject, known: KnownAction | None) -> CallFields:
    """The whole question in the form that approvals bind and people see.

    **Security**: method and target are no request's, so that no call ever has the digest or the key of a question.
    """
    members = {name: question.context[name] for name in bound_members(question)}
    asked: dict[str, JsonValue] = {**_bound(question), "context": members}
    resource: JsonValue = {"type": question.resource.type, "id": question.resource.id}
    return CallFields(
        tenant=caller.tenant,
        workspace=caller.workspace,
        environment=caller.environment,
        issuer=caller.issuer,
        subject=caller.id,
        on_behalf_of=caller.on_behalf_of,
        instance=known.instance if known is not None else CONNECTOR,
        action=question.action,
        resource_json=canonical_json(resource).decode(),
        args_json=canonical_json(asked).decode(),
        method="",
        path="",
        query="",
        content_type=None,
        headers_json="[]",
        body_sha256=hashlib.sha256(b"").hexdigest(),
        target=f"{GATE}:access-request:{caller.issuer}",
        idempotency_key=None,
    )


def never_voting(question: Question, caller: Subject) -> tuple[str, ...]:
    """Whom the request is for, and whoever acts for the caller: they do not decide it. The caller never does anyway."""
    stands_for = question.subject.properties.get("on_behalf_of")
    named = (question.subject.id, stands_for) if isinstance(stands_for, str) else (question.subject.id,)
    return (*caller.actors, *named)


def referred(context: Mapping[str, JsonValue]) -> str | None:
    """The approval that a question refers to: `context.approval` with its `id`, or that id alone."""
    stated = context.get("approval")
    found = stated.get("id") if isinstance(stated, dict) else stated
    return found if isinstance(found, str) and 0 < len(found) <= APPROVAL_ID_MAX_CHARACTERS else None


def standing(
    approval: Approval | None, fields: CallFields, caller: Subject, chains: Mapping[str, JsonValue], now: int
) -> Standing:
    """What the approval is worth to this caller for this question at `now` (wall ms).

    **Security**: what is not the caller's own cannot be told from what is not there. An approval whose chain has changed
    since people voted counts as expired.
    """
    if approval is None or approval.held.kind != "access_request" or not is_requester(approval, caller):
        return Standing.UNVERIFIABLE
    digest = action_digest(fields, approval.salt)
    if not hmac.compare_digest(digest.encode("ascii"), approval.action_digest.encode("ascii")):
        return Standing.OUT_OF_SCOPE
    current = as_of(approval, now)
    if current.state is ApprovalState.PENDING:
        return Standing.PENDING
    if current.state is ApprovalState.DENIED:
        return Standing.DENIED
    name = approval.held.chain_name
    if name not in chains or chain_digest(name, json.dumps(chains[name])) != approval.chain_digest:
        return Standing.EXPIRED
    return Standing.APPLIES if current.state is ApprovalState.APPROVED else Standing.EXPIRED


def with_approval(answer: dict[str, JsonValue], found: Standing, approval: Approval | None) -> dict[str, JsonValue]:
    """The answer to a question that referred to an approval, with what its asker should do next.

    **Source**: the profile's section on completion: `next_action`, `retry_after` and the registered reasons.
    """
    context = answer["context"]
    context = dict(context) if isinstance(context, dict) else {}
    if answer["decision"] is True:
        if found is Standing.APPLIES and approval is not None:
            context["approval"] = {"id": approval.id, "approved_until": _approved_until(approval)}
        return {**answer, "context": context}
    context["next_action"] = "none"
    if context.get("effect") == "REQUIRE_HITL":
        _advise(context, found)
    elif found is Standing.APPLIES:
        context["reason"] = "policy_denied"
    return {**answer, "context": context}


def offers_request(answer: Mapping[str, JsonValue]) -> bool:
    """Whether a denial may carry an invitation to ask people: none is given where its asker has been told otherwise."""
    context = answer["context"]
    return isinstance(context, dict) and context.get("next_action", "request") == "request"


def with_offer(
    answer: dict[str, JsonValue], offer: tuple[str, Denial, str] | None, base_url: str
) -> dict[str, JsonValue]:
    """A denial with `context.access_request`, made of token, denial and chain; without one nobody is told to ask."""
    context = answer["context"]
    context = dict(context) if isinstance(context, dict) else {}
    if offer is None:
        if context.get("next_action") == "request":
            context["next_action"] = "none"
        return {**answer, "context": context}
    token, denial, chain = offer
    context["access_request"] = {
        "endpoint": endpoint(base_url),
        "template": chain,
        "expires_at": rfc3339(denial.expires),
        "binding_token": token,
    }
    return {**answer, "context": context}


def endpoint(base_url: str) -> str:
    """Where access requests are handed in."""
    return f"{base_url}/access/v1/requests"


def task_document(approval: Approval, base_url: str, now: int) -> dict[str, JsonValue]:
    """The task of a request as it stands at `now` (wall ms), with its result once people have approved."""
    current = as_of(approval, now)
    here = f"{endpoint(base_url)}/{current.id}"
    status = task_status(approval, now)
    task: dict[str, JsonValue] = {"id": current.id, "status": status, "status_endpoint": here}
    if status == "pending":
        task["expires_at"] = rfc3339(current.decide_by)
        task["links"] = {"cancel": f"{here}/cancel"}
    elif status == "denied":
        task["display"] = {"title": "A person denied this request", "description": _denial_words(current)}
    if status != "approved":
        return {"task": task}
    use_by = current.use_by or 0
    granted: JsonValue = {
        "id": current.id,
        "approved_at": rfc3339(use_by - current.held.use_within_seconds * 1000),
        "approved_until": _approved_until(current),
    }
    return {"task": task, "result": {"mode": "reevaluate", "approval": granted}}


def task_status(approval: Approval, now: int) -> str:
    """`pending`, and then exactly one of `approved`, `denied`, `expired`, `cancelled`, `failed` for ever: that what was
    approved has run out, or was withdrawn, does not unmake the approval."""
    current = as_of(approval, now)
    if current.use_by is not None:
        return "approved"
    return _STATUSES.get(current.state, "failed")


_STATUSES: Final = {
    ApprovalState.PENDING: "pending",
    ApprovalState.DENIED: "denied",
    ApprovalState.EXPIRED: "expired",
    ApprovalState.WITHDRAWN: "cancelled",
}


def _advise(context: dict[str, JsonValue], found: Standing) -> None:
    if found is Standing.PENDING:
        context["next_action"], context["retry_after"] = "retry", RETRY_AFTER_SECONDS
    elif found is Standing.APPLIES:  # and yet policy holds: it now wants other people to agree
        context["next_action"], context["reason"] = "request", Standing.OUT_OF_SCOPE.value
    else:
        context["reason"] = found.value
        context["next_action"] = "request" if found in (Standing.EXPIRED, Standing.OUT_OF_SCOPE) else "none"


def _approved_until(approval: Approval) -> str:
    use_by = approval.use_by or 0
    return rfc3339(use_by if approval.ended is None else min(use_by, approval.ended))


def _denial_words(approval: Approval) -> str:
    votes = [vote for step in approval.steps for vote in step.votes if vote.decision == "deny"]
    return votes[-1].reason if votes else ""


def _denial(claims: bytes) -> Denial:
    version, evaluation, bundle, members, expires = _five(parse_strict(claims, max_bytes=TOKEN_MAX_CHARACTERS))
    if version != TOKEN_VERSION or not isinstance(evaluation, str) or not isinstance(bundle, str):
        raise ValueError("no claims of a binding token")
    if not isinstance(members, list) or not isinstance(expires, int):
        raise ValueError("no claims of a binding token")
    return Denial(evaluation, bundle, tuple(str(name) for name in members), expires)


def _five(claims: JsonValue) -> list[JsonValue]:
    if not isinstance(claims, list) or len(claims) != 5:
        raise ValueError("no claims of a binding token")
    return claims


def _bound(question: Question) -> dict[str, JsonValue]:
    action: JsonValue = {"name": question.action, "properties": dict(question.action_properties)}
    return {"subject": _entity(question.subject), "action": action, "resource": _entity(question.resource)}


def _entity(entity: Entity) -> JsonValue:
    return {"type": entity.type, "id": entity.id, "properties": dict(entity.properties)}


def _mac(claims: bytes, caller: Subject, question: Question, key: bytes) -> bytes:
    members = {name: question.context[name] for name in bound_members(question)}
    who: list[JsonValue] = [caller.tenant, caller.workspace, caller.environment, caller.issuer, caller.id]
    about: JsonValue = {
        "caller": [*who, caller.on_behalf_of],
        "question": {**_bound(question), "context": members},
        "claims": _encoded(claims),
    }
    return hmac.new(key, b"access-request\x00" + canonical_json(about), hashlib.sha256).digest()


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("no base64url") from error
