"""What a call looks like to policy, to the ledger and to people who approve it.

Guarantees: all three are made from the same `GovernedCall`; records hold metadata and digests, never bodies or arguments.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from bundles.canonical import canonical_json
from gateway.approvals.model import Approval, CallFields, HeldCall
from gateway.approvals.model import Reason as HeldReason
from gateway.approvals.render import approval_facts
from gateway.edge.identity import Subject
from gateway.edge.problem import refusal
from gateway.flow.values import GovernedCall, Trace
from gateway.ledger.record import (
    Canonical,
    Part,
    RecordDraft,
    RecordKind,
    RecordMalformed,
    canonical,
    canonical_text,
    keyed_digest_json,
)
from gateway.store.port import CallRow, CallState
from pdp.decided import Decided
from pdp.documents import ActionFacts, ApprovalObligation, PolicyInput, Reason, ResourceFacts, SubjectFacts

ACTOR: Final = "gateway"
REASONS_MAX: Final = 32
RECORDED_TEXT_MAX_CHARACTERS: Final = 256
CACHED_MAX: Final = 4_096
"""Subjects, actions, bundles and reasons whose part of a record is kept encoded."""
Names = tuple[str, str, str, str]
"""A subject's type, id, issuer and environment."""


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
        approval=approval_facts(approval) if approval is not None else None,
        request={
            "method": call.outbound.method,
            "path": call.outbound.path,
            "query": call.outbound.raw_query,
            "protocol": "http",
        },
    )


