"""The flow of a call that Envoy carries out: the flow of a proxied call up to where it would be sent.

Guarantees: identity, classification, schema, controls, decision, approval, intent and refusals are those of
`gateway.flow.call`, because they are that flow; a call is handed over only when a record that says so is durable, and
only while somebody waits for the answer. Whatever a proxied call promises after that point and this door cannot
(credentials, answers, repeats) refuses the call before anything is recorded as intended. What became of a call that was
handed over is not seen here, and its record says no status.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bundles.manifest import Action, ConnectorManifest
from gateway.connectors.bodies import takes_stream
from gateway.edge.problem import refusal
from gateway.envoy.question import NO_WAITING
from gateway.errors import Refusal
from gateway.flow import commands as c
from gateway.flow.call import proxy_flow
from gateway.flow.describe import Recorder, call_row
from gateway.flow.events import BodyRead, Event, Flow
from gateway.flow.values import Finished, FlowContext, GovernedCall, ProxyRequest, Trace
from gateway.store.port import SaveCall, StoreEffect

HANDED_OVER: Final = "handed_over"
"""The code in the record of a call that Envoy was told to forward."""
_NEEDS_AN_ANSWER: Final = (c.LookUpClaim, c.LoadAnswer, c.RedeemTicket, c.AwaitApproval)


def door_flow(
    request: ProxyRequest, body: bytes, trace: Trace, context: FlowContext, still_wanted: Callable[[], bool]
) -> Flow[Finished]:
    """Decide and record one question; the headers to forward when it may go. Raises `Refusal`.

    `still_wanted` says whether the deadline has not passed and the question was not withdrawn.
    """
    inner = proxy_flow(request._replace(prefer=NO_WAITING), trace, context)
    event: Event | None = None
    error: Exception | None = None
    while True:
        try:
            command = inner.send(event) if error is None else inner.throw(error)  # type: ignore[arg-type]
        except StopIteration:
            raise _unsupported("the call ended without being handed over") from None
        event, error = None, None
        try:
            if isinstance(command, c.ReadBody):
                event = _body(body, command.max_bytes)
                continue
            _check(command, request, body, trace, still_wanted)
        except Refusal as refused:
            error = refused
            continue
        if isinstance(command, c.Dispatch):
            inner.close()
            return (yield from _hand_over(command.call, trace, context))
        try:
            event = yield command
        except Exception as failed:  # whatever the driver says is the flow's to answer
            error = failed


def _body(body: bytes, max_bytes: int) -> BodyRead:
    if len(body) > max_bytes:
        raise refusal("body_too_large", f"the body is larger than {max_bytes} bytes")
    return BodyRead(body)


def _check(
    command: c.Command, request: ProxyRequest, body: bytes, trace: Trace, still_wanted: Callable[[], bool]
) -> None:
    """Refuse a step that this door cannot keep the promise of."""
    if isinstance(command, _NEEDS_AN_ANSWER):
        raise _unsupported("the Envoy door sees no answers: idempotency keys and upload tickets are for the proxy")
    if isinstance(command, c.AskPolicy):
        manifest = request.plan.manifest
        check_supported(manifest, request.plan.table.action(trace.action))
        if (command.policy_input.request or {}).get("query") != request.head.target.raw_query:
            raise _unsupported("the Envoy door takes the caller's token in a header only")
    if isinstance(command, c.AppendIntent | c.Dispatch) and not still_wanted():
        raise refusal("too_slow", "the decision came after the deadline of the question")
    if isinstance(command, c.Dispatch):
        outbound = command.outbound
        if (outbound.method, outbound.path, outbound.raw_query, outbound.body) != (
            request.head.method,
            request.path,
            request.head.target.raw_query,
            body,
        ):
            raise _unsupported("what was decided is not what Envoy would forward")


def check_supported(manifest: ConnectorManifest, action: Action) -> None:
    """Raise `denied` with the reason `not_supported` for a manifest or action that needs more than a yes or no."""
    for needed, what in _needs(manifest, action):
        if needed:
            raise _unsupported(f"the Envoy door cannot {what}")


def _needs(manifest: ConnectorManifest, action: Action) -> list[tuple[bool, str]]:
    rewrite = manifest.rewrite
    places = action.caller_token or manifest.caller_token
    return [
        (manifest.auth.kind != "none", "inject the instance's credential; its manifest's auth must be of kind none"),
        (bool(rewrite.hosts or rewrite.json_ or rewrite.tickets), "rewrite addresses in answers"),
        (bool(manifest.response_headers_drop), "drop headers of answers"),
        (any(place.startswith("form:") for place in places), "take a token out of a form"),
        (takes_stream(action) or action.upload_host is not None, "pass a streamed body"),
        (action.stream_response, "follow a streamed answer"),
        (action.response_max_bytes > 0, "limit the size of answers"),
    ]


def _unsupported(message: str) -> Refusal:
    return refusal("denied", message, reasons=[{"code": "not_supported", "rule": "", "message": message}])


def _hand_over(call: GovernedCall, trace: Trace, context: FlowContext) -> Flow[Finished]:
    """Record that the call goes out, then let it."""
    recorder = Recorder(call, trace, context.tenant_key(call.subject.tenant))
    effects: tuple[StoreEffect, ...] = ()
    if trace.approval_id is not None:
        effects = (SaveCall(call_row(call, trace, "done", code=HANDED_OVER, status=None)),)
    yield c.AppendRecord(recorder.draft("outcome" if trace.intended else "call", code=HANDED_OVER), effects)
    trace.settled = True
    return Finished(200, call.outbound.headers, b"", code=HANDED_OVER, effect=trace.effect)
