"""From the upstream's answer to the caller's: read or stream it, rewrite it, record the outcome, then let it go.

Guarantees: a whole answer leaves only after its outcome is durable; a streamed one only after a `response_began` record, and
is cut without its terminator when the last record fails (security rule 19); an answer that holds an injected secret, is
larger than the manifest allows or cannot be rewritten does not leave.
"""

from __future__ import annotations

from typing import Final

from gateway.edge.headers import HeaderPairs
from gateway.edge.problem import refusal
from gateway.errors import Refusal
from gateway.flow.commands import (
    AppendRecord,
    BeginStream,
    DropAnswer,
    EndStream,
    ReadAnswer,
    RelayAnswer,
    RewriteAnswer,
)
from gateway.flow.describe import Recorder, call_row
from gateway.flow.dispatching import failure, record_failure, stream_effects
from gateway.flow.events import (
    AnswerBegan,
    AnswerRead,
    AnswerRelayed,
    AnswerRewritten,
    DispatchFailed,
    Flow,
    expect,
)
from gateway.flow.once import KeyScope
from gateway.flow.values import Finished, FlowContext, GovernedCall, Trace
from gateway.store.port import SaveAnswer, SaveCall, SettleKey, StoredAnswer, StoreEffect

EVENT_STREAM: Final = "text/event-stream"


def deliver(
    call: GovernedCall,
    trace: Trace,
    context: FlowContext,
    recorder: Recorder,
    began: AnswerBegan,
    scope: KeyScope | None,
) -> Flow[Finished]:
    """Bring an answer that has begun to the caller."""
    try:
        _check_length(call, began)
        if must_stream(call, began, context):
            return (yield from _stream(call, trace, recorder, began, b"", scope))
        read = yield from _read(call, context)
        if not read.complete:
            if call.channel == "api" or _is_rewritten(call, began):
                raise refusal("upstream_failed", "the answer is larger than this gate rewrites")
            return (yield from _stream(call, trace, recorder, began, read.body, scope))
        event = yield RewriteAnswer(call, began.headers, read.body)
        rewritten = expect(event, AnswerRewritten)
    except Refusal as refused:
        if not trace.settled:
            yield DropAnswer()
            yield from record_failure(call, trace, recorder, scope, refused)
        raise
    answer = StoredAnswer(began.status, rewritten.headers, rewritten.body)
    yield from _record_outcome(call, trace, context, recorder, scope, answer)
    return Finished(began.status, rewritten.headers, rewritten.body, effect=trace.effect)


def _check_length(call: GovernedCall, began: AnswerBegan) -> None:
    limit = call.action.response_max_bytes
    if limit and began.length is not None and began.length > limit:
        raise refusal("upstream_failed", f"the answer is larger than the {limit} bytes this action allows")


def must_stream(call: GovernedCall, began: AnswerBegan, context: FlowContext) -> bool:
    """Whether an answer is passed on as it comes: events, what the manifest streams, and what is too long to hold."""
    if call.channel == "api" or call.outbound.method == "HEAD":
        return False
    if began.media_type == EVENT_STREAM:
        return True
    if _is_rewritten(call, began):
        return False
    too_long = began.length is not None and began.length > context.limits.response_buffer_max_bytes
    return too_long or (call.action.stream_response and began.length is None)


def _is_rewritten(call: GovernedCall, began: AnswerBegan) -> bool:
    rewrite = call.plan.manifest.rewrite
    return bool(rewrite.hosts or rewrite.json_ or rewrite.tickets) and "json" in began.media_type


def _read(call: GovernedCall, context: FlowContext) -> Flow[AnswerRead]:
    limit = context.limits.response_buffer_max_bytes
    if call.action.response_max_bytes:
        limit = min(limit, call.action.response_max_bytes)
    event = yield ReadAnswer(limit)
    if isinstance(event, DispatchFailed):
        raise failure(call, event)
    read = expect(event, AnswerRead)
    if read.leaked:
        raise refusal("upstream_failed", "the answer held a credential of the instance")
    if not read.complete and limit == call.action.response_max_bytes:
        raise refusal("upstream_failed", f"the answer is larger than the {limit} bytes this action allows")
    return read


def _record_outcome(
    call: GovernedCall,
    trace: Trace,
    context: FlowContext,
    recorder: Recorder,
    scope: KeyScope | None,
    answer: StoredAnswer,
) -> Flow[None]:
    effects: list[StoreEffect] = []
    keep = len(answer.body) <= context.limits.stored_answer_max_bytes
    followed = call.channel == "api" or trace.approval_id is not None
    if scope is not None:
        effects.append(SettleKey(call.log, scope.scope, call.call_id, "done"))
    if keep and (scope is not None or followed):
        effects.append(SaveAnswer(call.log, call.call_id, answer, context.limits.stored_answer_keep_seconds))
    if followed:
        effects.append(SaveCall(call_row(call, trace, "done", code=None, status=answer.status)))
    draft = recorder.draft("outcome" if trace.intended else "call", status=answer.status, response=answer.body)
    trace.settled = True  # from here on the outcome is kept until it is durable, whatever the caller hears
    yield AppendRecord(draft, tuple(effects), after_side_effect=True)


def _stream(
    call: GovernedCall,
    trace: Trace,
    recorder: Recorder,
    began: AnswerBegan,
    prefix: bytes,
    scope: KeyScope | None,
) -> Flow[Finished]:
    """Pass an answer on as it comes, between its two records."""
    rewritten = expect((yield RewriteAnswer(call, began.headers, b"")), AnswerRewritten)
    draft = recorder.draft("response_began", status=began.status)
    trace.streamed = True
    yield AppendRecord(draft)
    headers: HeaderPairs = rewritten.headers
    yield BeginStream(began.status, headers)
    relayed = expect((yield RelayAnswer(prefix, call.action.response_max_bytes)), AnswerRelayed)
    code = "upstream_failed" if relayed.cut is not None else None
    effects = stream_effects(call, trace)
    if scope is not None:
        effects = (*effects, SettleKey(call.log, scope.scope, call.call_id, "done"))
    extra = {"response": {"sha256": relayed.sha256, "length": relayed.length}, "cut": relayed.cut}
    draft = recorder.draft("outcome" if trace.intended else "call", status=began.status, code=code, extra=extra)
    trace.settled = True
    try:
        yield AppendRecord(draft, effects, after_side_effect=True)
    except Refusal:
        yield EndStream(complete=False)
        raise
    yield EndStream(complete=relayed.cut is None)
    return Finished(began.status, headers, b"", code=code or "", effect=trace.effect, streamed=True)
