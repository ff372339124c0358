"""The flow of one call, top to bottom; it yields commands and holds no I/O.

Guarantees: nothing is sent before a decision that allows it, and no write before its intent is durable; the outcome is
durable before a whole answer goes out; a refusal after identity is recorded. Every command that cannot be performed ends
the flow with a `Refusal`. Leaves performing to `gateway.flow.driver`.
"""

from __future__ import annotations

from dataclasses import replace

from bundles.canonical import JsonValue
from gateway.approvals.digest import action_digest, chain_digest
from gateway.approvals.model import Approval, ApprovalState
from gateway.approvals.render import rfc3339
from gateway.edge.headers import RequestHead, check_head
from gateway.edge.identity import Subject
from gateway.edge.problem import refusal
from gateway.edge.tokens import ANY_PLACE, find_token
from gateway.errors import Refusal
from gateway.flow.answering import deliver
from gateway.flow.commands import (
    AppendIntent,
    AppendRecord,
    AskPolicy,
    AwaitApproval,
    LoadUsedApproval,
    OpenOrAttach,
    ReadBody,
    VerifyToken,
)
from gateway.flow.describe import (
    Recorder,
    call_fields,
    call_row,
    chain_json,
    early_refusal,
    held_call,
    policy_input,
    with_body,
)
from gateway.flow.dispatching import dispatch, refuse_killed
from gateway.flow.events import (
    ApprovalRead,
    BodyRead,
    Flow,
    Identified,
    PolicyAnswered,
    UsedApprovalLoaded,
    expect,
)
from gateway.flow.once import KeyScope, is_once, key_effects, key_scope, look_up, replay
from gateway.flow.prepare import begin_proxy, prepare_api, prepare_proxy
from gateway.flow.renewing import renewed
from gateway.flow.values import ApiRequest, Finished, FlowContext, GovernedCall, ProxyRequest, Trace
from gateway.store.port import CallState, SaveCall, StoreConflict, StoreEffect
from pdp.decided import Decided
from pdp.documents import Effect


def proxy_flow(request: ProxyRequest, trace: Trace, context: FlowContext) -> Flow[Finished]:
    """A request on ``/c/{instance}/…`` from its head to its answer."""
    subject, found, reader = yield from begin_proxy(request, context.limits)
    trace.subject = subject
    try:
        call = yield from prepare_proxy(request, trace, (subject, found), reader, context.limits)
    except Refusal as refused:
        yield from _record_early(trace, subject, refused)
        raise
    return (yield from _governed(call, trace, context))


def api_flow(request: ApiRequest, trace: Trace, context: FlowContext) -> Flow[Finished]:
    """A governed call in our own words, its caller identified already."""
    trace.subject = request.subject
    try:
        call = prepare_api(request, trace)
    except Refusal as refused:
        yield from _record_early(trace, request.subject, refused)
        raise
    return (yield from _governed(call, trace, context))


def absent_flow(head: RequestHead, trace: Trace) -> Flow[Finished]:
    """A request to an instance that there is not: always a refusal.

    **Security**: `not_found` is for identified callers; anybody else gets what a known instance answers them, so that
    names cannot be probed without a token.
    """
    check_head(head)
    found = find_token(head.headers, head.target.query, None, ANY_PLACE)
    trace.subject = subject = expect((yield VerifyToken(found.token)), Identified).subject
    refused = refusal("not_found", "there is no such instance")
    yield from _record_early(trace, subject, refused)
    raise refused


def _record_early(trace: Trace, subject: Subject, refused: Refusal) -> Flow[None]:
    yield from _append_refusal(AppendRecord(early_refusal(trace, subject, refused.code)), refused)
    trace.settled = True


def _append_refusal(command: AppendRecord, refused: Refusal) -> Flow[None]:
    """A refusal stands whether or not it can be recorded: nothing is sent either way."""
    try:
        yield command
    except Refusal as failed:
        raise refused from failed


def _governed(call: GovernedCall, trace: Trace, context: FlowContext) -> Flow[Finished]:
    trace.action, trace.mode = call.action.name, call.action.mode
    recorder = Recorder(call, trace, context.tenant_key(call.subject.tenant))
    try:
        return (yield from _enforce(call, trace, context, recorder))
    except Refusal as refused:
        if not trace.settled:
            yield from _append_refusal(_refusal_record(call, trace, recorder, refused), refused)
            trace.settled = True
        raise


