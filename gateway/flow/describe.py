"""What a call looks like to policy, to the ledger and to people who approve it.

Guarantees: all three are made from the same `GovernedCall`; records hold metadata and digests, never bodies or arguments
(page 1, invariant 9).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from bundles.canonical import JsonValue, canonical_json
from gateway.approvals.model import Approval, CallFields, HeldCall
from gateway.approvals.model import Reason as HeldReason
from gateway.edge.identity import Subject
from gateway.flow.values import GovernedCall, Trace
from gateway.ledger.record import RecordDraft, RecordKind, keyed_digest
from gateway.store.port import CallRow, CallState
from pdp.decided import Decided
from pdp.documents import ActionFacts, ApprovalObligation, PolicyInput, ResourceFacts, SubjectFacts

ACTOR: Final = "gateway"
REASONS_MAX: Final = 32
RECORDED_TEXT_MAX_CHARACTERS: Final = 256


def subject_facts(subject: Subject) -> SubjectFacts:
    """The subject as policy sees it."""
    return SubjectFacts(
        type=subject.type,
        id=subject.id,
        tenant=subject.tenant,
        workspace=subject.workspace,
        environment=subject.environment,
        roles=subject.roles,
        acr=subject.acr,
        amr=subject.amr,
        auth_time=subject.auth_time,
        on_behalf_of=subject.on_behalf_of,
    )


def policy_input(call: GovernedCall, *, now: float, approval: Approval | None = None) -> PolicyInput:
    """The question of one call at the time `now`, with the approval it would use."""
    action, plan = call.action, call.plan
    return PolicyInput(
        subject=subject_facts(call.subject),
        action=ActionFacts(action.name, action.mode, action.risk, action.reversible, action.idempotent),
        resource=ResourceFacts(call.resource_type, call.resource_id, plan.manifest.connector, plan.name),
        args=call.args,
        time_unix=now,
        call=call.call_id,
        ticket=call.ticket,
        run={"id": call.run} if call.run is not None else None,
        approval=_approval_facts(approval) if approval is not None else None,
        request={
            "method": call.outbound.method,
            "path": call.outbound.path,
            "query": call.outbound.raw_query,
            "protocol": "http",
        },
    )


def _approval_facts(approval: Approval) -> dict[str, JsonValue]:
    return {
        "id": approval.id,
        "state": approval.state.value,
        "chains": [approval.held.chain_name],
        "action_digest": approval.action_digest,
        "votes": [
            {"voter": vote.voter, "decision": vote.decision, "step": step.id}
            for step in approval.steps
            for vote in step.votes
        ],
    }


def call_fields(call: GovernedCall) -> CallFields:
    """The exact call that an approval binds (page 5). The body must be whole: a streamed one is spooled before."""
    outbound, subject = call.outbound, call.subject
    return CallFields(
        tenant=subject.tenant,
        workspace=subject.workspace,
        environment=subject.environment,
        subject=subject.id,
        on_behalf_of=subject.on_behalf_of,
        instance=call.plan.name,
        action=call.action.name,
        resource_json=_json({"type": call.resource_type, "id": call.resource_id}),
        args_json=canonical_json(dict(call.args)).decode(),
        method=outbound.method,
        path=outbound.path,
        query=outbound.raw_query,
        content_type=call.content_type,
        headers_json=_json([list(pair) for pair in outbound.headers]),
        body_sha256=hashlib.sha256(outbound.body or b"").hexdigest(),
        target=call.plan.base_url,
        idempotency_key=call.idempotency_key,
    )


def held_call(call: GovernedCall, decided: Decided, obligation: ApprovalObligation, chain: object) -> HeldCall:
    """What is frozen when a decision holds the call; `chain` is the bundle's, by the obligation's one name."""
    subject = call.subject
    return HeldCall(
        fields=call_fields(call),
        call=call.call_id,
        subject_json=_json(_subject_record(subject)),
        actors=subject.actors,
        issuer=subject.issuer,
        reasons=tuple(HeldReason(r.code, r.rule, r.message) for r in decided.decision.reasons),
        chain_name=obligation.chains[0],
        chain_json=chain_json(chain),
        decide_within_seconds=obligation.decide_within_seconds,
        use_within_seconds=obligation.use_within_seconds,
        on_approval=obligation.on_approval,
        bundle_digest=decided.bundle_digest,
        bundle_revision=decided.bundle_revision,
        decision_id=decided.decision_id,
        stated_reason=call.stated_reason,
    )


def chain_json(chain: object) -> str:
    """A chain of the bundle as the text an approval freezes."""
    return _json(chain)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _subject_record(subject: Subject) -> dict[str, object]:
    return {
        "type": subject.type,
        "id": subject.id,
        "issuer": subject.issuer,
        "environment": subject.environment,
        "roles": list(subject.roles),
        "on_behalf_of": subject.on_behalf_of,
    }


def subject_record(subject: Subject) -> dict[str, object]:
    """The subject as records name it."""
    return _subject_record(subject)


def decision_record(decided: Decided) -> dict[str, object]:
    """The decision as records keep it: ids and codes, no messages."""
    record: dict[str, object] = {
        "id": decided.decision_id,
        "effect": decided.decision.effect.value,
        "engine": decided.engine,
        "input": decided.input_digest,
        "reasons": [_cut(reason.code) for reason in decided.decision.reasons[:REASONS_MAX]],
    }
    return {**record, "cached": True} if decided.cached else record


def policy_record(decided: Decided | None) -> dict[str, object]:
    """The bundle and rules a record stands on."""
    if decided is None:
        return {}
    return {
        "bundle": decided.bundle_digest,
        "revision": _cut(decided.bundle_revision),
        "sequence": decided.bundle_sequence,
        "rules": [_cut(reason.rule) for reason in decided.decision.reasons[:REASONS_MAX]],
    }


def _cut(text: str) -> str:
    return text[:RECORDED_TEXT_MAX_CHARACTERS]


class Recorder:
    """Makes the record drafts of one call; the digest of its arguments is made once."""

    __slots__ = ("_action", "_call", "_digests", "_subject", "_tenant_key", "_trace")

    def __init__(self, call: GovernedCall, trace: Trace, tenant_key: bytes) -> None:
        self._call = call
        self._trace = trace
        self._tenant_key = tenant_key
        self._subject = _subject_record(call.subject)
        self._action: dict[str, object] = {
            "name": call.action.name,
            "mode": call.action.mode,
            "connector": call.plan.manifest.connector,
            "instance": call.plan.name,
            "resource": {"type": call.resource_type, "id": _cut(call.resource_id)},
        }
        self._digests: dict[str, object] | None = None

    def _request_digests(self) -> dict[str, object]:
        if self._digests is None:
            key = self._tenant_key
            self._digests = {"args": keyed_digest(canonical_json(dict(self._call.args)), key)}
            if self._call.outbound.body:
                self._digests["body"] = keyed_digest(self._call.outbound.body, key)
        return self._digests

    def draft(
        self,
        kind: RecordKind,
        *,
        status: int | None = None,
        code: str | None = None,
        response: bytes | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> RecordDraft:
        """A record of this call as far as it has come."""
        trace = self._trace
        action = self._action
        if kind != "intent":
            action = {**action, "status": status, "code": code}
        digests = self._request_digests()
        if response is not None:
            digests = {**digests, "response": keyed_digest(response, self._tenant_key)}
        if extra:
            digests = {**digests, **extra}
        ids: dict[str, object] = {"call": self._call.call_id, "attempt": trace.retries + 1}
        if trace.approval_id is not None:
            ids["approval"] = trace.approval_id
        decided = trace.decided
        return RecordDraft(
            log=self._call.log,
            kind=kind,
            ids=ids,
            subject=self._subject,
            action=action,
            decision=decision_record(decided) if decided is not None else None,
            policy=policy_record(decided),
            digests=digests,
            actor=ACTOR,
        )


def early_refusal(trace: Trace, subject: Subject, code: str) -> RecordDraft:
    """The record of a refusal of an identified caller whose request never became a call."""
    action: dict[str, object] = {"name": trace.action, "connector": trace.connector, "instance": trace.instance}
    if trace.mode:
        action["mode"] = trace.mode
    ids: dict[str, object] = {"call": trace.call_id}
    if trace.approval_id is not None:
        ids["approval"] = trace.approval_id
    return RecordDraft(
        log=(subject.tenant, subject.workspace),
        kind="refusal",
        ids=ids,
        subject=_subject_record(subject),
        action={**action, "code": code},
        decision=decision_record(trace.decided) if trace.decided is not None else None,
        policy=policy_record(trace.decided),
        digests={},
        actor=ACTOR,
    )


def call_row(call: GovernedCall, trace: Trace, state: CallState, *, code: str | None, status: int | None) -> CallRow:
    """The status row of a call."""
    return CallRow(
        log=call.log,
        id=call.call_id,
        subject=call.subject.id,
        issuer=call.subject.issuer,
        instance=call.plan.name,
        action=call.action.name,
        state=state,
        effect=trace.effect,
        code=code,
        decision=trace.decided.decision_id if trace.decided is not None else "",
        approval=trace.approval_id,
        status=status,
        created=int(call.received_unix * 1000),
    )


def with_body(call: GovernedCall, body: bytes) -> GovernedCall:
    """The call with its streamed body spooled."""
    return call._replace(outbound=call.outbound._replace(body=body, streamed=False))
