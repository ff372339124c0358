"""Sending a call that may go out: controls once more, attempts as the manifest allows, and how failures are recorded.

Guarantees: a non-idempotent action is sent again only when nothing was sent or on 429 (security rule 4); switches,
configuration and lease are checked again once the intent is durable, where another bundle came into force meanwhile it is
asked, and before each retry all of it is done anew (rule 12); however dispatching ends without an answer, an outcome is recorded before the
caller hears of it.
"""

from __future__ import annotations

from typing import Final

from gateway.approvals.model import Approval
from gateway.edge.problem import refusal
from gateway.errors import Refusal
from gateway.flow.commands import AppendRecord, AskPolicy, Dispatch, DropAnswer, Pause, ReadSwitches
from gateway.flow.describe import Recorder, call_row, policy_input
from gateway.flow.events import AnswerBegan, DispatchFailed, Flow, PolicyAnswered, SwitchesRead, expect
from gateway.flow.once import KeyScope
from gateway.flow.renewing import renewed
from gateway.flow.switch_scopes import covering_scopes
from gateway.flow.values import GovernedCall, Trace
from gateway.store.port import CallState, CloseAnswer, SaveCall, SettleKey, StoreEffect, SwitchRow
from pdp.documents import Effect

RETRY_STATUSES: Final = frozenset({502, 503, 504})
RETRY_DELAY_MAX_SECONDS: Final = 30.0


def refuse_killed(call: GovernedCall) -> Flow[GovernedCall]:
    """Refuse `killed` while a switch covers the call, and a call that the configuration now in force does not let through.

    Gives the call as it is prepared now.
    """
    read = expect((yield ReadSwitches(call.subject.tenant, "", call.plan)), SwitchesRead)
    if read.switches:
        check_switches(read.switches, call)
    return call if read.moved is None else renewed(call, read.moved.plan)


def check_switches(switches: tuple[SwitchRow, ...], call: GovernedCall) -> None:
    """Raise `killed` when one of `switches` covers the call."""
    covering = covering_scopes(call.subject, call.plan.manifest.connector, call.action.name)
    for switch in switches:
        if switch.tenant == call.subject.tenant and switch.scope in covering:
            raise refusal("killed", f"the switch {switch.scope} is set")


def dispatch(
    call: GovernedCall,
    trace: Trace,
    recorder: Recorder,
    scope: KeyScope | None,
    approval: Approval | None,
) -> Flow[tuple[GovernedCall, AnswerBegan]]:
    """Send the call until it is answered; a refusal when it is not, with the outcome recorded.

    Gives the call as it was sent: on another plan if the gate read its configuration anew meanwhile.
    """
    try:
        if trace.intended:
            call = yield from _check_again(call, trace, approval)
        return (yield from _attempts(call, trace, approval))
    except Refusal as refused:
        yield from record_failure(call, trace, recorder, scope, refused)
        raise


def _check_again(call: GovernedCall, trace: Trace, approval: Approval | None) -> Flow[GovernedCall]:
    """Refuse what a switch, another configuration, the end of the lease or another bundle forbids since the decision."""
    decided_by = trace.decided.bundle_digest if trace.decided is not None else ""
    read = expect((yield ReadSwitches(call.subject.tenant, decided_by, call.plan)), SwitchesRead)
    if read.switches:
        check_switches(read.switches, call)
    if read.moved is not None:
        call = renewed(call, read.moved.plan)
    if not read.stands:
        yield from _still_allowed(call, trace, approval)
    return call


def _attempts(call: GovernedCall, trace: Trace, approval: Approval | None) -> Flow[tuple[GovernedCall, AnswerBegan]]:
    retry = call.plan.manifest.retry
    attempts = 1 if call.outbound.streamed else retry.max_attempts
    attempt, fetched_anew = 0, False
    while True:
        attempt += 1
        event = yield Dispatch(call, call.outbound)
        last = attempt >= attempts
        if isinstance(event, AnswerBegan):
            trace.sent = True
            if last or not (_status_may_retry(call, event.status) or _may_renew(call, event, renewed=fetched_anew)):
                return call, event
            fetched_anew = fetched_anew or event.renewable
            yield DropAnswer()
        else:
            failed = expect(event, DispatchFailed)
            trace.sent = trace.sent or failed.kind != "not_sent"
            if last or not _failure_may_retry(call, failed):
                raise failure(call, failed)
        trace.retries += 1
        yield Pause(min(retry.base_delay_ms / 1000 * 2 ** (attempt - 1), RETRY_DELAY_MAX_SECONDS))
        call = yield from refuse_killed(call)
        yield from _still_allowed(call, trace, approval)


def _still_allowed(call: GovernedCall, trace: Trace, approval: Approval | None) -> Flow[None]:
    """Ask again; a bundle that may not decide any more refuses by itself."""
    question = policy_input(call, now=call.received_unix, approval=approval)
    decided = expect((yield AskPolicy(question)), PolicyAnswered).decided
    trace.decided = decided
    effect = decided.decision.effect
    if effect is Effect.ALLOW or (effect is Effect.REQUIRE_HITL and approval is not None):
        return
    raise refusal("denied", "policy no longer allows this call", decision=decided.decision_id)


def _status_may_retry(call: GovernedCall, status: int) -> bool:
    return status == 429 or (call.action.idempotent and status in RETRY_STATUSES)


def _may_renew(call: GovernedCall, event: AnswerBegan, *, renewed: bool) -> bool:
    """Once more with another credential: only what may be sent again after an answer (security rule 4)."""
    return event.renewable and not renewed and call.action.idempotent


def _failure_may_retry(call: GovernedCall, failed: DispatchFailed) -> bool:
    if failed.code == "egress_forbidden":
        return False
    return failed.kind == "not_sent" or call.action.idempotent


def failure(call: GovernedCall, failed: DispatchFailed) -> Refusal:
    """What the caller hears: a write that may have happened is `outcome_unknown`, never a plain failure."""
    if failed.kind != "not_sent" and call.action.mode == "write" and not call.action.idempotent:
        return refusal("outcome_unknown", f"{failed.detail}; whether the service acted is not known")
    return refusal(failed.code, failed.detail)


def record_failure(
    call: GovernedCall, trace: Trace, recorder: Recorder, scope: KeyScope | None, refused: Refusal
) -> Flow[None]:
    """Record how a call ended that got no answer through; the key is free again only if nothing can have happened."""
    unknown = refused.code == "outcome_unknown"
    effects: list[StoreEffect] = [*stream_effects(call, trace)]
    if scope is not None and trace.intended:
        result = "unknown" if unknown else "released" if not trace.sent or call.action.idempotent else "done"
        effects.append(_settle(call, scope, result))
    if call.channel == "api" or trace.approval_id is not None:
        state: CallState = "unknown" if unknown else "refused"
        effects.append(SaveCall(call_row(call, trace, state, code=refused.code, status=None)))
    kind = "outcome" if trace.intended else "call"
    draft = recorder.draft(kind, code=refused.code)  # type: ignore[arg-type]
    trace.settled = True
    yield AppendRecord(draft, tuple(effects), after_side_effect=trace.sent or trace.intended)


def stream_effects(call: GovernedCall, trace: Trace) -> tuple[StoreEffect, ...]:
    """What closes a streamed read, which a start would otherwise find open; the outcome of an intent does so by itself."""
    return (CloseAnswer(call.log, call.call_id),) if trace.streamed and not trace.intended else ()


def _settle(call: GovernedCall, scope: KeyScope, result: str) -> SettleKey:
    return SettleKey(call.log, scope.scope, call.call_id, result)  # type: ignore[arg-type]