def _refusal_record(call: GovernedCall, trace: Trace, recorder: Recorder, refused: Refusal) -> AppendRecord:
    effects: tuple[StoreEffect, ...] = ()
    if call.channel == "api" or trace.approval_id is not None:
        state: CallState = "held" if refused.code == "approval_required" else "refused"
        effects = (SaveCall(call_row(call, trace, state, code=refused.code, status=None)),)
    return AppendRecord(recorder.draft("refusal", code=refused.code), effects)


def _enforce(call: GovernedCall, trace: Trace, context: FlowContext, recorder: Recorder) -> Flow[Finished]:
    """Controls, decision, hold, intent, dispatch, answer."""
    call = yield from refuse_killed(call)
    if call.action.placement is not None:
        message = "the manifest places this action at an agent, and this gate has none"
        raise refusal("denied", message, reasons=_not_supported(message))
    scope: KeyScope | None = None
    if is_once(call):
        if call.outbound.streamed:
            call = yield from _spooled(call, context)
        scope = key_scope(call)
        earlier = yield from look_up(call, scope)
        if earlier is not None:
            return (yield from _replayed(call, trace, context, recorder, earlier))
    decided = yield from _decide(call, trace, now=call.received_unix, approval=None)
    approval: Approval | None = None
    if decided.decision.effect is Effect.REQUIRE_HITL:
        if call.outbound.streamed:
            call = yield from _spooled(call, context)
        call, approval = yield from _hold(call, trace, context, decided)
    if call.action.mode == "read" and approval is None and scope is None:
        call, began = yield from dispatch(call, trace, recorder, scope, approval)
        return (yield from deliver(call, trace, context, recorder, began, scope))
    try:
        yield from _intend(call, trace, recorder, scope, approval)
    except StoreConflict as conflict:
        if conflict.code == "replay":
            return (yield from _replayed(call, trace, context, recorder, conflict.call))
        raise refusal(conflict.code, conflict.detail) from conflict
    call, began = yield from dispatch(call, trace, recorder, scope, approval)
    return (yield from deliver(call, trace, context, recorder, began, scope))


def _spooled(call: GovernedCall, context: FlowContext) -> Flow[GovernedCall]:
    body = expect((yield ReadBody(context.limits.body_max_bytes)), BodyRead).body
    return with_body(call, body)


def _replayed(
    call: GovernedCall, trace: Trace, context: FlowContext, recorder: Recorder, earlier: str
) -> Flow[Finished]:
    """The first answer again, if current policy lets the call out, or does with the approval that the first one used up.

    **Security**: security rule 14; where policy asks for a person only now, nobody has seen the call.
    """
    decided = yield from _decide(call, trace, now=call.received_unix, approval=None)
    if decided.decision.effect is Effect.REQUIRE_HITL:
        used = expect((yield LoadUsedApproval(call.log, earlier)), UsedApprovalLoaded).approval
        if used is None:
            message = "policy now asks for a person, and nobody approved the call that was made with this key"
            raise refusal("denied", message, reasons=reasons_of(decided), decision=decided.decision_id)
        trace.approval_id = used.id
        as_used = replace(used, state=ApprovalState.APPROVED)
        again = yield from _decide(call, trace, now=call.received_unix, approval=as_used)
        _check_same_chain(used, again, context.chains())
    return (yield from replay(call, trace, recorder, earlier))


def _decide(call: GovernedCall, trace: Trace, *, now: float, approval: Approval | None) -> Flow[Decided]:
    """Ask, and refuse everything but ALLOW and REQUIRE_HITL; no other effect is enforced by this version."""
    decided = expect((yield AskPolicy(policy_input(call, now=now, approval=approval))), PolicyAnswered).decided
    trace.decided = decided
    effect = decided.decision.effect
    if effect is Effect.ALLOW or (effect is Effect.REQUIRE_HITL and decided.decision.approval is not None):
        return decided
    reasons = reasons_of(decided)
    if effect is not Effect.DENY:
        reasons = _not_supported(f"{effect.value} is not enforced by this gate")
    raise refusal("denied", "", reasons=reasons, decision=decided.decision_id)