def call_fields(call: GovernedCall) -> CallFields:
    """The exact call that an approval binds. The body must be whole: a streamed one is spooled before."""
    outbound, subject = call.outbound, call.subject
    return CallFields(
        tenant=subject.tenant,
        workspace=subject.workspace,
        environment=subject.environment,
        issuer=subject.issuer,
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
        subject_json=_json(subject_record(subject)),
        actors=subject.actors,
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


def subject_record(subject: Subject) -> dict[str, object]:
    """The subject as records and people see it."""
    names = (subject.type, subject.id, subject.issuer, subject.environment)
    return _subject_members(names, subject.roles, subject.on_behalf_of)


def _subject_members(names: Names, roles: tuple[str, ...], on_behalf_of: str | None) -> dict[str, object]:
    kind, name, issuer, environment = names
    return {
        "type": kind,
        "id": name,
        "issuer": issuer,
        "environment": environment,
        "roles": list(roles),
        "on_behalf_of": on_behalf_of,
    }


Ends = tuple[bytes, bytes]
"""Canonical JSON before and after the one member that differs from call to call."""


def decision_record(decided: Decided) -> Canonical:
    """The decision as records keep it: ids and codes, no messages."""
    decision = decided.decision
    before, after = _decision_ends(str(decision.effect), decided.engine, decision.reasons, decided.cached)
    parts = (before, canonical_text(decided.decision_id), b',"input":', canonical_text(decided.input_digest), after)
    return Canonical(b"".join(parts))


@lru_cache(maxsize=CACHED_MAX)
def _decision_ends(effect: str, engine: str, reasons: tuple[Reason, ...], cached: bool | None) -> Ends:
    codes = [recorded_text(reason.code) for reason in reasons[:REASONS_MAX]]
    value: dict[str, object] = {"id": "", "effect": effect, "engine": engine, "input": "", "reasons": codes}
    if cached:
        value["cached"] = True
    return _ends(value, b'"id":', b'"","input":""')


def policy_record(decided: Decided | None) -> Part:
    """The bundle and rules a record stands on."""
    if decided is None:
        return {}
    reasons = decided.decision.reasons
    return _policy_json(decided.bundle_digest, decided.bundle_revision, decided.bundle_sequence, reasons)


@lru_cache(maxsize=CACHED_MAX)
def _policy_json(bundle: str, revision: str, sequence: int, reasons: tuple[Reason, ...]) -> Canonical:
    rules = [recorded_text(reason.rule) for reason in reasons[:REASONS_MAX]]
    return canonical({"bundle": bundle, "revision": recorded_text(revision), "sequence": sequence, "rules": rules})


@lru_cache(maxsize=CACHED_MAX)
def _subject_json(names: Names, roles: tuple[str, ...], on_behalf_of: str | None) -> Canonical:
    return canonical(_subject_members(names, roles, on_behalf_of))


@lru_cache(maxsize=CACHED_MAX)
def _action_ends(names: tuple[str, str, str, str, str], end: tuple[int | None, str | None] | None) -> Ends:
    """An action around its resource's id; `end` is status and code of a call that ended."""
    name, mode, connector, instance, resource_type = names
    resource = {"type": resource_type, "id": ""}
    value: dict[str, object] = {
        "name": name,
        "mode": mode,
        "connector": connector,
        "instance": instance,
        "resource": resource,
    }
    if end is not None:
        value["status"], value["code"] = end
    return _ends(value, b'"resource":{"id":', b'""')


def _ends(value: Mapping[str, object], before: bytes, left_out: bytes) -> Ends:
    """`value` cut where `left_out` follows `before`. Quotation marks inside texts are escaped, so members match only."""
    whole = canonical(value)
    at = whole.index(before + left_out) + len(before)
    return bytes(whole[:at]), bytes(whole[at + len(left_out) :])


def recorded_text(text: str) -> str:
    """A text of somebody else's making, as long as records take one."""
    return text[:RECORDED_TEXT_MAX_CHARACTERS]


class Recorder:
    """Makes the record drafts of one call; the digest of its arguments is made once.

    What many calls have in common is encoded once and spliced in.
    """

    __slots__ = ("_call", "_decided", "_digests", "_names", "_standing", "_tenant_key", "_trace")

    def __init__(self, call: GovernedCall, trace: Trace, tenant_key: bytes) -> None:
        self._call = call
        self._trace = trace
        self._tenant_key = tenant_key
        action, plan = call.action, call.plan
        self._names = (action.name, action.mode, plan.manifest.connector, plan.name, call.resource_type)
        self._digests: bytes | None = None
        self._decided: Decided | None = None
        self._standing: tuple[Part, Canonical | None, Part] | None = None

    def _request_digests(self) -> bytes:
        """The digests of the request, as an object that is not closed yet."""
        if self._digests is None:
            call, key = self._call, self._tenant_key
            digests = b'{"args":' + keyed_digest_json(canonical_json(dict(call.args)), key)
            if call.outbound.body:
                digests = b'%b,"body":%b' % (digests, keyed_digest_json(call.outbound.body, key))
            self._digests = digests
        return self._digests

    def _ids(self) -> Canonical:
        trace = self._trace
        approval = b"" if trace.approval_id is None else b'"approval":%b,' % canonical_text(trace.approval_id)
        issued_by = b"" if not trace.issued_by else b',"issued_by":%b' % canonical_text(trace.issued_by)
        attempt, call = trace.retries + 1, canonical_text(self._call.call_id)
        return Canonical(b'{%b"attempt":%d,"call":%b%b}' % (approval, attempt, call, issued_by))

    def draft(
        self,
        kind: RecordKind,
        *,
        status: int | None = None,
        code: str | None = None,
        response: bytes | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> RecordDraft:
        """A record of this call as far as it has come. Raises `Refusal` ``ledger_unavailable`` for what has no form."""
        try:
            ends = _action_ends(self._names, None if kind == "intent" else (status, code))
            return self._draft(kind, ends, self._all_digests(response, extra))
        except RecordMalformed as failed:
            self._trace.fault = failed.detail
            raise refusal("ledger_unavailable") from failed

    def _all_digests(self, response: bytes | None, extra: Mapping[str, object] | None) -> Canonical:
        """The digests of the request and of what came after it, whose names sort behind the request's."""
        digests = self._request_digests()
        for name, value in sorted(extra.items()) if extra else ():
            digests = b"%b,%b:%b" % (digests, canonical_text(name), canonical(value))
        if response is not None:
            digests = b'%b,"response":%b' % (digests, keyed_digest_json(response, self._tenant_key))
        return Canonical(digests + b"}")

    def _draft(self, kind: RecordKind, action: Ends, digests: Canonical) -> RecordDraft:
        call, decided = self._call, self._trace.decided
        if self._standing is None or decided is not self._decided:
            self._decided, self._standing = decided, _standing(call.subject, decided)
        subject, decision, policy = self._standing
        before, after = action
        return RecordDraft(  # in its order: names cost a microsecond here
            call.log,
            kind,
            self._ids(),
            subject,
            Canonical(b"".join((before, canonical_text(recorded_text(call.resource_id)), after))),
            decision,
            policy,
            digests,
            ACTOR,
            "enforce",
            call.call_id,
        )


def _standing(subject: Subject, decided: Decided | None) -> tuple[Part, Canonical | None, Part]:
    """The members that are the same in every record of a call: who, the decision, and the rules it stands on."""
    decision = decision_record(decided) if decided is not None else None
    names = (subject.type, subject.id, subject.issuer, subject.environment)
    return _subject_json(names, subject.roles, subject.on_behalf_of), decision, policy_record(decided)


def early_refusal(trace: Trace, subject: Subject, code: str) -> RecordDraft:
    """The record of a refusal of an identified caller whose request never became a call."""
    action: dict[str, object] = {"name": trace.action, "connector": trace.connector, "instance": trace.instance}
    if trace.mode:
        action["mode"] = trace.mode
    ids: dict[str, object] = {"call": trace.call_id}
    if trace.approval_id is not None:
        ids["approval"] = trace.approval_id
    if trace.issued_by:
        ids["issued_by"] = trace.issued_by
    return RecordDraft(
        log=(subject.tenant, subject.workspace),
        kind="refusal",
        ids=ids,
        subject=subject_record(subject),
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