def reasons_of(decided: Decided) -> list[dict[str, str]]:
    """The reasons as callers see them."""
    return [{"code": r.code, "rule": r.rule, "message": r.message} for r in decided.decision.reasons]


def _hold(
    call: GovernedCall, trace: Trace, context: FlowContext, decided: Decided
) -> Flow[tuple[GovernedCall, Approval]]:
    """The call as it is now, and an approval that it may use, decided again with it; or a refusal that says why not."""
    obligation = decided.decision.approval
    if obligation is None or len(obligation.chains) != 1:
        raise refusal("denied", "several chains at once are not enforced by this gate", reasons=_not_supported(NOT_YET))
    chain = context.chains().get(obligation.chains[0])
    held = held_call(call, decided, obligation, chain)
    read = expect((yield OpenOrAttach(held)), ApprovalRead)
    trace.approval_id = read.approval.id
    if read.approval.state is ApprovalState.PENDING:
        seconds = _wait_seconds(call, context)
        if seconds > 0:
            read = expect((yield AwaitApproval(call.log, read.approval.id, seconds, call.plan)), ApprovalRead)
    if read.approval.state is not ApprovalState.APPROVED or not read.caller_connected:
        raise not_released(read.approval, decided)
    trace.released_unix = read.at_unix
    if read.moved is not None:
        call = renewed(call, read.moved.plan)
    again = yield from _decide(call, trace, now=read.at_unix, approval=read.approval)
    _check_same_chain(read.approval, again, context.chains())
    return call, read.approval


NOT_YET = "this gate does not enforce it yet"


def _not_supported(message: str) -> list[dict[str, str]]:
    return [{"code": "not_supported", "rule": "", "message": message}]


def _check_same_chain(approval: Approval, again: Decided, chains: dict[str, JsonValue]) -> None:
    """A changed bundle needs no new vote unless the chain changed, whether it holds the call or takes the approval."""
    name, obligation = approval.held.chain_name, again.decision.approval
    if again.decision.effect is Effect.REQUIRE_HITL and (obligation is None or obligation.chains != (name,)):
        raise refusal("stale_state", "the policy now asks for another chain of approval")
    if chain_digest(name, chain_json(chains.get(name))) != approval.chain_digest:
        raise refusal("stale_state", "the chain of approval has changed since people voted")


def _wait_seconds(call: GovernedCall, context: FlowContext) -> int:
    if call.prefer.wait_seconds is not None:
        return min(call.prefer.wait_seconds, context.limits.hold_max_seconds)
    if call.prefer.respond_async or call.channel == "api":
        return 0
    return min(call.plan.manifest.hold_budget_seconds, context.limits.hold_max_seconds)


def not_released(approval: Approval, decided: Decided) -> Refusal:
    """Why a held call does not go out now, with everything its caller needs to go on."""
    codes = {
        ApprovalState.DENIED: "approval_denied",
        ApprovalState.EXPIRED: "approval_expired",
        ApprovalState.WITHDRAWN: "approval_denied",
    }
    details = {
        "id": approval.id,
        "url": f"/v1/approvals/{approval.id}",
        "state": approval.state.value,
        "decide_by": rfc3339(approval.decide_by),
        "action_digest": approval.action_digest,
    }
    return refusal(
        codes.get(approval.state, "approval_required"),
        _denial_words(approval),
        approval=details,
        reasons=reasons_of(decided),
        decision=decided.decision_id,
    )


def _denial_words(approval: Approval) -> str:
    for step in approval.steps:
        for vote in step.votes:
            if vote.decision == "deny" and vote.reason:
                return vote.reason
    return ""


def _intend(
    call: GovernedCall, trace: Trace, recorder: Recorder, scope: KeyScope | None, approval: Approval | None
) -> Flow[None]:
    """Make the intent durable; with it the key is claimed and the approval used up. Switches are read again after."""
    effects: list[StoreEffect] = list(key_effects(call, scope, trace.released_unix))
    if call.channel == "api" or approval is not None:
        effects.append(SaveCall(call_row(call, trace, "dispatching", code=None, status=None)))
    digest = ""
    if approval is not None:
        digest = action_digest(call_fields(call), approval.salt)
        if digest != approval.action_digest:
            raise refusal("stale_state", "what would be sent is not what was approved")
    yield AppendIntent(recorder.draft("intent"), tuple(effects), approval, digest)
    trace.intended = True
